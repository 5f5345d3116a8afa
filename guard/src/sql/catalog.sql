-- The whole catalog in one row of JSON, for PostgreSQL 15 and later. Everything is read from system catalogs and
-- statistics: no table is locked, none is scanned. Run with search_path = pg_catalog, or names are not qualified.
WITH relations AS (
  SELECT c.oid, n.nspname, c.relname, c.relkind, c.relowner, c.relispartition, c.reltuples, c.relpersistence, c.relrowsecurity, c.relforcerowsecurity
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm')
    AND n.nspname <> 'pgrail' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
    AND c.relpersistence <> 't'
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.objsubid = 0 AND d.deptype = 'e')
), tables AS (
  SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
    'oid', r.oid::int8,
    'schema', r.nspname,
    'name', r.relname,
    'ident', pg_catalog.format('%I.%I', r.nspname, r.relname),
    'kind', r.relkind,
    'owner', pg_catalog.pg_get_userbyid(r.relowner),
    -- A privilege is NULL when the role or the table was dropped after the snapshot of this query.
    'owned', coalesce(pg_catalog.pg_has_role(r.relowner, 'USAGE'), false),
    'owner_oid', r.relowner::int8,
    -- Up to 15 every member may; the word for it is of 16.
    'owner_settable', coalesce(pg_catalog.pg_has_role(r.relowner, CASE WHEN pg_catalog.current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END), false),
    'row_security', r.relrowsecurity,
    'row_security_for_owner', r.relrowsecurity AND r.relforcerowsecurity
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles o WHERE o.oid = r.relowner AND (o.rolsuper OR o.rolbypassrls)),
    'can_trigger', coalesce(pg_catalog.has_table_privilege(r.oid, 'TRIGGER'), false),
    'is_partition', r.relispartition,
    'parents', coalesce((SELECT pg_catalog.json_agg(i.inhparent::int8 ORDER BY i.inhseqno) FROM pg_catalog.pg_inherits i
                         WHERE i.inhrelid = r.oid AND NOT i.inhdetachpending), '[]'),
    -- Live rows follow every commit, reltuples only VACUUM and ANALYZE; after a crash or a restore only the latter may be there.
    'rows', CASE WHEN r.relkind <> 'r' THEN 0
                 ELSE coalesce(nullif(pg_catalog.pg_stat_get_live_tuples(r.oid), 0), greatest(r.reltuples, 0)::int8) END
  ) ORDER BY r.oid) AS j
  FROM relations r
), foreign_keys AS (
  SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
    'oid', f.oid::int8,
    'name', f.conname,
    'referencing', f.conrelid::int8,
    'referenced', f.confrelid::int8,
    'on_delete', f.confdeltype,
    -- The fewest distinct keys of its columns is unknown to the server; the largest of a single column is a fair lower bound.
    'distinct', s.distinct_values,
    'null_fraction', s.null_fraction
  ) ORDER BY f.oid) AS j
  FROM pg_catalog.pg_constraint f
  JOIN relations r ON r.oid = f.conrelid
  JOIN relations p ON p.oid = f.confrelid
  LEFT JOIN LATERAL (
    SELECT pg_catalog.max(CASE WHEN s.n_distinct >= 0 THEN s.n_distinct
                               ELSE -s.n_distinct * coalesce(nullif(pg_catalog.pg_stat_get_live_tuples(f.conrelid), 0), greatest(r.reltuples, 0)::int8) END)::float8 AS distinct_values,
           pg_catalog.max(s.null_frac)::float8 AS null_fraction
    FROM pg_catalog.pg_attribute a
    JOIN pg_catalog.pg_stats s ON s.schemaname = r.nspname AND s.tablename = r.relname AND s.attname = a.attname AND s.inherited = (r.relkind = 'p')
    WHERE a.attrelid = f.conrelid AND a.attnum = ANY (f.conkey)
  ) s ON f.confdeltype IN ('c', 'n', 'd')
  -- Clones on partitions, of either side, repeat their parent.
  WHERE f.contype = 'f' AND f.conparentid = 0
)
SELECT pg_catalog.json_build_object(
  'tables', coalesce((SELECT j FROM tables), '[]'),
  'foreign_keys', coalesce((SELECT j FROM foreign_keys), '[]')
)::text
