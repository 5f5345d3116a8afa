-- What a restore must know of the database besides its archive, as one JSON object. PostgreSQL 10 and later: columns that
-- only later versions have are read through to_jsonb.
-- Settings with a dot in their name are the application's own, and often secrets: only their names are recorded.
SELECT pg_catalog.json_build_object(
    'collate', d.raw ->> 'datcollate',
    'ctype', d.raw ->> 'datctype',
    'localeProvider', CASE d.raw ->> 'datlocprovider' WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END,
    'locale', COALESCE(d.raw ->> 'datlocale', d.raw ->> 'daticulocale'),
    'icuRules', d.raw ->> 'daticurules',
    'owner', pg_catalog.pg_get_userbyid((d.raw ->> 'datdba')::oid),
    'extensions', COALESCE((SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
            'name', e.extname, 'version', e.extversion, 'schema', n.nspname) ORDER BY e.extname)
        FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace), '[]'),
    'roles', COALESCE((SELECT pg_catalog.json_agg(r.rolname ORDER BY r.rolname) FROM pg_catalog.pg_roles r WHERE r.rolname !~ '^pg_' AND (
        r.oid = (d.raw ->> 'datdba')::oid
        OR EXISTS (SELECT FROM pg_catalog.pg_shdepend s WHERE s.dbid = (d.raw ->> 'oid')::oid
            AND s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND s.refobjid = r.oid)
        -- Objects of the role that initdb made are recorded nowhere else.
        OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relowner = r.oid AND c.oid >= 16384)
        OR EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.proowner = r.oid AND p.oid >= 16384)
        OR EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspowner = r.oid AND n.oid >= 16384))), '[]'),
    'tablespaces', COALESCE((SELECT pg_catalog.json_agg(t.spcname ORDER BY t.spcname) FROM pg_catalog.pg_tablespace t
        WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.reltablespace = t.oid AND c.oid >= 16384)), '[]'),
    'settings', COALESCE((SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
            'name', s.name, 'value', CASE WHEN pg_catalog.strpos(s.name, '.') = 0 THEN s.value END) ORDER BY s.name)
        FROM pg_catalog.pg_db_role_setting g
        CROSS JOIN LATERAL pg_catalog.unnest(g.setconfig) AS c(entry)
        CROSS JOIN LATERAL (SELECT pg_catalog.split_part(c.entry, '=', 1) AS name,
            pg_catalog.substr(c.entry, pg_catalog.strpos(c.entry, '=') + 1) AS value) AS s
        WHERE g.setdatabase = (d.raw ->> 'oid')::oid AND g.setrole = 0), '[]')
)::text AS source
FROM (SELECT pg_catalog.to_jsonb(d) AS raw FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()) AS d
