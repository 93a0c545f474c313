-- One page of one leg of a replay: the events of some topics that `to` sees and `from` does not, in the order
-- of ids. Same shape as the look; the head tells the anchor of the cursor and that of the target.
--
-- $1 topics                $2 xmax of `from`     $3 its transactions in progress   $4 its newest id
-- $5 snapshot of `to`      $6 ids after this     $7 ids up to this
-- $8 most rows             $9 most bytes         $10 id of the cursor's newest event
-- $11 id of the newest event of the position that the whole replay leads to
--
-- What `from` has not seen is: transactions that were in progress, transactions from xmax on, and, after a
-- crash, ids beyond its newest whose transaction ids were used again below xmax. Such a transaction id
-- lies above every transaction whose commit survived, so above that of `from`'s own newest event: by that
-- the third branch stays a short range of the index on (topic, xid, id). Where that event is trimmed,
-- the range is the topic's whole.
--
-- Of the transactions that were in progress most have written little or nothing: one probe fetches that,
-- whatever its topics. Only one that wrote much is probed for each topic. Branches are held to their index as those of
-- the look are, see there; topics are compared as rows with transactions, since beside `topic =` the index
-- on (xid, id) would have the order as well.
with target as materialized (
    select $5::text::pg_snapshot as sees
), wanted as materialized (
    select distinct topic from unnest($1::text[]) as topic
), unfinished as materialized (
    select x::xid8 as xid from unnest($3::text[]) x
), late as materialized (
    select event.* from unfinished cross join lateral (
        select id, xid, created_at, topic, type, data, bytes from tidings.event
        where (event.xid, id) > (unfinished.xid, $6::bigint) and (event.xid, id) <= (unfinished.xid, $7::bigint)
        order by xid, id limit 33
    ) event
    where pg_visible_in_snapshot(unfinished.xid, (select sees from target))
), bulk as materialized (
    select xid from late group by xid having count(*) > 32
), found as materialized (
    select e.* from (
        select * from late
        where topic = any ($1::text[]) and xid not in (select xid from bulk)
        union all
        select of_bulk.* from bulk cross join wanted cross join lateral (
            select id, xid, created_at, topic, type, data, bytes from tidings.event e
            where (e.topic, e.xid, e.id) > (wanted.topic, bulk.xid, $6::bigint)
              and (e.topic, e.xid, e.id) <= (wanted.topic, bulk.xid, $7::bigint)
            order by topic, xid, id limit $8::bigint + 1
        ) of_bulk
        union all
        select since.* from wanted cross join lateral (
            select id, xid, created_at, topic, type, data, bytes from tidings.event e
            where (e.topic, e.xid) >= (wanted.topic, $2::text::xid8)
              and (e.topic, e.xid) < (wanted.topic, (select pg_snapshot_xmax(sees) from target))
              and id > $6::bigint and id <= $7::bigint
            order by topic, xid, id offset 0
        ) since
        union all
        select reused.* from wanted cross join lateral (
            select id, xid, created_at, topic, type, data, bytes from tidings.event e
            where (e.topic, e.xid) > (wanted.topic, coalesce((
                      select b.xid from tidings.event b where b.id between $4::bigint and $4::bigint order by b.id, b.created_at limit 1
                  ), '0'::xid8))
              and (e.topic, e.xid) < (wanted.topic, $2::text::xid8)
              and id > greatest($4::bigint, $6::bigint) and id <= $7::bigint
            order by topic, xid, id offset 0
        ) reused
        where xid not in (select xid from unfinished)
    ) e
    where pg_visible_in_snapshot(e.xid, (select sees from target))
    order by e.id
    limit $8::bigint + 1
), page as (
    select f.*,
           row_number() over (order by f.id) as place,
           sum(f.size) over (order by f.id) - f.size as bytes_before
    from (select found.*, coalesce(bytes, case when pg_column_size(data) <= 8192 then octet_length(data::text) else 262144 end) as size from found offset 0) f
)
select pg_current_snapshot()::text as snapshot,
       (select count(*) from found) as found,
       $11::bigint as newest_id, newest.tag as newest_tag, own.tag as anchor_tag,
       floor.snapshot::text as floor_snapshot, floor.xid::text::bigint as floor_xid,
       floor.id as floor_id, floor.tag as floor_tag,
       null::bigint as id, null::bigint as xid, null::timestamptz as created_at,
       null::text as topic, null::text as type, null::text as data
from tidings.floor
left join lateral (
    select tidings.tag(e.id, e.xid, e.created_at) as tag
    from tidings.event e where e.id between $11::bigint and $11::bigint order by e.id, e.created_at limit 1
) newest on true
left join lateral (
    select tidings.tag(e.id, e.xid, e.created_at) as tag
    from tidings.event e where e.id between $10::bigint and $10::bigint order by e.id, e.created_at limit 1
) own on true
union all
select null, null, null, null, null, null, null, null, null,
       id, xid::text::bigint, created_at, topic, type, data::text
from page
where place <= $8::bigint and (place = 1 or bytes_before < $9::bigint)
order by id nulls first
