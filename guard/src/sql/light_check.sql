-- One number for everything that a plan or the role's capabilities depend on: tables, keys, partitions, roles, and what of
-- ours is there. It changes when any of that changes; statistics are not in it. No table is read but the catalog's. It is run
-- in new sessions, where planning costs as much as running: few scans, no join that an index does not make cheap.
WITH ours AS MATERIALIZED (SELECT (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = 'pgrail') AS oid),
routines AS MATERIALIZED (
  -- pg_proc has no index by schema.
  SELECT p.oid, p.xmin, p.proname FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_proc p ON p.oid = d.objid
  WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = (SELECT o.oid FROM ours o)
    AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
)
SELECT pg_catalog.md5(ROW(
  (SELECT ROW(
     pg_catalog.sum(pg_catalog.hashtextextended(ROW(c.oid, c.relname, c.relnamespace, c.relkind, c.relowner, c.relispartition, c.relacl, c.relrowsecurity, c.relforcerowsecurity,
         -- Whether it can be restored into as its owner.
         CASE WHEN c.relrowsecurity THEN (SELECT o.rolbypassrls OR o.rolsuper FROM pg_catalog.pg_roles o WHERE o.oid = c.relowner) END)::text, 1))
       FILTER (WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND c.relpersistence <> 't'),
     pg_catalog.sum(pg_catalog.hashtextextended(ROW(c.oid, c.relname, c.relkind, c.relowner, c.relacl)::text, 2))
       FILTER (WHERE c.relnamespace = (SELECT o.oid FROM ours o)))
   FROM pg_catalog.pg_class c),
  (SELECT pg_catalog.sum(pg_catalog.hashtextextended(ROW(n.oid, n.nspname, n.nspowner, pg_catalog.obj_description(n.oid, 'pg_namespace') LIKE 'restored by pgrail %')::text, 3))
   FROM pg_catalog.pg_namespace n WHERE n.nspname !~ '^pg_'),
  (SELECT pg_catalog.sum(pg_catalog.hashtextextended(ROW(f.oid, f.conrelid, f.confrelid, f.confdeltype)::text, 4))
   FROM pg_catalog.pg_constraint f WHERE f.contype = 'f' AND f.conparentid = 0),
  (SELECT pg_catalog.sum(pg_catalog.hashtextextended(ROW(i.inhrelid, i.inhparent, i.inhdetachpending)::text, 5)) FROM pg_catalog.pg_inherits i),
  (SELECT pg_catalog.sum(pg_catalog.hashtextextended(ROW(t.oid, t.tgrelid, t.xmin, t.tgenabled)::text, 6))
   FROM pg_catalog.pg_trigger t WHERE (t.tgisinternal AND t.tgenabled = 'D') OR t.tgfoid IN (SELECT r.oid FROM routines r)),
  -- The configuration is in functions too. What was last read of the counters changes with them.
  (SELECT pg_catalog.sum(pg_catalog.hashtextextended(ROW(r.oid, r.xmin)::text, 7)) FROM routines r WHERE r.proname <> 'config_counters'),
  (SELECT pg_catalog.sum(pg_catalog.hashtextextended(ROW(e.oid, e.xmin, e.evtenabled)::text, 8))
   FROM pg_catalog.pg_event_trigger e WHERE e.evtfoid IN (SELECT r.oid FROM routines r)),
  (SELECT pg_catalog.sum(pg_catalog.hashtextextended(ROW(b.oid, b.pubname, b.puballtables)::text, 9)) FROM pg_catalog.pg_publication b),
  (SELECT pg_catalog.sum(pg_catalog.hashtextextended(ROW(m.roleid, m.member, m.xmin)::text, 10)) FROM pg_catalog.pg_auth_members m),
  (SELECT ROW(r.rolname, r.rolsuper, r.rolbypassrls, r.rolinherit) FROM pg_catalog.pg_roles r WHERE r.rolname = current_user),
  (SELECT ROW(d.datdba, d.datacl, (SELECT pg_catalog.sum(pg_catalog.hashtextextended(ROW(s.setdatabase, s.setrole, s.setconfig)::text, 11))
                                   FROM pg_catalog.pg_db_role_setting s WHERE s.setdatabase IN (0, d.oid)))
   FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()),
  -- Tables of extensions.
  (SELECT pg_catalog.sum(pg_catalog.hashtextextended(ROW(d.objid)::text, 12)) FROM pg_catalog.pg_depend d
   WHERE d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass),
  pg_catalog.current_setting('track_counts'), pg_catalog.current_setting('server_version'), pg_catalog.pg_is_in_recovery()
)::text)
