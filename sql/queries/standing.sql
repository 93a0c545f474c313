-- How a cursor stands to the log, in one snapshot: the head of a look, whose anchor is the cursor's, when
-- the anchor and the newest event were inserted, and how many events of all topics the cursor has not seen.
--
-- $1 xmax of its first mark    $2 its transactions in progress    $3 its newest id
-- $4 its snapshot              $5 snapshot of its second mark, or null    $6 the id sent of that
-- $7 id of its anchor          $8 count at most
with missed as (
    select from tidings.event e
    where (e.xid >= $1::text::xid8 or e.xid = any ($2::text[]::xid8[]) or e.id > $3::bigint)
      and not (e.id <= $3::bigint and pg_visible_in_snapshot(e.xid, $4::text::pg_snapshot))
      and not coalesce(e.id <= $6::bigint and pg_visible_in_snapshot(e.xid, $5::text::pg_snapshot), false)
    limit $8::bigint
)
select pg_current_snapshot()::text as snapshot,
       newest.id as newest_id, newest.tag as newest_tag, own.tag as anchor_tag,
       floor.snapshot::text as floor_snapshot, floor.xid::text::bigint as floor_xid,
       floor.id as floor_id, floor.tag as floor_tag,
       own.created_at as anchor_at, newest.created_at as newest_at,
       (select count(*) from missed) as missed
from tidings.floor
left join lateral (
    select e.id, e.created_at, tidings.tag(e.id, e.xid, e.created_at) as tag
    from tidings.event e order by e.id desc limit 1
) newest on true
left join lateral (
    select e.created_at, tidings.tag(e.id, e.xid, e.created_at) as tag
    from tidings.event e where e.id = $7::bigint limit 1
) own on true
