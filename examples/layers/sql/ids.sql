-- Ids by a sequence of the log's own, and the transaction of each row.
create sequence event_id as bigint;

create table event (
    id         bigint      not null default nextval('event_id'),
    xid        xid8        not null default pg_current_xact_id(),
    created_at timestamptz not null default clock_timestamp(),
    topic      text        not null collate "C",
    type       text        not null collate "C",
    data       jsonb       not null default 'null',
    constraint event_pkey primary key (id)
);
