-- The bell as a trigger of the statement, whose condition asks whether a gateway is awake.
create function ring() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_notify('tidings', '');
    return null;
end
$$;

create trigger ring after insert on event for each statement
when (
    case
        when current_setting('tidings.bell', true) = 'off' then false
        when pg_try_advisory_lock_shared(8386654097862812519) then pg_advisory_unlock_shared(8386654097862812519)
        else false
    end
)
execute function ring();
