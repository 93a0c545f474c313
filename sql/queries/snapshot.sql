-- The snapshot of now. While it is that of a mark, no transaction has finished since, so that neither the log nor its
-- floor can differ from what the mark was made of.
select pg_current_snapshot()::text as snapshot
