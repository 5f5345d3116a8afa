-- What the current role may do here and what the server is; system catalogs only.
SELECT current_user::text AS role,
       r.rolsuper AS superuser,
       r.rolbypassrls OR r.rolsuper AS bypass_rls,
       pg_catalog.pg_has_role('pg_read_all_data', 'USAGE') AS read_all_data,
       pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') AS create_schema,
       pg_catalog.current_setting('server_version_num')::int AS server_version_num,
       pg_catalog.current_setting('server_version') AS server_version,
       pg_catalog.pg_is_in_recovery() AS in_recovery,
       pg_catalog.current_setting('track_counts')::bool AS track_counts,
       t.tables, t.not_owned, t.own
FROM pg_catalog.pg_roles r,
     LATERAL (SELECT pg_catalog.count(*) AS tables, pg_catalog.count(*) FILTER (WHERE NOT pg_catalog.pg_has_role(c.relowner, 'USAGE')) AS not_owned,
                     -- A restore into a new schema creates tables as pgrail's role.
                     pg_catalog.count(*) FILTER (WHERE c.relowner = r.oid
                       AND coalesce(pg_catalog.obj_description(n.oid, 'pg_namespace'), '') NOT LIKE 'restored by pgrail %') AS own
              FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname NOT IN ('pgrail', 'information_schema') AND n.nspname !~ '^pg_'
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                                AND d.objid = c.oid AND d.objsubid = 0 AND d.deptype = 'e')) t
WHERE r.rolname = current_user
