-- The size of the data, told by the table itself.
alter table event add column bytes integer generated always as (octet_length(data::text)) stored;
