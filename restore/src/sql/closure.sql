-- The tables $1, and those whose rows a DELETE on them deletes (CASCADE) or unlinks (SET NULL, SET DEFAULT). Only deleted rows
-- have dependent rows.
WITH RECURSIVE closure (rel, deleted) AS (
    SELECT t.rel, true FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS t(rel)
    UNION
    SELECT f.conrelid, f.confdeltype = 'c'
    FROM closure c
    CROSS JOIN LATERAL (SELECT c.rel AS relid UNION SELECT t.relid::pg_catalog.oid FROM pg_catalog.pg_partition_tree(c.rel) t) AS parent
    JOIN pg_catalog.pg_constraint f ON f.confrelid = parent.relid
    WHERE c.deleted AND f.contype = 'f' AND f.conparentid = 0 AND f.confdeltype IN ('c', 'n', 'd')
)
SELECT DISTINCT rel FROM closure
