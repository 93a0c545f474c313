create index event_topic on event (topic, xid, id);
