-- Whether this transaction has published anything: a keyed publish whose key was used before has not.
--
-- Held to its index as the look is; see there.
select exists (
    select from tidings.event
    where xid between pg_current_xact_id_if_assigned() and pg_current_xact_id_if_assigned()
    order by xid, id offset 0
) as published
