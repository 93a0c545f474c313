\set user random(0, 999)
insert into event (topic, type, data) values ('user:' || :user::text, 'order.paid', '{"order": 48151623, "amount": 129900, "currency": "EUR", "text": "Thank you, it is on its way to you."}');
