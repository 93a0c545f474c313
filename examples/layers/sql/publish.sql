\set user random(0, 999)
select publish('user:' || :user::text, 'order.paid', '{"order": 48151623, "amount": 129900, "currency": "EUR", "text": "Thank you, it is on its way to you."}');
