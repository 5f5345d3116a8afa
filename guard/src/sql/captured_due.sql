-- Whether anything is kept that should not be any more, where $1 manages pgrail's schema. Writes nothing.
SELECT i.owner = $1 AND NOT pg_catalog.pg_is_in_recovery() AND (
  EXISTS (SELECT FROM pgrail.captured_transaction t LEFT JOIN pgrail.guard g ON g.name = t.guard_name
          WHERE coalesce(t.began + g.capture_seconds * interval '1 second', t.kept_until) < clock_timestamp())
  OR EXISTS (
    SELECT FROM pgrail.captured_transaction t JOIN pgrail.guard g ON g.name = t.guard_name
    LEFT JOIN (SELECT c.xid, c.began, c.guard, count(*) AS rows FROM pgrail.captured c GROUP BY c.xid, c.began, c.guard) s USING (xid, began, guard)
    GROUP BY g.name, g.capture_rows HAVING sum(coalesce(s.rows, 1)) > g.capture_rows))
FROM pgrail.install i
