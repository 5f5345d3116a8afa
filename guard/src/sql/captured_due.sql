-- Whether anything is in a store that should no longer be, by the bounds of the guards in $1. Run with search_path = pg_catalog.
WITH bounds AS (
  SELECT b.name, b.retention, b.max_rows FROM jsonb_to_recordset($1::text::jsonb) AS b(name text, retention bigint, max_rows bigint)
)
SELECT EXISTS (SELECT FROM {transactions} t LEFT JOIN bounds b ON b.name = t.guard_name
               WHERE coalesce(t.began + b.retention * interval '1 second', t.kept_until) < clock_timestamp())
  OR EXISTS (
    SELECT FROM {transactions} t JOIN bounds b ON b.name = t.guard_name
    LEFT JOIN (SELECT c.xid, c.began, c.guard, count(*) AS rows FROM {rows} c GROUP BY c.xid, c.began, c.guard) s USING (xid, began, guard)
    GROUP BY b.name, b.max_rows HAVING sum(coalesce(s.rows, 1)) > b.max_rows) AS due,
  NOT EXISTS (SELECT FROM {transactions}) AND NOT EXISTS (SELECT FROM {rows}) AS empty
