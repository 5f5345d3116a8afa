-- Who holds locks on a table, its partitions and its children, or on relations of pgrail's where $1 is null. Sessions that
-- write come before those that only read: DROP TRIGGER and DROP TABLE wait for both, CREATE TRIGGER only for the first.
WITH RECURSIVE tree(oid) AS (
  SELECT $1::pg_catalog.oid WHERE $1 IS NOT NULL
  UNION
  SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid
), relations AS (
  SELECT t.oid FROM tree t
  UNION ALL
  SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE $1 IS NULL AND n.nspname = 'pgrail'
), held AS (
  SELECT DISTINCT ON (l.pid) l.pid, l.relation, l.mode IN ('AccessShareLock', 'RowShareLock') AS reads
  FROM pg_catalog.pg_locks l JOIN relations r ON r.oid = l.relation
  WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
    AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
  ORDER BY l.pid, reads
)
SELECT pg_catalog.format('%s.%s', n.nspname, c.relname) AS "table", held.pid, a.usename::text AS login, a.application_name AS application,
       pg_catalog.to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS since
FROM held JOIN pg_catalog.pg_class c ON c.oid = held.relation JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = held.pid
ORDER BY held.reads, a.xact_start NULLS LAST LIMIT 3
