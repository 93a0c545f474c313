-- Watching a table: its row changes become events without a line of code.
--
-- The template and the names are checked when the watch is made; what is left to the trigger is to fill in.

-- Fills a topic template from a row: {column} becomes that column's value, escaped as in tidings.user_topic.
-- Null when one of the columns is null: such a row concerns nobody.
create function tidings.fill(template text, fields jsonb) returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    topic text := template;
    name text;
    value text;
begin
    -- Values cannot bring in new placeholders, since braces are escaped in them.
    for name in select m[1] from regexp_matches(template, '\{([^{}]+)\}', 'g') as m loop
        if not fields ? name then
            raise exception 'tidings: the watched topic % names the column %, which the table no longer has', quote_literal(template), quote_ident(name)
                using errcode = '42703', hint = 'Call tidings.unwatch and then tidings.watch again with the new name.';
        end if;
        value := fields ->> name;
        if value is null then
            return null;
        end if;
        topic := replace(topic, '{' || name || '}', tidings.escape(value));
    end loop;
    return topic;
end
$$;

-- The trigger function's own schema: its owner, the role tidings_watcher, may not so much as name what is in here.
create schema tidings_watch;

-- The trigger behind a watch. Arguments: topic template, type prefix, and, when not all, the columns.
-- It may publish although who writes the table may not, and it runs casts that the table's owner may have
-- written (to_jsonb does), so its rights are to be no more than those two need: the roles' migration hands it to
-- tidings_watcher. All watches share it, so nobody else may alter it either: made SECURITY INVOKER, it would run
-- what they like as whoever writes any watched table. An owner may always do that, and the casts run as the owner.
-- What keeps them from it is that every ALTER FUNCTION looks the name up, for which the owner lacks USAGE.
-- DROP OWNED looks up nothing: such a cast can still end the watches with it, but not take them over.
create function tidings_watch.watch_row() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    template constant text := tg_argv[0];
    type constant text := tg_argv[1] || '.' || lower(tg_op);
    columns constant text[] := tg_argv[2]::text[];
    before jsonb;
    after jsonb;
    topic_before text;
    topic_after text;
begin
    if tg_op <> 'INSERT' then
        before := to_jsonb(old);
        topic_before := tidings.fill(template, before);
    end if;
    if tg_op <> 'DELETE' then
        after := to_jsonb(new);
        topic_after := tidings.fill(template, after);
    end if;
    if columns is not null then
        if exists (select from unnest(columns) as c where not coalesce(after, before) ? c) then
            raise exception 'tidings: the watch on % names a column that the table no longer has', tg_relid::regclass
                using errcode = '42703', hint = 'Call tidings.unwatch and then tidings.watch again with the new names.';
        end if;
        before := (select jsonb_object_agg(c, before -> c) from unnest(columns) as c where before is not null);
        after := (select jsonb_object_agg(c, after -> c) from unnest(columns) as c where after is not null);
    end if;

    -- An update that changes nothing of what is published is no news.
    if tg_op = 'UPDATE' and topic_before is not distinct from topic_after and before = after then
        return null;
    end if;
    -- Whoever could see the row before hears of the change too, else it would stay on their screens for ever.
    if topic_before is not null and topic_before is distinct from topic_after then
        perform tidings.publish_change(topic_before, type, coalesce(after, before));
    end if;
    if topic_after is not null then
        perform tidings.publish_change(topic_after, type, after);
    end if;
    return null;
end
$$;

-- Publishes every row change of a table: `<type>.insert`, `.update` or `.delete` with the row (or the named
-- columns) as data; type is the table's name unless given. An update that moves a row to another topic
-- is published to both. The same topic again replaces; another one is added.
-- Runs with the caller's rights: who may create a trigger on the table, and publish, may watch it.
create function tidings.watch(target regclass, topic text, type text default null, columns text[] default null)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    relation pg_class;
    prefix text;
    name text;
begin
    select c.* into relation from pg_class c where c.oid = target;
    if not found then
        raise exception 'tidings: there is no such table'
            using errcode = '22023', hint = 'Pass a table, for example tidings.watch(''payments'', ''user:{user_id}'').';
    elsif relation.relkind not in ('r', 'p') or relation.relnamespace = 'tidings'::regnamespace then
        raise exception 'tidings: % cannot be watched', target
            using errcode = '22023', hint = 'Only tables can, and not those of tidings itself: name the table that holds the rows.';
    end if;

    prefix := coalesce(type, relation.relname);
    if octet_length(prefix) > 57 then
        raise exception 'tidings: the type % is % bytes long', quote_literal(prefix), octet_length(prefix)
            using errcode = '22023', hint = 'The type of a watch has at most 57 characters, since .insert is added: pass a shorter one as type.';
    end if;
    -- With every placeholder filled by one letter, the template must be a topic.
    perform regexp_replace(topic, '\{[^{}]+\}', 'x', 'g')::tidings.topic, (prefix || '.insert')::tidings.type;

    for name in
        select m[1] from regexp_matches(topic, '\{([^{}]+)\}', 'g') as m
        union
        select c from unnest(columns) as c
    loop
        if not exists (select from pg_attribute a where a.attrelid = target and a.attname = name and a.attnum > 0 and not a.attisdropped) then
            raise exception 'tidings: % has no column %', target, coalesce(quote_ident(name), 'null')
                using errcode = '42703', hint = 'Names are written as in the catalog: unquoted ones in lower case, and without quotes.';
        end if;
    end loop;
    if cardinality(columns) = 0 then
        raise exception 'tidings: the list of columns is empty'
            using errcode = '22023', hint = 'Name at least one column; null publishes the whole row.';
    end if;

    execute format(
        'create or replace trigger %I after insert or update or delete on %s for each row execute function tidings_watch.watch_row(%L, %L%s)',
        'tidings_watch_' || left(md5(topic), 8), target, topic, prefix, ', ' || quote_literal(columns)
    );
end
$$;

-- Ends every watch on a table.
create function tidings.unwatch(target regclass) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    name text;
begin
    for name in
        select t.tgname from pg_trigger t
        where t.tgrelid = target and t.tgfoid = 'tidings_watch.watch_row'::regproc and t.tgparentid = 0
    loop
        execute format('drop trigger %I on %s', name, target);
    end loop;
end
$$;
