-- The cursor of the present: what a page rendered in this snapshot already contains.

-- Returns the cursor of this statement's snapshot in the wire form `1~SNAPSHOT~NEWEST.TAG`.
-- SNAPSHOT is xmax when nothing is in progress, else the lowest transaction in progress, the distance
-- from it to xmax, and the distance of each further one in progress to the one before.
-- Stable, so that it speaks of the very snapshot in which the rest of the statement reads.
create function tidings.cursor() returns text
language plpgsql stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    snapshot constant pg_snapshot := pg_current_snapshot();
    xmax constant bigint := pg_snapshot_xmax(snapshot)::text::bigint;
    -- What this very transaction has written is not committed: it may yet be rolled back, and whoever
    -- reads this cursor must get it later. Snapshots do not list the transaction that takes them.
    own constant xid8 := pg_current_xact_id_if_assigned();
    -- Transactions in progress, ascending.
    running bigint[];
    position text;
    newest text;
begin
    select array_agg(x order by x) into running
    from (
        select pg_snapshot_xip(snapshot)::text::bigint as x
        union
        select own::text::bigint where own < pg_snapshot_xmax(snapshot)
    ) as open;

    if running is null then
        position := xmax;
    else
        select running[1] || '.' || xmax - running[1] || coalesce(string_agg('.' || running[n] - running[n - 1], '' order by n), '')
        into position
        from generate_series(2, cardinality(running)) as n;
    end if;

    select e.id || '.' || tidings.tag(e.id, e.xid, e.created_at) into newest
    from tidings.event e
    where e.xid is distinct from own
    order by e.id desc
    limit 1;
    if not found then
        -- Trimming leaves the newest event alone, but the log may have been emptied on purpose.
        select f.id || '.' || f.tag into newest from tidings.floor f;
    end if;

    position := '1~' || position || '~' || newest;
    if octet_length(position) > 4096 then
        raise exception 'tidings: % transactions are in progress, and the cursor that names them has % bytes',
            cardinality(running), octet_length(position)
            using errcode = '54000', hint = 'A cursor has at most 4096 bytes: ask again when fewer transactions run.';
    end if;
    return position;
end
$$;
