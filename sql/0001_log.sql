-- The log: events, what has been trimmed of them, and the little that stands beside them.
--
-- An event is one immutable row, written in the publisher's transaction. Everything that reads the
-- log rests on two columns: `xid`, the transaction that wrote the row (whether a cursor has seen it is
-- asked of snapshots, never of id order), and `id`, which only grows, also after a crash.

-- Everyone may name what is in here; what may be done with it is granted in the last migration.
grant usage on schema tidings to public;

-- What a topic, a type and data may be is said once, by domains, in words for people. A constraint of a table is
-- read from its text and planned by every INSERT anew, which costs two thirds of one again; a domain's is kept by the session.

create function tidings.refuse_topic(value text) returns boolean
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    if value is null or value = '' then
        raise exception 'tidings: the topic is %', case when value is null then 'null' else 'empty' end
            using errcode = '22023', constraint = 'topic_form', hint = 'A topic names what an event is about, for example user:42.';
    elsif octet_length(value) > 255 then
        raise exception 'tidings: the topic is % bytes long', octet_length(value)
            using errcode = '22023', constraint = 'topic_form', hint = 'A topic has 1 to 255 characters.';
    end if;
    raise exception 'tidings: the topic % contains a character that topics may not have', quote_literal(value)
        using errcode = '22023', constraint = 'topic_form', hint = 'A topic is made of A-Z a-z 0-9 _ . : / @ = + ~ | % -. '
            'tidings.user_topic(sub) percent-encodes whatever else a user name has.';
end
$$;

create function tidings.refuse_type(value text) returns boolean
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    if value is null or value = '' then
        raise exception 'tidings: the type is %', case when value is null then 'null' else 'empty' end
            using errcode = '22023', constraint = 'type_form', hint = 'A type names what happened, for example payment.settled.';
    elsif octet_length(value) > 64 then
        raise exception 'tidings: the type is % bytes long', octet_length(value)
            using errcode = '22023', constraint = 'type_form', hint = 'A type has 1 to 64 characters.';
    elsif starts_with(value, 'tidings.') then
        raise exception 'tidings: the type % begins with "tidings."', quote_literal(value)
            using errcode = '22023', constraint = 'type_form', hint = 'That prefix is the gateway''s own: choose another.';
    elsif value in ('error', 'open', 'message') then
        raise exception 'tidings: the type % is an event of EventSource itself', quote_literal(value)
            using errcode = '22023', constraint = 'type_form', hint = 'error, open and message are reserved: say what happened, for example payment.failed.';
    end if;
    raise exception 'tidings: the type % contains a character that types may not have', quote_literal(value)
        using errcode = '22023', constraint = 'type_form', hint = 'A type is made of A-Z a-z 0-9 _ . : @ = + ~ | % - (no slash).';
end
$$;

create function tidings.refuse_data(value jsonb) returns boolean
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception 'tidings: the data is % bytes long as text', octet_length(value::text)
        using errcode = '22023', constraint = 'data_size', hint = 'At most 262144 bytes: publish what changed and let the reader fetch the rest '
            '(tidings.watch takes the columns to publish).';
end
$$;

create domain tidings.topic as text collate "C" constraint topic_form check (
    value ~ '^[A-Za-z0-9_.:/@=+~|%-]+$' and octet_length(value) <= 255 or tidings.refuse_topic(value)
);
-- `tidings.` is the gateway's own; the three words are EventSource's own.
create domain tidings.type as text collate "C" constraint type_form check (
    value ~ '^[A-Za-z0-9_.:@=+~|%-]+$' and octet_length(value) <= 64
    and not starts_with(value, 'tidings.') and value not in ('error', 'open', 'message') or tidings.refuse_type(value)
);
create domain tidings.data as jsonb constraint data_size check (
    value is null or octet_length(value::text) <= 262144 or tidings.refuse_data(value)
);
-- Cursors begin at 0, which is no event.
create domain tidings.number as bigint constraint number_positive check (value > 0);

create sequence tidings.event_id as bigint;

-- Ids come from a default and not from an identity column, because a leaf of a partitioned table has
-- no identity of its own and rows may be copied into a leaf directly.
create table tidings.event (
    id         tidings.number not null default nextval('tidings.event_id'),
    xid        xid8           not null default pg_current_xact_id(),
    created_at timestamptz    not null default clock_timestamp(),
    topic      tidings.topic  not null,
    type       tidings.type   not null,
    data       tidings.data   not null default 'null',
    -- The size of `data` as text, so that a look can end at a number of bytes without reading them: told by
    -- tidings.publish, null for rows that came in other ways.
    bytes      integer,

    -- A partitioned table can only be unique together with its partition key.
    constraint event_pkey primary key (id, created_at)
) partition by range (created_at);

alter sequence tidings.event_id owned by tidings.event.id;

-- Replay: the events of a topic from a transaction on, or of one transaction.
create index event_topic on tidings.event (topic, xid, id);
-- The look: every event from a transaction on, or of one transaction.
create index event_xid on tidings.event (xid, id);

-- A missing day must never fail a writer. The extra index tells at once which days wait in here.
create table tidings.event_default partition of tidings.event (
    -- An infinite time belongs to no day, so that it would come in here, and has no anchor tag.
    constraint event_created_at_finite check (isfinite(created_at))
) default;
create index event_default_created_at on tidings.event_default (created_at);

-- The anchor tag: a cursor names its newest event with it, so that a history which was rewritten
-- under the client (a restored copy, a failover that lost commits) is noticed. The gateway computes
-- the same. The epoch is subtracted first since only then is every step immutable.
create function tidings.tag(id bigint, xid xid8, created_at timestamptz) returns text
language sql immutable strict parallel safe
return left(encode(sha256((
    id::text || '.' || xid::text || '.' ||
    (extract(epoch from created_at - timestamptz '1970-01-01 00:00:00+00') * 1000000)::bigint::text
)::bytea), 'hex'), 8);

-- The floor: what trimming has taken away. A cursor is served if it had seen all of it.
-- Exactly one row; nothing has been trimmed yet, and the cursor of an empty log names event 0.
create table tidings.floor (
    one      boolean     not null default true,
    -- A snapshot that sees every trimmed event, and few transactions besides, see tidings.floor_snapshot.
    snapshot pg_snapshot not null,
    -- The highest transaction and the highest id among all that was trimmed, and that event's tag.
    xid      xid8        not null,
    id       bigint      not null,
    tag      text        not null,
    constraint floor_pkey primary key (one),
    constraint floor_one check (one)
);
insert into tidings.floor (snapshot, xid, id, tag) values (pg_current_snapshot(), '0', 0, '00000000');

-- Keys of keyed publishes. In a table of its own, because uniqueness over all days cannot be a
-- constraint of a table partitioned by day.
create table tidings.key (
    topic      text        collate "C" not null,
    key        text        collate "C" not null,
    id         bigint      not null,
    created_at timestamptz not null,
    constraint key_pkey primary key (topic, key),
    constraint key_key_size check (key <> '' and char_length(key) <= 255)
);
-- Trimming takes the oldest.
create index key_created_at on tidings.key (created_at);

-- Which function tells the state of which topics. The function stands here by its name and not as a
-- regprocedure, because pg_upgrade refuses databases with columns of that type.
create table tidings.state (
    pattern text not null,
    source  text not null,
    constraint state_pkey primary key (pattern),
    constraint state_pattern_form check (
        pattern ~ '^[A-Za-z0-9_.:/@=+~|%-]*[*]?$' collate "C" and pattern <> ''
        and octet_length(pattern) <= 255
    )
);

-- Keys that every gateway of this database shares. `ticket` signs tickets: 32 bytes, out of three
-- random UUIDs of 122 random bits each, since no extension is asked for.
create table tidings.secret (
    name  text  not null,
    value bytea not null,
    constraint secret_pkey primary key (name)
);
insert into tidings.secret (name, value)
values ('ticket', sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())));
