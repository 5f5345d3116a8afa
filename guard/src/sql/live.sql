-- What of ours is in the catalog, whether or not our own tables are still there or say so. One row of JSON.
WITH ours AS (SELECT n.oid, n.nspowner FROM pg_catalog.pg_namespace n WHERE n.nspname = 'pgrail')
SELECT pg_catalog.json_build_object(
  'role', current_user,
  'superuser', (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = current_user),
  'server_version_num', pg_catalog.current_setting('server_version_num')::int,
  'in_recovery', pg_catalog.pg_is_in_recovery(),
  'track_counts', pg_catalog.current_setting('track_counts')::bool,
  -- Managed services let some roles create event triggers; who those are is theirs to say, so only their members are worth a try.
  'managed_administrator', EXISTS (SELECT FROM pg_catalog.pg_roles r
      WHERE r.rolname IN ('rds_superuser', 'cloudsqlsuperuser', 'alloydbsuperuser', 'azure_pg_admin', 'supabase_admin', 'supabase_privileged_role') AND pg_catalog.pg_has_role(r.oid, 'MEMBER'))
    OR coalesce(pg_catalog.current_setting('supautils.privileged_role', true) = current_user, false),
  'may_create_schema', pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'),
  'configured', (SELECT pg_catalog.count(*) = 9 FROM pg_catalog.pg_class c JOIN ours ON c.relnamespace = ours.oid WHERE c.relkind IN ('r', 'v') AND c.relname IN ('install', 'guard', 'relation', 'assignment', 'allowance', 'usage', 'member', 'trigger', 'routine')),
  'schema_owner', (SELECT pg_catalog.pg_get_userbyid(nspowner) FROM ours),
  'schema_owned', coalesce((SELECT pg_catalog.pg_has_role(nspowner, 'USAGE') FROM ours), false),
  'triggers', coalesce((
    SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
      'rel', t.tgrelid::int8, 'name', t.tgname, 'always', t.tgenabled = 'A', 'disabled', t.tgenabled = 'D', 'clone', t.tgparentid <> 0,
      'fingerprint', pg_catalog.md5(pg_catalog.concat_ws('|', t.tgtype, t.tgfoid::int8, t.tgqual, t.tgattr, t.tgargs, t.tgconstraint::int8)))
      ORDER BY t.tgrelid, t.tgname)
    FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid JOIN ours ON p.pronamespace = ours.oid
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = t.tgrelid AND c.relnamespace = ours.oid)), '[]'),
  'routines', coalesce((
    SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
      'name', p.proname, 'arguments', pg_catalog.pg_get_function_identity_arguments(p.oid),
      'fingerprint', pg_catalog.md5(pg_catalog.concat_ws('|', p.prosrc, p.provolatile, p.prosecdef, p.proconfig::text, p.proowner::int8, p.proacl::text, p.prolang::int8, p.proargtypes::text)))
      ORDER BY p.proname)
    FROM pg_catalog.pg_proc p JOIN ours ON p.pronamespace = ours.oid), '[]'),
  'relations', coalesce((
    SELECT pg_catalog.json_agg(pg_catalog.json_build_object('name', c.relname, 'kind', c.relkind,
      'pins', (SELECT d.refobjid::int8 FROM pg_catalog.pg_rewrite w
               JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = w.oid
                AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid <> c.oid
               WHERE w.ev_class = c.oid AND c.relkind = 'v' AND c.relname LIKE 'pin\_%' LIMIT 1)) ORDER BY c.relname)
    FROM pg_catalog.pg_class c JOIN ours ON c.relnamespace = ours.oid WHERE c.relkind IN ('r', 'S', 'v')), '[]'),
  -- What captured rows are stored in, one pair of tables for each owner. They belong to that owner.
  'stores', coalesce((
    SELECT pg_catalog.json_agg(pg_catalog.json_build_object('name', c.relname, 'owner', c.relowner::int8, 'row_security', c.relrowsecurity) ORDER BY c.relname)
    FROM pg_catalog.pg_class c JOIN ours ON c.relnamespace = ours.oid WHERE c.relkind = 'r' AND c.relname ~ '^captured_(transaction_)?[0-9]+$'), '[]'),
  -- They carry every logged table, those of captured rows too.
  'all_tables_publications', coalesce((SELECT pg_catalog.json_agg(b.pubname ORDER BY b.pubname) FROM pg_catalog.pg_publication b WHERE b.puballtables), '[]'),
  -- Whether the application's deletes can call our functions, and what of ours somebody was given rights on.
  'schema_usable', coalesce((SELECT pg_catalog.has_schema_privilege('public', oid, 'USAGE') FROM ours), false),
  'given_away', coalesce((
    SELECT pg_catalog.json_agg(x.what ORDER BY x.what) FROM (
      SELECT DISTINCT c.relname::text AS what FROM pg_catalog.pg_class c JOIN ours ON c.relnamespace = ours.oid, LATERAL pg_catalog.aclexplode(c.relacl) a
      WHERE a.grantee <> c.relowner AND c.relkind IN ('r', 'S', 'v')
        -- Whom owners let read what was captured of their tables is theirs to say.
        AND c.relname !~ '^captured_[a-z_]*[0-9]+(_id_seq)?$'
        -- Every role may read what pg_dump reads.
        AND NOT (a.grantee = 0 AND a.privilege_type = 'SELECT' AND (c.relpersistence = 'u' OR c.relkind = 'S'))
      UNION ALL
      SELECT 'schema' FROM pg_catalog.pg_namespace n JOIN ours ON ours.oid = n.oid
      WHERE EXISTS (SELECT FROM pg_catalog.aclexplode(n.nspacl) a WHERE a.grantee <> n.nspowner AND a.privilege_type = 'CREATE')
    ) x), '[]'),
  'foreign_owned', coalesce((
    SELECT pg_catalog.json_agg(c.relname ORDER BY c.relname) FROM pg_catalog.pg_class c JOIN ours ON c.relnamespace = ours.oid
    WHERE c.relkind IN ('r', 'S', 'v') AND c.relowner <> ours.nspowner AND c.relname !~ '^captured_[a-z_]*[0-9]+(_id_seq)?$'), '[]'),
  -- DISABLE TRIGGER ALL disables foreign keys too: deletes then leave orphaned rows.
  'disabled_keys', coalesce((
    SELECT pg_catalog.json_agg(DISTINCT t.tgrelid::int8) FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_constraint k ON k.oid = t.tgconstraint AND k.contype = 'f'
    WHERE t.tgisinternal AND t.tgenabled = 'D'), '[]'),
  'event_triggers', coalesce((
    SELECT pg_catalog.json_agg(pg_catalog.json_build_object('name', e.evtname, 'always', e.evtenabled = 'A', 'owned', pg_catalog.pg_has_role(e.evtowner, 'USAGE')) ORDER BY e.evtname)
    FROM pg_catalog.pg_event_trigger e JOIN pg_catalog.pg_proc p ON p.oid = e.evtfoid JOIN ours ON p.pronamespace = ours.oid), '[]')
)::text
