-- Room in each page for what comes to the topics that stand in it.
create index event_topic on event (topic, xid, id) with (fillfactor = 70);
