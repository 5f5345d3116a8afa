-- Sizes on disk of the tables in $1, with what they store out of line, without indexes; and of all large objects, as number 0.
SELECT t.oid, COALESCE(pg_catalog.pg_table_size(t.oid), 0) AS bytes FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS t(oid)
UNION ALL
SELECT 0::pg_catalog.oid, pg_catalog.pg_table_size('pg_catalog.pg_largeobject'::pg_catalog.regclass)
