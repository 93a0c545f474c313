-- The state of one topic, unless it is too large to be sent: then that is all that is told.
--
-- $1 topic                 $2 claims of the caller as JSON text     $3 most bytes
--
-- Materialized, so that the function of the application is called once.
with told as materialized (
    select tidings.state_of($1::text, $2::text::jsonb)::text as text
)
select text is not null as told,
       case when octet_length(text) <= $3::bigint then text end as state
from told
