-- What a publisher without a gateway would write: events as rows, told to nobody.
create table event (
    id         bigint generated always as identity primary key,
    topic      text        not null,
    type       text        not null,
    data       jsonb       not null,
    created_at timestamptz not null default clock_timestamp()
);
