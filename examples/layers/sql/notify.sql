-- The usual way to tell: a notification of each row.
create function notify_row() returns trigger
language plpgsql
as $$
begin
    perform pg_notify('layers', new.id::text);
    return null;
end
$$;

create trigger notify after insert on event for each row execute function notify_row();
