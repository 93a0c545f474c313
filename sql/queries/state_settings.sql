-- What functions of the application find in the transaction, until its end.
--
-- $1 claims of the caller as JSON text, where PostgREST puts them     $2 milliseconds that a statement may take
select set_config('request.jwt.claims', $1, true),
       set_config('statement_timeout', $2, true),
       -- The session's own statements want generic plans off indexes; those of the functions were written for
       -- what is usual.
       set_config('plan_cache_mode', 'auto', true),
       set_config('enable_seqscan', 'on', true),
       set_config('enable_bitmapscan', 'on', true),
       set_config('enable_sort', 'on', true)
