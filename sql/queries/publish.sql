-- Publishes one event.
--
-- $1 topic     $2 type     $3 data as JSON text     $4 key, or null
select tidings.publish($1::text, $2::text, $3::text::jsonb, $4::text) as id
