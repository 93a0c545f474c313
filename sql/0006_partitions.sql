-- Days: making room for events, and taking away the oldest.
--
-- Each function may be called by the gateway's role, which owns no table. Strong locks are asked for
-- under a lock_timeout of at most 50 ms, so that whoever queues behind the request waits no longer than that, and
-- are released at the end of a short transaction: call them outside of larger ones. A lock that was
-- not to be had raises lock_not_available (55P03); nothing has been done then, and the next try may be lucky.

-- The partitions that stand for days, oldest first. Days begin and end in UTC.
create view tidings.day as
select c.oid::regclass as leaf,
       d.day,
       d.day::timestamp at time zone 'UTC' as starts,
       (d.day + 1)::timestamp at time zone 'UTC' as ends
from pg_inherits i
join pg_class c on c.oid = i.inhrelid
cross join lateral (select to_date(right(c.relname, 8), 'YYYYMMDD') as day) as d
where i.inhparent = 'tidings.event'::regclass and c.relname ~ '^event_[0-9]{8}$'
order by d.day;

-- Refuses isolation levels in which a statement would not see what was committed before it got its lock.
create function tidings.require_read_committed() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
        raise exception 'tidings: partitions cannot be changed in a % transaction', current_setting('transaction_isolation')
            using errcode = '25001', hint = 'Call this in a READ COMMITTED transaction: its snapshot must be newer than its locks.';
    end if;
end
$$;

-- Makes the partition of a day, if there is none, and returns whether it did.
-- CREATE … LIKE and ATTACH lock the table itself only against other maintenance, while
-- CREATE … PARTITION OF would wait for every open publisher, and all others behind it.
-- Events of that day which wait in the default partition are moved, with their ids and xids. Until that is done, readers
-- and writers wait, so that no more is moved than takes about 20 ms: a day that has more stays in
-- the default, where it is read and trimmed as well as elsewhere.
create function tidings.add_partition(day date) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
-- Shorter than elsewhere: when today is missing, publishers wait for the request and for the move.
set lock_timeout = '30ms'
as $$
declare
    leaf constant text := 'event_' || to_char(day, 'YYYYMMDD');
    starts constant timestamptz := day::timestamp at time zone 'UTC';
    ends constant timestamptz := (day + 1)::timestamp at time zone 'UTC';
    waiting record;
begin
    perform tidings.require_read_committed();
    if to_regclass('tidings.' || leaf) is not null then
        return false;
    end if;
    -- Asked before any strong lock, so that a day which has to stay costs nobody anything.
    select count(*) as events, coalesce(sum(coalesce(bytes, octet_length(data::text))), 0) as bytes into waiting
    from (
        select d.bytes, d.data from tidings.event_default d
        where d.created_at >= starts and d.created_at < ends
        limit 1001
    ) as first;
    if waiting.events > 1000 or waiting.bytes > 524288 then
        return false;
    end if;

    execute format(
        'create table tidings.%I (like tidings.event including defaults including indexes including storage)',
        leaf
    );
    -- Whoever plans a query reads which partitions there are before it locks them, and takes its snapshot after that. Beside
    -- this transaction it would wait for the default and then see the move, but not the leaf. So whoever begins has to wait
    -- before it reads that.
    if waiting.events > 0 then
        lock table only tidings.event in access exclusive mode;
    end if;
    -- ATTACH takes this lock in any case. Taking it first means that nobody can
    -- put in another event of that day between the move and the attachment.
    lock table tidings.event_default in access exclusive mode;
    if exists (select from tidings.event_default d where d.created_at >= starts and d.created_at < ends) then
        if waiting.events = 0 then
            raise exception 'tidings: the first event of % has just come', day
                using errcode = '55P03', hint = 'Try again: it will be moved.';
        end if;
        execute format(
            'insert into tidings.%I (id, xid, created_at, topic, type, data, bytes)
             select id, xid, created_at, topic, type, data, bytes from tidings.event_default where created_at >= %L and created_at < %L',
            leaf, starts, ends
        );
        delete from tidings.event_default d where d.created_at >= starts and d.created_at < ends;
    end if;
    execute format('alter table tidings.event attach partition tidings.%I for values from (%L) to (%L)', leaf, starts, ends);
    return true;
end
$$;

-- Forgets the oldest of the keys that are older than `keep`, at most so many, and returns how many.
create function tidings.trim_keys(keep interval, at_most integer) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    forgotten bigint;
begin
    delete from tidings.key k
    using (
        select o.topic, o.key from tidings.key o
        where o.created_at < date_trunc('day', clock_timestamp() - keep, 'UTC')
        order by o.created_at
        limit at_most
        for update skip locked
    ) as old
    where k.topic = old.topic and k.key = old.key;
    get diagnostics forgotten = row_count;
    return forgotten;
end
$$;

-- Returns the snapshot of a floor under which these leaves will be gone: one that sees every transaction of which
-- anything was trimmed, now or earlier, and as few others as can be told without a record of all. A cursor must have
-- seen what the floor sees; whoever left while a transaction was open that wrote nothing here need not have seen it.
-- Such transactions count as in progress for ever: those that are open, those that an earlier floor names, and
-- those of the last few hundred up to the highest trimmed one, unless there is an event of theirs in these leaves.
-- Nobody can be writing there: the leaves are locked.
create function tidings.floor_snapshot(sees pg_snapshot, earlier tidings.floor, highest xid8, leaves regclass[]) returns pg_snapshot
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    -- How many transactions below the highest trimmed one are told apart, and how many the floor names: every look
    -- reads it, and 256 of them are about 2 kB.
    span constant bigint := 256;
    last constant bigint := highest::text::bigint;
    absent bigint[];
    leaf regclass;
begin
    select array_agg(x) into absent
    from (
        select pg_snapshot_xip(earlier.snapshot)::text::bigint
        union
        -- No transaction has an id whose low 32 bits are below 3.
        select x from generate_series(greatest(earlier.xid::text::bigint, last - span) + 1, last - 1) x
        where x % 4294967296 > 2
    ) as candidate (x)
    -- After a crash, ids beyond the present may have been given out before.
    where x < pg_snapshot_xmax(sees)::text::bigint;
    foreach leaf in array leaves loop
        execute format('select array_agg(x) from unnest($1) x where not exists (select from %s e where e.xid = x::text::xid8)', leaf)
        into absent using absent;
    end loop;
    return (
        select format('%s:%s:%s', least(min(x), pg_snapshot_xmin(sees)::text::bigint), pg_snapshot_xmax(sees), string_agg(x::text, ',' order by x))
        from (
            select pg_snapshot_xip(sees)::text::bigint
            union
            (select x from unnest(absent) x order by x desc limit span)
        ) as spared (x)
    );
end
$$;

-- Takes away all events of days that ended longer ago than `keep`, with their keys, and returns how many
-- partitions were emptied. Records in tidings.floor what is gone, so that a cursor which had not seen it learns so.
-- A partition that cannot be locked at once (an open publisher has written there, a dump reads it) is left for the next time;
-- if that is true of all that are due, 55P03 is raised. The newest event is never taken away.
create function tidings.trim(keep interval) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '50ms'
as $$
declare
    -- The days before this moment may go.
    cutoff constant timestamptz := date_trunc('day', clock_timestamp() - keep, 'UTC');
    newest bigint;
    candidate record;
    locked regclass[] := '{}';
    held_up bigint := 0;
    leaf regclass;
    highest record;
    sees pg_snapshot;
    earlier tidings.floor;
    lowest tidings.floor;
begin
    perform tidings.require_read_committed();
    if keep is null or cutoff > date_trunc('day', clock_timestamp(), 'UTC') then
        raise exception 'tidings: % cannot be kept', coalesce(quote_literal(keep::text), 'null')
            using errcode = '22023', hint = 'Pass how long events are kept, for example interval ''7 days''.';
    end if;
    -- Before any lock, since many keys take a while.
    perform tidings.trim_keys(keep, null);
    -- One at a time; who comes second reads the floor that the first has left.
    select f.* into earlier from tidings.floor f for update;
    lowest := earlier;

    for candidate in
        select d.leaf from tidings.day d where d.ends <= cutoff
        union all
        select 'tidings.event_default'
        where (select max(e.created_at) from tidings.event_default e) < cutoff
    loop
        execute format('select id from %s limit 1', candidate.leaf) into highest;
        if highest.id is null then
            continue;
        end if;
        begin
            -- Only the first is waited for: while one is held, readers of the log wait.
            execute format('lock table %s in access exclusive mode %s', candidate.leaf, case when locked <> '{}' then 'nowait' end);
            locked := locked || candidate.leaf::regclass;
        exception when lock_not_available then
            held_up := held_up + 1;
        end;
    end loop;
    if held_up > 0 and locked = '{}' then
        raise exception 'tidings: % partitions are due, and all of them are in use', held_up
            using errcode = '55P03', hint = 'Try again later. A transaction that has written there days ago is still open, or a dump runs.';
    end if;

    -- These statements begin after the locks were granted, so that they, and the snapshot recorded, see all that these
    -- partitions will ever have held.
    sees := pg_current_snapshot();
    select e.id into newest from tidings.event e order by e.id desc limit 1;
    foreach leaf in array locked loop
        if leaf = 'tidings.event_default'::regclass and (select max(e.created_at) from tidings.event_default e) >= cutoff then
            locked := array_remove(locked, leaf);
            continue;
        end if;
        execute format('select id, tidings.tag(id, xid, created_at) as tag, (select max(xid) from %1$s) as xid from %1$s order by id desc limit 1', leaf) into highest;
        if highest.id is null or highest.id = newest then
            locked := array_remove(locked, leaf);
            continue;
        end if;
        if highest.id > lowest.id then
            lowest.id := highest.id;
            lowest.tag := highest.tag;
        end if;
        if highest.xid > lowest.xid then
            lowest.xid := highest.xid;
        end if;
    end loop;
    if locked <> '{}' then
        update tidings.floor f set
            snapshot = tidings.floor_snapshot(sees, earlier, lowest.xid, locked),
            xid = lowest.xid, id = lowest.id, tag = lowest.tag;
        foreach leaf in array locked loop
            execute format('truncate %s', leaf);
        end loop;
    end if;
    return cardinality(locked);
end
$$;

-- Drops the oldest partition of a past day that is empty, and returns whether there was one. One at a time, since
-- that takes the strongest lock on the whole table, behind which every publisher queues: it is taken when it
-- is free at this moment, and otherwise not waited for, unless more than a week's worth has piled up.
create function tidings.drop_empty() returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '50ms'
as $$
declare
    candidate regclass;
    empty regclass;
    filled boolean;
    found_empty integer := 0;
begin
    perform tidings.require_read_committed();
    -- Yesterday stays: a row whose time was read just before midnight may be on its way.
    for candidate in select d.leaf from tidings.day d where d.ends < clock_timestamp() - interval '1 day' order by d.day desc loop
        execute format('select exists (select from %s)', candidate) into filled;
        if not filled then
            empty := candidate;
            found_empty := found_empty + 1;
        end if;
    end loop;
    if empty is null then
        return false;
    end if;

    if found_empty > 7 then
        lock table only tidings.event in access exclusive mode;
    else
        lock table only tidings.event in access exclusive mode nowait;
    end if;
    execute format('lock table tidings.event_default, %s in access exclusive mode nowait', empty);
    -- Nobody can write into it any more, and this statement sees whoever has.
    execute format('select exists (select from %s)', empty) into filled;
    if filled then
        return false;
    end if;
    execute format('drop table %s', empty);
    return true;
end
$$;

-- Returns whether there are rows that came by a dump, by logical replication or by hand: they bear transactions of
-- another cluster, which the snapshots of this one cannot judge. The floor may have come the same way; and an id
-- beyond the sequence will be given out a second time.
create function tidings.foreign_rows() returns boolean
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select exists (select from tidings.event e where e.xid >= pg_snapshot_xmax(pg_current_snapshot()))
        or exists (select from tidings.floor f
                   where f.xid >= pg_snapshot_xmax(pg_current_snapshot())
                      or pg_snapshot_xmax(f.snapshot) > pg_snapshot_xmax(pg_current_snapshot()))
        or exists (select from tidings.event e where e.id > (select s.last_value from tidings.event_id s))
$$;

-- Makes a log with foreign rows this cluster's own: empties it and sets a floor above everything that was ever in it.
-- The floor's id is one that no event has had, so that every cursor from before, native or foreign, lies below
-- it or names an event that is not here. Keys stay, so that what was published once is not published again.
create function tidings.adopt() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    above bigint;
begin
    perform tidings.require_read_committed();
    -- Waits for every open publisher, and keeps out others.
    lock table tidings.event in access exclusive mode;
    perform setval('tidings.event_id', greatest(
        (select s.last_value from tidings.event_id s),
        (select max(e.id) from tidings.event e),
        (select max(k.id) from tidings.key k),
        (select f.id from tidings.floor f)
    ));
    above := nextval('tidings.event_id');
    update tidings.floor f set
        snapshot = pg_current_snapshot(),
        -- The highest transaction that this snapshot can have seen.
        xid = (pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1)::text::xid8,
        id = above,
        tag = tidings.tag(above, pg_current_xact_id(), clock_timestamp());
    truncate tidings.event;
end
$$;

-- Today and the three days that follow.
select tidings.add_partition(date_trunc('day', clock_timestamp() at time zone 'UTC')::date + ahead)
from generate_series(0, 3) as ahead;
