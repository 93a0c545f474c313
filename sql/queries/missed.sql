-- How many events of some topics `to` sees and `from` does not, counted up to a limit. The branches are those
-- of the replay; see there.
--
-- $1 topics                $2 xmax of `from`     $3 its transactions in progress   $4 its newest id
-- $5 snapshot of `to`      $6 ids after this     $7 ids up to this                 $8 count at most
with target as materialized (
    select $5::text::pg_snapshot as sees
), wanted as materialized (
    select distinct topic from unnest($1::text[]) as topic
), unfinished as materialized (
    select x::xid8 as xid from unnest($3::text[]) x
), late as materialized (
    select event.* from unfinished cross join lateral (
        select xid, topic from tidings.event
        where (event.xid, id) > (unfinished.xid, $6::bigint) and (event.xid, id) <= (unfinished.xid, $7::bigint)
        order by xid, id limit 33
    ) event
    where pg_visible_in_snapshot(unfinished.xid, (select sees from target))
), bulk as materialized (
    select xid from late group by xid having count(*) > 32
)
select count(*) from (
    select 1 from (
        select xid from late
        where topic = any ($1::text[]) and xid not in (select xid from bulk)
        union all
        select of_bulk.xid from bulk cross join wanted cross join lateral (
            select xid from tidings.event e
            where (e.topic, e.xid, e.id) > (wanted.topic, bulk.xid, $6::bigint)
              and (e.topic, e.xid, e.id) <= (wanted.topic, bulk.xid, $7::bigint)
            order by topic, xid, id offset 0
        ) of_bulk
        union all
        select since.xid from wanted cross join lateral (
            select xid from tidings.event e
            where (e.topic, e.xid) >= (wanted.topic, $2::text::xid8)
              and (e.topic, e.xid) < (wanted.topic, (select pg_snapshot_xmax(sees) from target))
              and id > $6::bigint and id <= $7::bigint
            order by topic, xid, id offset 0
        ) since
        union all
        select reused.xid from wanted cross join lateral (
            select xid from tidings.event e
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
    limit $8::bigint
) missed
