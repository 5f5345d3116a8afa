-- Whether anything is kept that should not be any more, where $1 manages pgrail's schema. Writes nothing.
SELECT i.owner = $1 AND NOT pg_catalog.pg_is_in_recovery() AND (
  EXISTS (SELECT FROM pgrail.captured_transaction t LEFT JOIN pgrail.guard g ON g.name = t.guard_name
          WHERE coalesce(t.began + g.capture_seconds * interval '1 second', t.kept_until) < clock_timestamp())
  OR EXISTS (
    SELECT FROM pgrail.captured_transaction t JOIN pgrail.guard g ON g.name = t.guard_name
    CROSS JOIN LATERAL (SELECT greatest(1, count(*)) AS rows FROM pgrail.captured c WHERE c.xid = t.xid AND c.began = t.began AND c.guard = t.guard) c
    GROUP BY g.name, g.capture_rows HAVING sum(c.rows) > g.capture_rows))
FROM pgrail.install i
