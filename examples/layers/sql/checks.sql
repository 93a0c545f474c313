-- What may be in the columns, said by constraints of the table.
alter table event
    add constraint event_id_positive check (id > 0),
    add constraint event_created_at_finite check (isfinite(created_at)),
    add constraint event_topic_form check (
        topic ~ '^[A-Za-z0-9_.:/@=+~|%-]+$' collate "C" and octet_length(topic) <= 255
    ),
    add constraint event_type_form check (
        type ~ '^[A-Za-z0-9_.:@=+~|%-]+$' collate "C" and octet_length(type) <= 64
        and not starts_with(type, 'tidings.') and type not in ('error', 'open', 'message')
    ),
    add constraint event_data_size check (octet_length(data::text) <= 262144);
