-- How many events of some topics `to` sees and `from` does not, counted up to a limit. The branches are those
-- of the replay; see there.
--
-- $1 topics                $2 xmax of `from`     $3 its transactions in progress   $4 its newest id
-- $5 snapshot of `to`      $6 ids after this     $7 ids up to this                 $8 count at most
select count(*) from (
    select 1 from (
        select xid from tidings.event
        where topic = any ($1::text[]) and xid = any ($3::text[]::xid8[])
          and id > $6::bigint and id <= $7::bigint
        union all
        select xid from tidings.event
        where topic = any ($1::text[]) and xid >= $2::text::xid8
          and id > $6::bigint and id <= $7::bigint
        union all
        select xid from tidings.event
        where topic = any ($1::text[])
          and xid > coalesce((select b.xid from tidings.event b where b.id = $4::bigint limit 1), '0'::xid8)
          and xid < $2::text::xid8 and xid <> all ($3::text[]::xid8[])
          and id > greatest($4::bigint, $6::bigint) and id <= $7::bigint
    ) e
    where pg_visible_in_snapshot(e.xid, $5::text::pg_snapshot)
    limit $8::bigint
) missed
