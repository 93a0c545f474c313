-- The log and tidings.publish as they were: constraints of the table, a generated column, and a function that refuses
-- in words before the table would. A key, which nobody gives here, is left out.
create sequence event_id as bigint;

create table event (
    id         bigint      not null default nextval('event_id'),
    xid        xid8        not null default pg_current_xact_id(),
    created_at timestamptz not null default clock_timestamp(),
    topic      text        not null,
    type       text        not null,
    data       jsonb       not null default 'null',
    bytes      integer     generated always as (octet_length(data::text)) stored,
    constraint event_pkey primary key (id, created_at),
    constraint event_id_positive check (id > 0),
    constraint event_created_at_finite check (isfinite(created_at)),
    constraint event_topic_form check (
        topic ~ '^[A-Za-z0-9_.:/@=+~|%-]+$' collate "C" and octet_length(topic) <= 255
    ),
    constraint event_type_form check (
        type ~ '^[A-Za-z0-9_.:@=+~|%-]+$' collate "C" and octet_length(type) <= 64
        and not starts_with(type, 'tidings.') and type not in ('error', 'open', 'message')
    ),
    constraint event_data_size check (bytes <= 262144)
) partition by range (created_at);

create function was.refuse(topic text, type text) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    if topic is null or topic = '' then
        raise exception 'tidings: the topic is %', case when topic is null then 'null' else 'empty' end
            using errcode = '22023', hint = 'A topic names what an event is about, for example user:42.';
    elsif octet_length(topic) > 255 then
        raise exception 'tidings: the topic is % bytes long', octet_length(topic)
            using errcode = '22023', hint = 'A topic has 1 to 255 characters.';
    elsif topic !~ '^[A-Za-z0-9_.:/@=+~|%-]+$' collate "C" then
        raise exception 'tidings: the topic % contains a character that topics may not have', quote_literal(topic)
            using errcode = '22023', hint = 'A topic is made of A-Z a-z 0-9 _ . : / @ = + ~ | % -. '
                'tidings.user_topic(sub) percent-encodes whatever else a user name has.';
    elsif type is null or type = '' then
        raise exception 'tidings: the type is %', case when type is null then 'null' else 'empty' end
            using errcode = '22023', hint = 'A type names what happened, for example payment.settled.';
    elsif octet_length(type) > 64 then
        raise exception 'tidings: the type is % bytes long', octet_length(type)
            using errcode = '22023', hint = 'A type has 1 to 64 characters.';
    elsif type !~ '^[A-Za-z0-9_.:@=+~|%-]+$' collate "C" then
        raise exception 'tidings: the type % contains a character that types may not have', quote_literal(type)
            using errcode = '22023', hint = 'A type is made of A-Z a-z 0-9 _ . : @ = + ~ | % - (no slash).';
    elsif starts_with(type, 'tidings.') then
        raise exception 'tidings: the type % begins with "tidings."', quote_literal(type)
            using errcode = '22023', hint = 'That prefix is the gateway''s own: choose another.';
    elsif type in ('error', 'open', 'message') then
        raise exception 'tidings: the type % is an event of EventSource itself', quote_literal(type)
            using errcode = '22023', hint = 'error, open and message are reserved: say what happened, for example payment.failed.';
    end if;
end
$$;

create function was.publish(topic text, type text, data jsonb default 'null', key text default null)
returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    -- A missing value is JSON null: `publish('a', 'b', null)` means no data and not no event.
    payload constant jsonb := coalesce(data, 'null');
    event bigint;
begin
    perform was.refuse(topic, type);
    if octet_length(payload::text) > 262144 then
        raise exception 'tidings: the data is % bytes long as text', octet_length(payload::text)
            using errcode = '22023', hint = 'At most 262144 bytes: publish what changed and let the reader fetch the rest '
                '(tidings.watch takes the columns to publish).';
    end if;

    if key is null then
        insert into was.event (topic, type, data) values (topic, type, payload) returning id into event;
        return event;
    end if;

    raise exception 'no key is given here';
end
$$;
