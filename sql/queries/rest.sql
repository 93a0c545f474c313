-- The rest of a look that had more rows than one page: what its snapshot sees beyond the id that
-- was handed over last. Same shape as the look.
--
-- $1 xmax of the mark before the look   $2 its transactions in progress   $3 its newest id
-- $4 id handed over last                $5 most rows                      $6 most bytes of data
-- $7 snapshot of the look               $8 its newest id
--
-- Ids beyond the earlier mark's newest come straight off the primary key, a page at a time. Below it lie
-- only transactions that committed late, found by their transaction ids. Branches are held to their index
-- as those of the look are; see there.
with target as materialized (
    select $7::text::pg_snapshot as sees
), finished as materialized (
    select x::xid8 as xid from unnest($2::text[]) x
    where pg_visible_in_snapshot(x::xid8, (select sees from target))
), found as materialized (
    select e.* from (
        (select id, xid, created_at, topic, type, data, bytes from tidings.event
         where id > greatest($3::bigint, $4::bigint) and id <= $8::bigint
           and pg_visible_in_snapshot(xid, (select sees from target))
         order by id, created_at limit $5::bigint + 1)
        union all
        select late.* from finished cross join lateral (
            select id, xid, created_at, topic, type, data, bytes from tidings.event
            where (event.xid, id) > (finished.xid, $4::bigint) and (event.xid, id) <= (finished.xid, $3::bigint)
            order by xid, id limit $5::bigint + 1
        ) late
        union all
        select since.* from (
            select id, xid, created_at, topic, type, data, bytes from tidings.event
            where xid >= $1::text::xid8 and xid < (select pg_snapshot_xmax(sees) from target)
              and id > $4::bigint and id <= $3::bigint
              -- Else nothing can be there, which the index does not know before it has been walked along.
              and $4::bigint < $3::bigint
            order by xid, id offset 0
        ) since
        where pg_visible_in_snapshot(xid, (select sees from target))
    ) e
    order by e.id
    limit $5::bigint + 1
), page as (
    select f.*,
           row_number() over (order by f.id) as place,
           sum(f.size) over (order by f.id) - f.size as bytes_before
    from (select found.*, coalesce(bytes, case when pg_column_size(data) <= 8192 then octet_length(data::text) else 262144 end) as size from found offset 0) f
)
select pg_current_snapshot()::text as snapshot,
       (select count(*) from found) as found,
       null::bigint as newest_id, null::text as newest_tag, own.tag as anchor_tag,
       floor.snapshot::text as floor_snapshot, floor.xid::text::bigint as floor_xid,
       floor.id as floor_id, floor.tag as floor_tag,
       null::bigint as id, null::bigint as xid, null::timestamptz as created_at,
       null::text as topic, null::text as type, null::text as data
from tidings.floor
left join lateral (
    select tidings.tag(e.id, e.xid, e.created_at) as tag
    from tidings.event e where e.id between $8::bigint and $8::bigint order by e.id, e.created_at limit 1
) own on true
union all
select null, null, null, null, null, null, null, null, null,
       id, xid::text::bigint, created_at, topic, type, data::text
from page
where place <= $5::bigint and (place = 1 or bytes_before < $6::bigint)
order by id nulls first
