-- Who may do what. Nobody but the owner writes a table of tidings: everything goes through the functions.

-- Makes the two roles, if that is permitted, and grants them what they need; tells with a notice what could not be done.
-- May be called again, by the owner, once somebody with the right to do so has made the roles.
create function tidings.grant_roles() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    name text;
begin
    foreach name in array array['tidings_publisher', 'tidings_gateway'] loop
        if to_regrole(name) is null then
            begin
                execute format('create role %I nologin', name);
            exception
                -- Roles belong to the cluster: another database's migration may have been quicker.
                when duplicate_object or unique_violation then null;
                when insufficient_privilege then
                    raise notice 'tidings: the role % could not be created', name
                        using hint = 'Have an administrator create it, then run: select tidings.grant_roles();';
            end;
        end if;
    end loop;

    if to_regrole('tidings_publisher') is not null then
        -- A watch is a standing publish: who may publish may also have the changes of its own tables published.
        grant execute on function
            tidings.publish(text, text, jsonb, text), tidings.signal(text, text, jsonb),
            tidings.watch(regclass, text, text, text[]), tidings.unwatch(regclass),
            tidings.refuse(text, text), tidings.fill(text, jsonb)
        to tidings_publisher;
        -- The trigger function of a watch runs code of the watched table's owner (casts to json), so it
        -- gets the rights of a publisher instead of those of the owner of the log. Where that is not
        -- permitted, the owner of the log alone may watch.
        begin
            if not pg_has_role('tidings_publisher', 'usage') then
                execute format('grant tidings_publisher to %I', current_user);
            end if;
            grant create on schema tidings to tidings_publisher;
            alter function tidings.watch_row() owner to tidings_publisher;
            revoke create on schema tidings from tidings_publisher;
        exception when insufficient_privilege then
            raise notice 'tidings: the function tidings.watch_row keeps the rights of its owner, who alone may watch tables'
                using hint = 'Watch only tables whose owner you trust, or have a superuser run: select tidings.grant_roles();';
        end;
    end if;

    if to_regrole('tidings_gateway') is not null then
        grant select on tidings.event, tidings.floor, tidings.state, tidings.secret, tidings.migration, tidings.day to tidings_gateway;
        -- Publish is for POST /v1/events; the others are a gateway's daily maintenance and its check at start.
        grant execute on function
            tidings.publish(text, text, jsonb, text), tidings.state_of(text, jsonb),
            tidings.add_partition(date), tidings.trim(interval), tidings.trim_keys(interval, integer),
            tidings.drop_empty(), tidings.foreign_rows()
        to tidings_gateway;
    end if;
end
$$;

revoke execute on all functions in schema tidings from public;
-- These reveal no more than how far the log is, and change nothing.
grant execute on function tidings.cursor(), tidings.user_topic(text, text), tidings.escape(text), tidings.tag(bigint, xid8, timestamptz) to public;

select tidings.grant_roles();
