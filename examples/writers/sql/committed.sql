-- What was committed since, and the topic's number of each.
--
-- $1 the newest id before
select id, substr(topic, 6)::int as topic from tidings.event where id > $1
