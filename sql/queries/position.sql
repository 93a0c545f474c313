-- Where the log is now: this snapshot, the newest event that it sees, and the floor. The head of a look
-- without a mark to look from.
select pg_current_snapshot()::text as snapshot,
       0::bigint as found,
       newest.id as newest_id, newest.tag as newest_tag, newest.created_at as newest_at, null::text as anchor_tag,
       floor.snapshot::text as floor_snapshot, floor.xid::text::bigint as floor_xid,
       floor.id as floor_id, floor.tag as floor_tag
from tidings.floor
left join lateral (
    select e.id, e.created_at, tidings.tag(e.id, e.xid, e.created_at) as tag
    from tidings.event e order by e.id desc, e.created_at desc limit 1
) newest on true
