-- What may be in the columns, said by the domains of today.
alter table event
    alter column id type tidings.number,
    alter column topic type tidings.topic,
    alter column type type tidings.type,
    alter column data type tidings.data;
