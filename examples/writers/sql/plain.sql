\set user random(0, 1000 / :writers - 1) * :writers + :client_id
insert into plain (topic, type, data) values ('user:' || :user::text, 'order.paid', '{"order": 48151623, "amount": 129900, "currency": "EUR", "text": "Thank you, it is on its way to you."}');
