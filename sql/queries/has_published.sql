-- Whether this transaction has published anything: a keyed publish whose key was used before has not.
select exists (
    select from tidings.event where xid = pg_current_xact_id_if_assigned()
) as published
