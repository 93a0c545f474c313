-- What may be in the columns, said by domains without a regular expression: nothing is left of a value once every
-- letter that it may have is taken away.
create domain letters_topic as text collate "C" constraint topic_form check (
    value <> '' and ltrim(value, 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:/@=+~|%-') = ''
    and octet_length(value) <= 255 or tidings.refuse_topic(value)
);
create domain letters_type as text collate "C" constraint type_form check (
    value <> '' and ltrim(value, 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:@=+~|%-') = ''
    and octet_length(value) <= 64
    and not starts_with(value, 'tidings.') and value not in ('error', 'open', 'message') or tidings.refuse_type(value)
);
alter table event
    alter column id type tidings.number,
    alter column topic type letters_topic,
    alter column type type letters_type,
    alter column data type tidings.data;
