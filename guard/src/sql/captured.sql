-- What is captured, by transaction, the newest first. One row of JSON.
WITH rows AS (
  SELECT c.xid, c.began, coalesce(n.nspname || '.' || r.relname, max(c.label)) AS label,
         count(*) FILTER (WHERE c.effect = 'd') AS deleted, count(*) FILTER (WHERE c.effect = 'u') AS nulled, min(c.id) AS first
  FROM {rows} c
  LEFT JOIN pg_catalog.pg_class r ON r.oid = c.rel LEFT JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
  GROUP BY c.xid, c.began, c.rel, n.nspname, r.relname
)
SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
    'transaction', t.xid::text::int8,
    'began', pg_catalog.to_char(t.began AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
    'login', t.login, 'role', t.role, 'application', t.application, 'client', t.client,
    'guards', t.guards, 'incomplete', t.incomplete,
    'undone', pg_catalog.to_char(t.undone_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), 'undoneBy', t.undone_by,
    'tables', coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_object('table', r.label, 'deleted', r.deleted, 'nulled', r.nulled) ORDER BY r.first)
                        FROM rows r WHERE r.xid = t.xid AND r.began = t.began), '[]')
  ) ORDER BY t.began DESC, t.xid DESC), '[]')::text
FROM (
  SELECT t.xid, t.began, min(t.login::text) AS login, min(t.role) AS role, min(t.application) AS application, coalesce(min(pg_catalog.host(t.client)), '') AS client,
         pg_catalog.json_agg(t.guard_name ORDER BY t.guard_name) AS guards, min(t.incomplete) AS incomplete, max(t.undone_at) AS undone_at, max(t.undone_by::text) AS undone_by
  FROM {transactions} t GROUP BY t.xid, t.began
) t
