-- The exemptions of this database, by its own clock, and what they were used for.
SELECT w.exemption AS name, coalesce(w.object, '') AS object,
       (w.not_before IS NULL OR clock_timestamp() >= w.not_before) AND clock_timestamp() < w.not_after AS active,
       clock_timestamp() >= w.not_after AS over, w.lost,
       u.rows, u.statements, u.last_used,
       EXISTS (SELECT FROM pg_roles r WHERE r.rolname = w.role AND r.rolcanlogin) AS role_can_login,
       (SELECT count(DISTINCT s.client_addr) > 1 OR count(*) > 4 FROM pg_stat_activity s WHERE s.usename = w.role) AS shared
FROM pgrail.allowance w, LATERAL (
  SELECT coalesce(sum(u.rows), 0)::int8 AS rows, coalesce(sum(u.statements), 0)::int8 AS statements, extract(epoch FROM max(u.statement_at))::int8 AS last_used
  FROM pgrail.usage u WHERE u.allowance = w.id) u
WHERE w.exemption IS NOT NULL
ORDER BY w.exemption
