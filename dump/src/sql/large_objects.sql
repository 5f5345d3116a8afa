-- How many large objects there are, and how many of them this role cannot read: no predefined role grants that.
SELECT pg_catalog.count(*) AS total,
    pg_catalog.count(*) FILTER (WHERE NOT (
        pg_catalog.current_setting('is_superuser')::bool
        OR pg_catalog.pg_has_role(m.lomowner, 'USAGE')
        OR EXISTS (SELECT FROM pg_catalog.aclexplode(m.lomacl) a
            WHERE a.privilege_type = 'SELECT' AND (a.grantee = 0 OR pg_catalog.pg_has_role(a.grantee, 'USAGE')))
    )) AS unreadable
FROM pg_catalog.pg_largeobject_metadata m
