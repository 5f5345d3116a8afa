-- The server that a database is to be created on, as one JSON object. $1 the name of the database, $2 roles, $3 extensions,
-- $4 tablespaces. Run with search_path = pg_catalog.
SELECT json_build_object(
    'version', current_setting('server_version'),
    'major', current_setting('server_version_num')::int / 10000,
    'standby', pg_is_in_recovery(),
    'login', r.rolname,
    'superuser', r.rolsuper,
    'createDb', r.rolsuper OR r.rolcreatedb,
    'createRole', r.rolsuper OR r.rolcreaterole,
    'mark', (SELECT coalesce(shobj_description(d.oid, 'pg_database'), '') FROM pg_database d WHERE d.datname = $1::text),
    -- PostgreSQL 16 and later: a member may lack the option to use SET ROLE.
    'roles', coalesce((SELECT json_agg(json_build_object('name', o.rolname, 'superuser', o.rolsuper,
            'settable', CASE WHEN current_setting('server_version_num')::int >= 160000 THEN pg_has_role(o.oid, 'SET') ELSE pg_has_role(o.oid, 'MEMBER') END))
        FROM pg_roles o WHERE o.rolname::text = ANY ($2::text[])), '[]'),
    'extensions', coalesce((SELECT json_agg(json_build_object('name', e.name, 'version', e.default_version,
            'trusted', coalesce((SELECT v.trusted OR NOT v.superuser FROM pg_available_extension_versions v WHERE v.name = e.name AND v.version = e.default_version), false)))
        FROM pg_available_extensions e WHERE e.name::text = ANY ($3::text[])), '[]'),
    'tablespaces', coalesce((SELECT json_agg(t.spcname) FROM pg_tablespace t
        WHERE t.spcname::text = ANY ($4::text[]) AND has_tablespace_privilege(t.oid, 'CREATE')), '[]')
)::text
FROM pg_roles r WHERE r.rolname = current_user
