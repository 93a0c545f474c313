-- The look: what has been committed since a mark, in the order of ids, and this statement's own
-- snapshot, so that rows and snapshot agree. The first row is the head; it carries what travels once.
--
-- $1 xmax of the mark      $2 its transactions in progress   $3 its newest id
-- $4 whether the session is new: then ids beyond the newest are looked at as well, since after a
--    crash transaction ids that left no trace are used again below xmax
-- $5 most rows             $6 most bytes of data
--
-- The size of data that came without one is measured only where that is quick, and else taken for the most that it can be.
--
-- No estimate may choose another index than each branch is meant for: after a bulk commit the statistics hold
-- one transaction for most of the log, and a leaf that was analyzed before its day began for empty. So each
-- branch stands behind a fence and is ordered as its index is, and the session neither scans whole tables nor
-- sorts what an index has in order. Transactions that were in progress are probed only once they have finished,
-- and what this snapshot cannot see is walked over at most once, when its transaction is new.
with now as materialized (
    select pg_current_snapshot() as sees
), finished as materialized (
    select x::xid8 as xid from unnest($2::text[]) x
    where pg_visible_in_snapshot(x::xid8, (select sees from now))
), found as materialized (
    select e.* from (
        select since.* from (
            select id, xid, created_at, topic, type, data, bytes from tidings.event
            where xid >= $1::text::xid8 and xid < (select pg_snapshot_xmax(sees) from now)
            order by xid, id offset 0
        ) since
        union all
        select late.* from finished cross join lateral (
            -- `between` and not `=`, beside which the primary key would have the order as well.
            select id, xid, created_at, topic, type, data, bytes from tidings.event
            where event.xid between finished.xid and finished.xid
            order by xid, id limit $5::bigint + 1
        ) late
        union all
        select reused.* from (
            select id, xid, created_at, topic, type, data, bytes from tidings.event
            where $4::boolean and id > $3::bigint
            order by id, created_at offset 0
        ) reused
        where xid < $1::text::xid8 and xid not in (select xid from finished)
    ) e
    where pg_visible_in_snapshot(e.xid, (select sees from now))
    order by e.id
    limit $5::bigint + 1
), page as (
    select f.*,
           row_number() over (order by f.id) as place,
           sum(f.size) over (order by f.id) - f.size as bytes_before
    from (select found.*, coalesce(bytes, case when pg_column_size(data) <= 8192 then octet_length(data::text) else 262144 end) as size from found offset 0) f
), whole as materialized (
    select count(*) as found, max(id) as newest from found
)
select now.sees::text as snapshot,
       whole.found as found,
       newest.id as newest_id, newest.tag as newest_tag, newest.created_at as newest_at, own.tag as anchor_tag,
       floor.snapshot::text as floor_snapshot, floor.xid::text::bigint as floor_xid,
       floor.id as floor_id, floor.tag as floor_tag,
       null::bigint as id, null::bigint as xid, null::timestamptz as created_at,
       null::text as topic, null::text as type, null::text as data
from tidings.floor cross join now cross join whole
left join lateral (
    -- The newest event that this snapshot sees is the mark's or one that was found, unless more were found
    -- than a page holds, or the history of the mark is gone. Only then the log is asked for its last:
    -- that is a walk over all that open transactions have written behind it.
    (select e.id, e.created_at, tidings.tag(e.id, e.xid, e.created_at) as tag
     from tidings.event e
     where e.id between greatest($3::bigint, whole.newest) and greatest($3::bigint, whole.newest)
       and whole.found <= $5::bigint
     order by e.id, e.created_at limit 1)
    union all
    (select e.id, e.created_at, tidings.tag(e.id, e.xid, e.created_at) as tag
     from tidings.event e order by e.id desc, e.created_at desc limit 1)
    limit 1
) newest on true
left join lateral (
    select tidings.tag(e.id, e.xid, e.created_at) as tag
    from tidings.event e where e.id between $3::bigint and $3::bigint order by e.id, e.created_at limit 1
) own on true
union all
select null, null, null, null, null, null, null, null, null, null,
       id, xid::text::bigint, created_at, topic, type, data::text
from page
where place <= $5::bigint and (place = 1 or bytes_before < $6::bigint)
order by id nulls first
