-- Remembers what was read, so that a crash afterwards cannot be taken for attempts.
WITH now AS (
  SELECT a.id, coalesce(pg_catalog.pg_sequence_last_value(c.oid::pg_catalog.regclass), 0) AS value, a.seen, a.skipped, i.counters_of = pg_catalog.pg_postmaster_start_time() AS same_start
  FROM pgrail.install i, pgrail.assignment a
  JOIN pg_catalog.pg_class c ON c.relname = 'blocked_' || a.id AND c.relkind = 'S' AND c.relnamespace = 'pgrail'::pg_catalog.regnamespace
)
SELECT pgrail.write_document('counters', (
  SELECT pg_catalog.jsonb_build_object('server_start', pg_catalog.pg_postmaster_start_time(),
    'seen', coalesce(pg_catalog.jsonb_object_agg(id, value) FILTER (WHERE value <> 0), '{}'),
    'skipped', coalesce(pg_catalog.jsonb_object_agg(id, skipped + CASE WHEN same_start THEN 0 ELSE greatest(value - seen, 0) END)
      FILTER (WHERE skipped <> 0 OR NOT same_start AND value > seen), '{}'))
  FROM now))
