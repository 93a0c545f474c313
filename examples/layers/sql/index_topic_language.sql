-- A topic in the order of a language, as databases have it unless they are made otherwise.
alter table event alter column topic type text collate "und-x-icu";
create index event_topic on event (topic, xid, id);
