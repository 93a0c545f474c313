-- The glance: the look as it nearly always is, at a part of its cost. It goes on from a mark whose newest event
-- is known with its time, and tells all that was committed since, or no event at all when that is more than a page.
--
-- $1 xmax of the mark      $2 its transactions in progress   $3 its newest id
-- $4 when that event was inserted, or null when there is none
-- $5 most rows             $6 most bytes of data
--
-- With many days in the log, most of what a look costs is opening every partition for each scan of the statement,
-- and making ready each expression in each partition. So there is one scan, which is run for the range from xmax on and
-- for each transaction that has finished since; what is not a plain column is computed above it, and only once its
-- bounds have been. The branches are those of the look, and fenced as they are; see there. Nothing is looked for by the
-- time at which it was inserted, which may be any; only the mark's own newest event is known to lie in one partition.
with now as materialized (
    select pg_current_snapshot() as sees
), span as materialized (
    select $1::text::xid8 as first, (pg_snapshot_xmax(sees)::text::bigint - 1)::text::xid8 as last from now
    union all
    select x::xid8, x::xid8 from unnest($2::text[]) x
    where pg_visible_in_snapshot(x::xid8, (select sees from now))
), found as materialized (
    select seen.*, coalesce(seen.bytes, case when pg_column_size(seen.data) <= 8192 then octet_length(seen.data::text) else 262144 end) as size
    from span cross join lateral (
        select * from (
            select id, xid, created_at, topic, type, data, bytes from tidings.event
            where event.xid between span.first and span.last
            order by xid, id offset 0
        ) written
        where pg_visible_in_snapshot(written.xid, (select sees from now))
        limit $5::bigint + 1
    ) seen
    limit $5::bigint + 1
), whole as materialized (
    select count(*) as found, sum(size) as bytes from found
)
select now.sees::text as snapshot, whole.found as found, own.xid::text::bigint as own_xid,
       floor.snapshot::text as floor_snapshot, floor.xid::text::bigint as floor_xid,
       floor.id as floor_id, floor.tag as floor_tag,
       null::bigint as id, null::bigint as xid, null::timestamptz as created_at,
       null::text as topic, null::text as type, null::text as data
from tidings.floor cross join now cross join whole
left join lateral (
    select e.xid from tidings.event e
    where e.id between $3::bigint and $3::bigint and e.created_at = $4::timestamptz
    order by e.id limit 1
) own on true
union all
select null, null, null, null, null, null, null,
       id, xid::text::bigint, created_at, topic, type, data::text
from found
where (select whole.found <= $5::bigint and whole.bytes <= $6::bigint from whole)
order by id nulls first
