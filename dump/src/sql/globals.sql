-- Roles and their memberships as SQL, without passwords and without role settings, which often hold secrets.
-- Of the roles in $1, which the dump refers to, and of those that they are members of, directly or not. Other roles of the server
-- have nothing to do with a dump of one database.
-- Only missing roles are created: running it never changes an existing role.
-- One statement per row, in the order to run. PostgreSQL 15 and later; grants of 16+ carry their options.
WITH RECURSIVE needed AS (
    SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = ANY ($1)
    UNION
    SELECT m.roleid FROM needed n JOIN pg_catalog.pg_auth_members m ON m.member = n.oid
), role AS (
    SELECT r.* FROM pg_catalog.pg_roles r JOIN needed n ON n.oid = r.oid WHERE r.rolname !~ '^pg_'
), creation AS (
    SELECT 1 AS step, r.rolname::text AS first, ''::text AS second,
        pg_catalog.format('DO %L;', pg_catalog.format(
            'BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = %L) THEN CREATE ROLE %I WITH %s; END IF; END',
            r.rolname, r.rolname, pg_catalog.concat_ws(' ',
                CASE WHEN r.rolsuper THEN 'SUPERUSER' ELSE 'NOSUPERUSER' END,
                CASE WHEN r.rolinherit THEN 'INHERIT' ELSE 'NOINHERIT' END,
                CASE WHEN r.rolcreaterole THEN 'CREATEROLE' ELSE 'NOCREATEROLE' END,
                CASE WHEN r.rolcreatedb THEN 'CREATEDB' ELSE 'NOCREATEDB' END,
                CASE WHEN r.rolcanlogin THEN 'LOGIN' ELSE 'NOLOGIN' END,
                CASE WHEN r.rolreplication THEN 'REPLICATION' ELSE 'NOREPLICATION' END,
                CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' ELSE 'NOBYPASSRLS' END,
                CASE WHEN r.rolconnlimit <> -1 THEN 'CONNECTION LIMIT ' || r.rolconnlimit END,
                CASE WHEN r.rolvaliduntil IS NOT NULL THEN pg_catalog.format('VALID UNTIL %L', r.rolvaliduntil) END))) AS statement
    FROM role r
), membership AS (
    SELECT 2 AS step, granted.rolname::text AS first, member.rolname::text AS second,
        pg_catalog.format('GRANT %I TO %I%s;', granted.rolname, member.rolname,
            CASE WHEN options.list <> '' THEN ' WITH ' || options.list ELSE '' END) AS statement
    FROM pg_catalog.pg_auth_members m
    JOIN pg_catalog.pg_roles granted ON granted.oid = m.roleid
    JOIN role member ON member.oid = m.member
    CROSS JOIN LATERAL (SELECT pg_catalog.to_jsonb(m) AS fields) AS raw
    CROSS JOIN LATERAL (SELECT pg_catalog.concat_ws(', ',
        CASE WHEN m.admin_option THEN 'ADMIN OPTION' END,
        CASE WHEN raw.fields ? 'inherit_option' THEN 'INHERIT ' || (raw.fields ->> 'inherit_option') END,
        CASE WHEN raw.fields ? 'set_option' THEN 'SET ' || (raw.fields ->> 'set_option') END) AS list) AS options
)
SELECT statement FROM (TABLE creation UNION ALL TABLE membership) AS statements ORDER BY step, first, second, statement
