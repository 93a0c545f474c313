-- The log: events, what has been trimmed of them, and the little that stands beside them.
--
-- An event is one immutable row, written in the publisher's transaction. Everything that reads the
-- log rests on two columns: `xid`, the transaction that wrote the row (whether a cursor has seen it is
-- asked of snapshots, never of id order), and `id`, which only grows, also after a crash.

-- Everyone may name what is in here; what may be done with it is granted in the last migration.
grant usage on schema tidings to public;

create sequence tidings.event_id as bigint;

-- Ids come from a default and not from an identity column, because a leaf of a partitioned table has
-- no identity of its own and rows may be copied into a leaf directly.
create table tidings.event (
    id         bigint      not null default nextval('tidings.event_id'),
    xid        xid8        not null default pg_current_xact_id(),
    created_at timestamptz not null default clock_timestamp(),
    topic      text        not null,
    type       text        not null,
    data       jsonb       not null default 'null',
    -- The size of `data` as text, so that a look can end at a number of bytes without reading them.
    bytes      integer     generated always as (octet_length(data::text)) stored,

    -- A partitioned table can only be unique together with its partition key.
    constraint event_pkey primary key (id, created_at),
    -- Cursors begin at 0, which is no event.
    constraint event_id_positive check (id > 0),
    -- An infinite time belongs to no day and has no anchor tag.
    constraint event_created_at_finite check (isfinite(created_at)),
    constraint event_topic_form check (
        topic ~ '^[A-Za-z0-9_.:/@=+~|%-]+$' collate "C" and octet_length(topic) <= 255
    ),
    -- `tidings.` is the gateway's own; the three words are EventSource's own.
    constraint event_type_form check (
        type ~ '^[A-Za-z0-9_.:@=+~|%-]+$' collate "C" and octet_length(type) <= 64
        and not starts_with(type, 'tidings.') and type not in ('error', 'open', 'message')
    ),
    constraint event_data_size check (bytes <= 262144)
) partition by range (created_at);

alter sequence tidings.event_id owned by tidings.event.id;

-- Replay: the events of a topic from a transaction on, or of one transaction.
create index event_topic on tidings.event (topic, xid, id);
-- The look: every event from a transaction on, or of one transaction.
create index event_xid on tidings.event (xid, id);

-- A missing day must never fail a writer. The extra index tells at once which days wait in here.
create table tidings.event_default partition of tidings.event default;
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
    topic      text        not null,
    key        text        not null,
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
