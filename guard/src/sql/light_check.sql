-- One number for everything that a plan depends on: tables, keys, partitions, and what of ours is there. It changes when
-- any of that changes; statistics are not in it. No table is read but the catalog's and our own small ones.
WITH ours AS (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = 'pgrail'),
parts(part) AS (
  SELECT pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat_ws('|', c.oid, c.relname, c.relnamespace, c.relkind, c.relowner, c.relispartition, c.relacl, c.relrowsecurity, c.relforcerowsecurity), 1))
  FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND c.relpersistence <> 't'
 UNION ALL
  SELECT pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat_ws('|', t.oid, t.tgrelid), 14)) FROM pg_catalog.pg_trigger t WHERE t.tgisinternal AND t.tgenabled = 'D'
 UNION ALL
  SELECT pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat_ws('|', n.oid, n.nspname, n.nspowner), 2)) FROM pg_catalog.pg_namespace n WHERE n.nspname !~ '^pg_'
 UNION ALL
  SELECT pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat_ws('|', f.oid, f.conrelid, f.confrelid, f.confdeltype), 3))
  FROM pg_catalog.pg_constraint f WHERE f.contype = 'f' AND f.conparentid = 0
 UNION ALL
  SELECT pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat_ws('|', i.inhrelid, i.inhparent, i.inhdetachpending), 4)) FROM pg_catalog.pg_inherits i
 UNION ALL
  SELECT pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat_ws('|', t.oid, t.xmin::text, t.tgenabled), 5))
  FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid JOIN ours ON p.pronamespace = ours.oid
 UNION ALL
  -- The configuration is in functions too. What was last read of the counters changes with them.
  SELECT pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat_ws('|', p.oid, p.xmin::text), 6)) FROM pg_catalog.pg_proc p JOIN ours ON p.pronamespace = ours.oid WHERE p.proname <> 'config_counters'
 UNION ALL
  SELECT pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat_ws('|', c.oid, c.relname, c.relkind, c.relowner, c.relacl), 7)) FROM pg_catalog.pg_class c JOIN ours ON c.relnamespace = ours.oid
 UNION ALL
  SELECT pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat_ws('|', e.oid, e.xmin::text, e.evtenabled), 8))
  FROM pg_catalog.pg_event_trigger e JOIN pg_catalog.pg_proc p ON p.oid = e.evtfoid JOIN ours ON p.pronamespace = ours.oid
 UNION ALL
  SELECT pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat_ws('|', s.setdatabase, s.setrole, s.setconfig), 9)) FROM pg_catalog.pg_db_role_setting s
  WHERE s.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))
 UNION ALL
  SELECT pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat_ws('|', m.roleid, m.member), 10)) FROM pg_catalog.pg_auth_members m
 UNION ALL
  SELECT pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat_ws('|', b.oid, b.pubname, b.puballtables), 12)) FROM pg_catalog.pg_publication b
 UNION ALL
  SELECT pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat_ws('|', o.oid), 13)) FROM pg_catalog.pg_roles o
  -- Whether tables with row level security can be restored into as their owner.
  WHERE (o.rolbypassrls OR o.rolsuper) AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relowner = o.oid AND c.relrowsecurity)
 UNION ALL
  SELECT pg_catalog.hashtextextended(pg_catalog.concat_ws('|', current_user, r.rolsuper, pg_catalog.current_setting('track_counts'), pg_catalog.pg_is_in_recovery()), 11)::numeric
  FROM pg_catalog.pg_roles r WHERE r.rolname = current_user
)
SELECT pg_catalog.md5(pg_catalog.string_agg(coalesce(part::text, '-'), '|')) FROM parts
