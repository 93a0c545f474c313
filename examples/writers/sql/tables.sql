-- What a publisher without a gateway would write: events as rows, told to nobody, and with the usual trigger.
create table plain (
    id         bigint generated always as identity primary key,
    topic      text        not null,
    type       text        not null,
    data       jsonb       not null,
    created_at timestamptz not null default clock_timestamp()
);

create table notify (like plain including all);

create function notify_row() returns trigger
language plpgsql
as $$
begin
    perform pg_notify('writers', new.id::text);
    return null;
end
$$;

create trigger notify after insert on notify for each row execute function notify_row();
