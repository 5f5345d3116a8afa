-- Who holds pgrail's advisory lock in this database (0x7067, 0x7261696c), and whether he may be another operator: this very
-- role, a superuser, or whoever can act as the owner of pgrail's schema.
SELECT a.usename::text AS role,
       a.usesysid = (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = current_user) OR coalesce(u.rolsuper, true)
       OR EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname = 'pgrail' AND pg_catalog.pg_has_role(a.usesysid, n.nspowner, 'MEMBER')) AS manages
FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid LEFT JOIN pg_catalog.pg_roles u ON u.oid = a.usesysid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.classid = 28775 AND l.objid = 1918986604
  AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
