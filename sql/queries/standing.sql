-- How a cursor stands to the log, in one snapshot: the head of a look, whose anchor is the cursor's, when
-- the anchor and the newest event were inserted, and how many events of all topics the cursor has not seen.
--
-- $1 xmax of its first mark    $2 its transactions in progress    $3 its newest id
-- $4 its snapshot              $5 snapshot of its second mark, or null    $6 the id sent of that
-- $7 id of its anchor          $8 count at most
--
-- The branches are those of the look; see there.
with now as materialized (
    select pg_current_snapshot() as sees
), first as materialized (
    select $4::text::pg_snapshot as sees
), second as materialized (
    select $5::text::pg_snapshot as sees
), unfinished as materialized (
    select x::xid8 as xid from unnest($2::text[]) x
), missed as (
    select from (
        select since.id, since.xid from (
            select id, xid from tidings.event
            where xid >= $1::text::xid8 and xid < (select pg_snapshot_xmax(sees) from now)
            order by xid, id offset 0
        ) since
        union all
        select late.id, late.xid from unfinished cross join lateral (
            select id, xid from tidings.event
            where event.xid between unfinished.xid and unfinished.xid
            order by xid, id offset 0
        ) late
        where pg_visible_in_snapshot(unfinished.xid, (select sees from now))
        union all
        select reused.id, reused.xid from (
            select id, xid from tidings.event where id > $3::bigint order by id, created_at offset 0
        ) reused
        where xid < $1::text::xid8 and xid not in (select xid from unfinished)
    ) e
    where not (e.id <= $3::bigint and pg_visible_in_snapshot(e.xid, (select sees from first)))
      and not coalesce(e.id <= $6::bigint and pg_visible_in_snapshot(e.xid, (select sees from second)), false)
    limit $8::bigint
)
select now.sees::text as snapshot,
       newest.id as newest_id, newest.tag as newest_tag, own.tag as anchor_tag,
       floor.snapshot::text as floor_snapshot, floor.xid::text::bigint as floor_xid,
       floor.id as floor_id, floor.tag as floor_tag,
       own.created_at as anchor_at, newest.created_at as newest_at,
       (select count(*) from missed) as missed
from tidings.floor cross join now
left join lateral (
    select e.id, e.created_at, tidings.tag(e.id, e.xid, e.created_at) as tag
    from tidings.event e order by e.id desc, e.created_at desc limit 1
) newest on true
left join lateral (
    select e.created_at, tidings.tag(e.id, e.xid, e.created_at) as tag
    from tidings.event e where e.id between $7::bigint and $7::bigint order by e.id, e.created_at limit 1
) own on true
