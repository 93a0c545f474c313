-- State: what a client that has just arrived needs besides the events, told by functions of the application.

-- Lets `source(topic text, claims jsonb) returns jsonb` tell the state of every topic that the pattern
-- matches. A pattern is a topic, or a prefix ending in `*`. The same pattern again replaces.
create function tidings.define_state(pattern text, source regprocedure) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    signature text;
begin
    if pattern is null or octet_length(pattern) > 255 or pattern !~ '^([A-Za-z0-9_.:/@=+~|%-]+[*]?|[*])$' collate "C" then
        raise exception 'tidings: % is not a pattern', quote_nullable(pattern)
            using errcode = '22023', hint = 'A pattern is a topic, or a prefix of topics ending in *, of at most 255 characters: user:* or acme/orders.';
    end if;
    select format('%I.%I(text,jsonb)', n.nspname, p.proname) into signature
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where p.oid = source
      and p.prokind = 'f' and not p.proretset
      and p.proargtypes = '25 3802'::oidvector and p.prorettype = 'jsonb'::regtype;
    if not found then
        raise exception 'tidings: % cannot tell state', coalesce(source::text, 'null')
            using errcode = '22023', hint = 'State is told by a function (topic text, claims jsonb) that returns jsonb.';
    end if;
    insert into tidings.state as s (pattern, source) values (pattern, signature)
    on conflict on constraint state_pkey do update set source = excluded.source;
end
$$;

-- Returns the state of a topic, told by the function of the longest pattern that matches; null without one.
-- Runs with the caller's rights, in the caller's snapshot, and with its search_path, which the application's function may rely on.
create function tidings.state_of(topic text, claims jsonb) returns jsonb
language plpgsql stable
as $$
declare
    source regprocedure;
    state jsonb;
begin
    select s.source into source
    from tidings.state s
    where s.pattern = topic
       or (right(s.pattern, 1) = '*' and starts_with(topic, left(s.pattern, -1)))
    -- The topic itself is longer than any prefix of it; a prefix as long as the topic comes after it.
    order by octet_length(rtrim(s.pattern, '*')) desc, s.pattern
    limit 1;
    if source is null then
        return null;
    end if;
    execute format('select %s($1, $2)', source::regproc) into state using topic, claims;
    return state;
end
$$;
