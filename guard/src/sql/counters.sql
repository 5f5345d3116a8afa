-- Blocked attempts per guard and table. After another start of the server, whatever was not seen before it is taken as
-- the crash's doing (a sequence may jump ahead by up to 32) and skipped.
WITH now AS (
  SELECT a.id, g.name AS guard, coalesce((SELECT n.nspname || '.' || t.relname FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace WHERE t.oid = r.rel::oid), r.label) AS "table", a.seen, a.skipped, i.counters_of = pg_postmaster_start_time() AS same_start,
         coalesce(pg_sequence_last_value(c.oid::regclass), 0) AS value
  FROM pgrail.install i, pgrail.assignment a
  JOIN pgrail.guard g ON g.id = a.guard
  JOIN pgrail.relation r ON r.id = a.root
  JOIN pg_class c ON c.relname = 'blocked_' || a.id AND c.relkind = 'S' AND c.relnamespace = 'pgrail'::regnamespace
)
SELECT id, guard, "table", value, seen, same_start,
       value - skipped - CASE WHEN same_start THEN 0 ELSE greatest(value - seen, 0) END AS blocked
FROM now ORDER BY guard, "table"
