-- Remembers what was read, so that a crash afterwards cannot be taken for attempts.
WITH now AS (
  SELECT a.id, coalesce(pg_sequence_last_value(c.oid::regclass), 0) AS value, i.counters_of = pg_postmaster_start_time() AS same_start
  FROM pgrail.install i, pgrail.assignment a
  JOIN pg_class c ON c.relname = 'blocked_' || a.id AND c.relkind = 'S' AND c.relnamespace = 'pgrail'::regnamespace
), seen AS (
  UPDATE pgrail.assignment a SET seen = now.value, skipped = a.skipped + CASE WHEN now.same_start THEN 0 ELSE greatest(now.value - a.seen, 0) END
  FROM now WHERE now.id = a.id AND (a.seen <> now.value OR NOT now.same_start)
)
UPDATE pgrail.install SET counters_of = pg_postmaster_start_time() WHERE counters_of <> pg_postmaster_start_time()
