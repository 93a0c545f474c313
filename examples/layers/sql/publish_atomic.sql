-- The INSERT of tidings.publish in a body that is parsed when the function is made, and knows no keys.
create function publish(topic text, type text, data jsonb)
returns bigint
language sql security definer
begin atomic
    insert into tidings.event (topic, type, data, bytes)
    values (topic, type, coalesce(data, 'null'), octet_length(coalesce(data, 'null')::text))
    returning id::bigint;
end;
