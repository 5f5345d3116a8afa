-- Triggers of the application on the tables $1: what they do outside the database is not rolled back. With
-- search_path = pg_catalog.
SELECT format('%s.%s', n.nspname, c.relname) AS "table", t.tgname AS name, p.oid::regprocedure::text AS function
FROM pg_trigger t
JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace f ON f.oid = p.pronamespace
WHERE t.tgrelid = ANY ($1) AND NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgenabled <> 'D' AND f.nspname <> 'pgrail'
ORDER BY 1, 2
