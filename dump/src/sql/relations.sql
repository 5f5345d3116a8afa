-- Every table, partitioned table and sequence that pg_dump may read, and whether this role can read it whole.
-- Not: system schemas, temporary relations. Members of extensions are recreated by their extension; the rows of its
-- configuration tables are dumped. Names are given twice: as text, and as the bytes that an archive holds.
SELECT c.oid AS oid,
    n.nspname::text AS schema,
    c.relname::text AS name,
    pg_catalog.convert_to(n.nspname::text, pg_catalog.getdatabaseencoding()) AS schema_bytes,
    pg_catalog.convert_to(c.relname::text, pg_catalog.getdatabaseencoding()) AS name_bytes,
    pg_catalog.format('%I.%I', n.nspname, c.relname) AS quoted,
    c.relkind = 'r' AS has_rows,
    c.relpersistence = 'u' AS unlogged,
    root_schema.nspname::text AS root_schema,
    root.relname::text AS root_name,
    -- The triggers that guards have on the tables that they name, and not on those that depend on them.
    EXISTS (SELECT FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc f ON f.oid = t.tgfoid
        JOIN pg_catalog.pg_namespace s ON s.oid = f.pronamespace
        WHERE t.tgrelid IN (c.oid, root.oid) AND s.nspname = 'pgrail'
            AND t.tgname ~ '^pgrail_(note|window|updating)_[0-9]+$|^pgrail_truncate$') AS guarded,
    pg_catalog.has_table_privilege(c.oid, 'SELECT') AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS readable,
    c.relkind = 'r' AND pg_catalog.row_security_active(c.oid) AS row_security,
    member.objid IS NOT NULL AS extension_member,
    COALESCE(c.oid = ANY (e.extconfig), false) AS extension_configuration
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_class root ON c.relispartition AND root.oid = pg_catalog.pg_partition_root(c.oid)
LEFT JOIN pg_catalog.pg_namespace root_schema ON root_schema.oid = root.relnamespace
LEFT JOIN pg_catalog.pg_depend member ON member.classid = 'pg_catalog.pg_class'::regclass AND member.objid = c.oid
    AND member.objsubid = 0 AND member.deptype = 'e' AND member.refclassid = 'pg_catalog.pg_extension'::regclass
LEFT JOIN pg_catalog.pg_extension e ON e.oid = member.refobjid
WHERE c.relkind IN ('r', 'p', 'S')
    AND c.relpersistence <> 't'
    AND n.nspname <> 'information_schema'
    AND n.nspname !~ '^pg_'
ORDER BY 2, 3
