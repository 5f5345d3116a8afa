-- The rows that this transaction changed in each table, by the server's own counters; with search_path = pg_catalog.
SELECT c.oid, n.nspname, c.relname, pg_stat_get_xact_tuples_deleted(c.oid) AS deleted, pg_stat_get_xact_tuples_updated(c.oid) AS updated,
       pg_stat_get_xact_tuples_inserted(c.oid) AS inserted
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema', 'pgrail')
  AND (pg_stat_get_xact_tuples_deleted(c.oid), pg_stat_get_xact_tuples_updated(c.oid), pg_stat_get_xact_tuples_inserted(c.oid)) <> (0, 0, 0)
