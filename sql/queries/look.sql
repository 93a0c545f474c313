-- The look: what has been committed since a mark, in the order of ids, and this statement's own
-- snapshot, so that rows and snapshot agree. The first row is the head; it carries what travels once.
--
-- $1 xmax of the mark      $2 its transactions in progress   $3 its newest id
-- $4 whether the session is new: then ids beyond the newest are looked at as well, since after a
--    crash transaction ids that left no trace are used again below xmax
-- $5 most rows             $6 most bytes of data
--
-- Finished transactions are picked out first, so that partitions are probed for those alone.
with finished as materialized (
    select array(
        select x::xid8 from unnest($2::text[]) x
        where pg_visible_in_snapshot(x::xid8, pg_current_snapshot())
    ) as xids
), found as materialized (
    select e.* from (
        select id, xid, created_at, topic, type, data, bytes from tidings.event
        where xid >= $1::text::xid8
        union all
        select id, xid, created_at, topic, type, data, bytes from tidings.event
        where xid = any ((select xids from finished)::xid8[])
        union all
        select id, xid, created_at, topic, type, data, bytes from tidings.event
        where $4::boolean and id > $3::bigint and xid < $1::text::xid8
          and xid <> all ((select xids from finished)::xid8[])
    ) e
    where pg_visible_in_snapshot(e.xid, pg_current_snapshot())
    order by e.id
    limit $5::bigint + 1
), page as (
    select f.*,
           row_number() over (order by f.id) as place,
           sum(f.bytes) over (order by f.id) - f.bytes as bytes_before
    from found f
)
select pg_current_snapshot()::text as snapshot,
       (select count(*) from found) as found,
       newest.id as newest_id, newest.tag as newest_tag, own.tag as anchor_tag,
       floor.snapshot::text as floor_snapshot, floor.xid::text::bigint as floor_xid,
       floor.id as floor_id, floor.tag as floor_tag,
       null::bigint as id, null::bigint as xid, null::timestamptz as created_at,
       null::text as topic, null::text as type, null::text as data
from tidings.floor
left join lateral (
    select e.id, tidings.tag(e.id, e.xid, e.created_at) as tag
    from tidings.event e order by e.id desc limit 1
) newest on true
left join lateral (
    select tidings.tag(e.id, e.xid, e.created_at) as tag
    from tidings.event e where e.id = $3::bigint limit 1
) own on true
union all
select null, null, null, null, null, null, null, null, null,
       id, xid::text::bigint, created_at, topic, type, data::text
from page
where place <= $5::bigint and (place = 1 or bytes_before < $6::bigint)
order by id nulls first
