-- Publishing: one row in the caller's transaction, and the doorbell that wakes the gateway.

-- Publishes with a key, for tidings.publish, with whose rights it runs.
create function tidings.publish_once(topic text, type text, data jsonb, key text) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    event bigint;
    moment timestamptz;
begin
    -- What is wrong with these is said before what is wrong with the key.
    perform topic::tidings.topic, type::tidings.type, data::tidings.data;
    if key = '' or char_length(key) > 255 then
        raise exception 'tidings: the key has % characters', char_length(key)
            using errcode = '22023', hint = 'A key has 1 to 255 characters; null means none.';
    end if;
    loop
        -- Looking first costs a repeated key neither an id nor a dead row.
        select k.id into event from tidings.key k where k.topic = publish_once.topic and k.key = publish_once.key;
        if found then
            return event;
        end if;
        insert into tidings.key as k (topic, key, id, created_at)
        values (topic, key, nextval('tidings.event_id'), clock_timestamp())
        on conflict on constraint key_pkey do nothing
        returning k.id, k.created_at into event, moment;
        if found then
            insert into tidings.event (id, created_at, topic, type, data, bytes)
            values (event, moment, topic, type, data, octet_length(data::text));
            return event;
        end if;
        -- Somebody else's publish of this key committed in between: read it, or, if it has been
        -- trimmed since, try again.
    end loop;
end
$$;

-- Publishes one event in the caller's transaction and returns its id. In any isolation level.
-- With a key, a second publish of the same (topic, key) returns the first one's id and publishes
-- nothing; it waits for an open publisher of the same key. Under REPEATABLE READ or stricter, one that
-- committed after this snapshot cannot be seen, and Postgres says so with 40001.
--
-- Every writer pays for what is in here: one INSERT, whose columns say themselves what may be in them. A missing value is
-- JSON null: `publish('a', 'b', null)` means no data and not no event.
--
-- This is the one function with its owner's rights that does not set a search_path, because that would cost a seventh of the
-- whole: NOTHING IN HERE MAY BE NAMED WITHOUT ITS SCHEMA, neither a function nor a type nor an operator, or
-- the caller decides what it means. Whoever publishes under another path each time has it planned anew each time.
create function tidings.publish(topic text, type text, data jsonb default 'null', key text default null)
returns bigint
language plpgsql security definer
as $$
#variable_conflict use_variable
declare
    payload constant pg_catalog.jsonb := coalesce(data, 'null');
    event bigint;
begin
    if key is not null then
        return tidings.publish_once(topic, type, payload, key);
    end if;
    insert into tidings.event (topic, type, data, bytes)
    values (topic, type, payload, pg_catalog.octet_length(payload::pg_catalog.text))
    returning id into event;
    return event;
end
$$;

-- Publishes what a watch has seen. Not by tidings.publish, whose plan is kept for one search_path at a time: an
-- application that publishes under its own would have it planned anew by each in turn.
create function tidings.publish_change(topic text, type text, data jsonb) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
    insert into tidings.event (topic, type, data, bytes) values (topic, type, data, octet_length(data::text));
end
$$;

-- The doorbell carries nothing and may be lost: the gateway looks once a second anyhow. Rings, and returns the
-- transaction whose event it rings for.
create function tidings.ring() returns xid8
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_notify('tidings', '');
    return pg_current_xact_id();
end
$$;

-- A notifying commit takes a lock of the whole cluster across its WAL flush, so no bell is rung while a
-- gateway is awake, that is, while one holds the advisory lock 8386654097862812519 exclusively and looks by itself.
-- That number stands here and in the gateway. Lock and unlock are one expression, because a cancel between two
-- statements would leave the lock with the writer. `set local tidings.bell = off` is for transactions that will be
-- PREPAREd, which must not notify.
--
-- The bell hangs on the default of a column, so that it rings for rows that come in any way, and is a part of the
-- INSERT's plan: a trigger's condition would be read from its text and planned by every INSERT anew. And it asks
-- for the lock only once this transaction has its id: a gateway that goes to sleep waits for all ids up to its own.
alter table tidings.event alter column xid set default case
    when pg_current_xact_id() is null or current_setting('tidings.bell', true) = 'off' then pg_current_xact_id()
    when pg_try_advisory_lock_shared(8386654097862812519) then
        case when pg_advisory_unlock_shared(8386654097862812519) then tidings.ring() end
    else pg_current_xact_id()
end;

-- Sends an ephemeral message: it lives in the NOTIFY payload only, reaches whoever listens at the
-- commit, has no cursor and is never replayed.
create function tidings.signal(topic text, type text, data jsonb default 'null') returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    payload text;
begin
    perform topic::tidings.topic, type::tidings.type;
    payload := format(
        '{"signal":true,"topic":%s,"type":%s,"at":"%s","data":%s}',
        to_json(topic), to_json(type),
        to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        coalesce(data, 'null')
    );
    if octet_length(payload) >= 8000 then
        raise exception 'tidings: the signal is % bytes long', octet_length(payload)
            using errcode = '22023', hint = 'A signal must stay below 8000 bytes, all told: use tidings.publish, whose data may be larger.';
    end if;
    perform pg_notify('tidings', payload);
end
$$;

-- Writes foreign text as a part of a topic: every byte outside the alphabet becomes %XX, and so do `%`, because
-- `a%20b` and `a b` must not meet in one topic, and `/`, because it ends a tenant. So the mapping is one to one.
create function tidings.escape(value text) returns text
language sql immutable strict parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select case when value ~ '^[A-Za-z0-9_.:@=+~|-]*$' collate "C" then value else (
        select string_agg(
            case
                when byte < 128 and chr(byte) ~ '[A-Za-z0-9_.:@=+~|-]' collate "C" then chr(byte)
                else '%' || lpad(upper(to_hex(byte)), 2, '0')
            end, '' order by n)
        from (select n, get_byte(convert_to(value, 'UTF8'), n) as byte
              from generate_series(0, octet_length(convert_to(value, 'UTF8')) - 1) as n) as bytes
    ) end
$$;

-- The own topic of a token's user, exactly as the gateway derives it.
create function tidings.user_topic(sub text, tenant text default null) returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    topic text;
begin
    if sub is null or sub = '' then
        raise exception 'tidings: the user is %', case when sub is null then 'null' else 'empty' end
            using errcode = '22023', hint = 'Pass what the user''s token has as sub.';
    elsif tenant = '' or tenant !~ '^[A-Za-z0-9_.:@=+~|%-]+$' collate "C" then
        raise exception 'tidings: % is not a tenant', quote_literal(tenant)
            using errcode = '22023', hint = 'A tenant is made of A-Z a-z 0-9 _ . : @ = + ~ | % - (no slash); null means none.';
    end if;
    topic := coalesce(tenant || '/', '') || 'user:' || tidings.escape(sub);
    if octet_length(topic) > 255 then
        raise exception 'tidings: the topic of this user would be % bytes long', octet_length(topic)
            using errcode = '22023', hint = 'A topic has at most 255 characters, and every byte outside its alphabet takes three.';
    end if;
    return topic;
end
$$;
