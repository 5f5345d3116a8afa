-- Who, besides superusers and pgrail's own role, could undo or pass the guards: login roles only. $1: the guarded tables.
-- pgrail's own role is the current one, and the owner of its schema, unless that owns a guarded table: pgrail logged in as the
-- owner of the tables before.
WITH logins AS (
  SELECT r.oid, r.rolname FROM pg_catalog.pg_roles r
  WHERE r.rolcanlogin AND NOT r.rolsuper AND r.rolname <> current_user
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname = 'pgrail' AND n.nspowner = r.oid
                    AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = ANY ($1::pg_catalog.oid[]) AND c.relowner = r.oid))
), guarded AS (
  SELECT c.oid, pg_catalog.format('%s.%s', n.nspname, c.relname) AS label, c.relowner, n.nspowner, c.relacl
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY ($1::pg_catalog.oid[])
), owners AS (
  SELECT o.oid, (SELECT pg_catalog.json_agg(l.rolname ORDER BY l.rolname) FROM logins l WHERE pg_catalog.pg_has_role(l.oid, o.oid, 'MEMBER')) AS members
  FROM (SELECT relowner FROM guarded UNION SELECT nspowner FROM guarded) o(oid)
)
SELECT pg_catalog.json_build_object(
  'tables', coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
      'table', g.label,
      'owner', pg_catalog.pg_get_userbyid(g.relowner),
      'can_disable', coalesce((SELECT members FROM owners WHERE oid = g.relowner), '[]'),
      'can_drop_with_schema', coalesce((SELECT members FROM owners WHERE oid = g.nspowner), '[]'),
      'can_replace_triggers', coalesce((SELECT pg_catalog.json_agg(l.rolname ORDER BY l.rolname) FROM logins l
          WHERE pg_catalog.has_table_privilege(l.oid, g.oid, 'TRIGGER') AND NOT pg_catalog.pg_has_role(l.oid, g.relowner, 'MEMBER')), '[]'),
      'can_delete', coalesce((SELECT pg_catalog.json_agg(l.rolname ORDER BY l.rolname) FROM logins l
          WHERE pg_catalog.has_table_privilege(l.oid, g.oid, 'DELETE, TRUNCATE')), '[]')
    ) ORDER BY g.label) FROM guarded g), '[]'),
  'replica_role', coalesce((SELECT pg_catalog.json_agg(l.rolname ORDER BY l.rolname) FROM logins l
      WHERE pg_catalog.has_parameter_privilege(l.oid, 'session_replication_role', 'SET')), '[]'),
  -- A session that counts nothing is not stopped: who may turn the counting off, and for whom it is off already.
  'uncounted', coalesce((SELECT pg_catalog.json_agg(l.rolname ORDER BY l.rolname) FROM logins l
      WHERE pg_catalog.has_parameter_privilege(l.oid, 'track_counts', 'SET')
         OR EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) c(setting)
                    WHERE s.setrole IN (0, l.oid) AND s.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))
                      AND c.setting ~* '^track_counts=(off|false|no|0|f|n)$')), '[]'),
  'function_owner', coalesce((SELECT pg_catalog.json_agg(l.rolname ORDER BY l.rolname) FROM logins l
      JOIN pg_catalog.pg_namespace n ON n.nspname = 'pgrail' AND pg_catalog.pg_has_role(l.oid, n.nspowner, 'MEMBER')), '[]')
)::text
