-- Who may do what. Nobody but the owner writes a table of tidings: everything goes through the functions.

-- Makes the roles, if that is permitted, and grants them what they need; tells with a notice what could not be done.
-- May be called again, by the owner, once somebody with the right to do so has made the roles.
create function tidings.grant_roles() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    name text;
begin
    foreach name in array array['tidings_publisher', 'tidings_gateway', 'tidings_watcher'] loop
        if to_regrole(name) is null then
            begin
                execute format('create role %I nologin %s', name, case name when 'tidings_watcher' then 'noinherit' end);
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
            tidings.refuse_topic(text), tidings.refuse_type(text), tidings.refuse_data(jsonb)
        to tidings_publisher;
    end if;
    begin
        perform tidings.hand_over_watches();
    exception when insufficient_privilege then
        raise notice 'tidings: the function tidings_watch.watch_row keeps the rights of its owner, who alone may watch tables'
            using detail = sqlerrm, hint = 'Code of a watched table''s owner runs with these rights: watch no table of anybody else. Or have a superuser '
                'run: create role tidings_watcher nologin noinherit; (if there is none) and: select tidings.grant_roles();';
    end;

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

-- Gives the trigger function of watches to tidings_watcher and lets publishers make triggers of it, or raises 42501.
-- That role is to have no members, who could alter the function, and to inherit nothing: whoever has the ADMIN OPTION
-- on a publisher can make it a member of that one, and would so lend it the right to name the function. (From
-- Postgres 16 on, GRANT … WITH INHERIT TRUE lends it all the same: that option is for those who may become superuser.)
create function tidings.hand_over_watches() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    owner constant regrole := (select n.nspowner from pg_namespace n where n.nspname = 'tidings');
    watcher constant regrole := to_regrole('tidings_watcher');
    publisher constant regrole := to_regrole('tidings_publisher');
    joined boolean := false;
begin
    if not exists (select from pg_roles r where r.oid = watcher and not (r.rolinherit or r.rolcanlogin or r.rolsuper)) then
        raise exception 'tidings: there is no role tidings_watcher that is NOLOGIN and NOINHERIT' using errcode = '42501';
    end if;
    -- Nothing is left to do, which need not be permitted.
    if exists (select from pg_proc p where p.oid = 'tidings_watch.watch_row'::regproc and p.proowner = watcher)
        and (publisher is null or has_function_privilege(publisher, 'tidings_watch.watch_row()', 'execute')) then
        return;
    end if;

    grant usage on schema tidings to tidings_watcher;
    grant execute on function tidings.publish_change(text, text, jsonb), tidings.fill(text, jsonb) to tidings_watcher;
    -- Who gives a function away must be a member of the role and the role be allowed to create, for that moment.
    if not pg_has_role(watcher, 'usage') then
        execute format('grant tidings_watcher to %I', current_user);
        joined := true;
    end if;
    grant create on schema tidings_watch to tidings_watcher;
    alter function tidings_watch.watch_row() owner to tidings_watcher;
    revoke create on schema tidings_watch from tidings_watcher;
    -- What the old owner had is the new one's now. CREATE TRIGGER asks for both rights, firing for none.
    execute format('grant execute on function tidings_watch.watch_row() to %s', owner);
    execute format('grant usage on schema tidings_watch to %s', owner);
    if publisher is not null then
        grant execute on function tidings_watch.watch_row() to tidings_publisher;
        grant usage on schema tidings_watch to tidings_publisher;
    end if;
    if joined then
        execute format('revoke tidings_watcher from %I', current_user);
    end if;
end
$$;

revoke execute on all functions in schema tidings, tidings_watch from public;
-- These reveal no more than how far the log is, and change nothing.
grant execute on function tidings.cursor(), tidings.user_topic(text, text), tidings.escape(text), tidings.tag(bigint, xid8, timestamptz) to public;

select tidings.grant_roles();
