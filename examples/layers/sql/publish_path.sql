-- tidings.publish as it is, but for its search_path.
create function publish(topic text, type text, data jsonb default 'null', key text default null)
returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
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
