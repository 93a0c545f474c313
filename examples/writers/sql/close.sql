-- A last event for each topic: when these have arrived, all that was sent before them has.
--
-- $1 topics
select count(tidings.publish('user:' || topic, 'writers.close')) from generate_series(0, $1::bigint - 1) as topic
