create index event_xid on event (xid, id);
