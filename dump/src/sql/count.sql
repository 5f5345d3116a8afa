-- How the rows of the tables $1.$2 are counted.
-- The planner inlines and evaluates functions that indexes and extended statistics call, even for count(*): with the search path
-- and the rights of this session. Those that are not built in can fail, and must not run as this role. COPY plans nothing,
-- and calls nothing but the output function of the type of one column.
SELECT n.nspname::text AS schema, c.relname::text AS name, ident.ident,
    CASE WHEN EXISTS (
        SELECT FROM pg_catalog.pg_depend d
        WHERE d.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass)
            AND (d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid IN (
                    SELECT i.indexrelid FROM pg_catalog.pg_index i
                    WHERE i.indrelid = c.oid AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL))
                OR d.classid = 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass AND d.objid IN (
                    SELECT s.oid FROM pg_catalog.pg_statistic_ext s WHERE s.stxrelid = c.oid)))
    THEN pg_catalog.format('COPY %s %s TO STDOUT', ident.ident, (
        SELECT pg_catalog.format('(%I)', a.attname)
        FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
        ORDER BY t.typnamespace <> 'pg_catalog'::pg_catalog.regnamespace, t.typlen < 0, t.typlen, a.attnum
        LIMIT 1))
    END AS copy
FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) AS wanted (schema, name)
JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema::pg_catalog.name
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name::pg_catalog.name AND c.relkind IN ('r', 'p')
CROSS JOIN LATERAL pg_catalog.format('%I.%I', n.nspname, c.relname) AS ident (ident)
