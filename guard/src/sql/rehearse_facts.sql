-- Who is connected, and what of pgrail's it may touch. Run with search_path = pg_catalog.
SELECT session_user::text AS login, l.rolsuper AS superuser, pg_is_in_recovery() AS in_recovery, current_setting('track_counts')::bool AS track_counts,
       n.oid IS NOT NULL AS installed,
       coalesce(pg_has_role(n.nspowner, 'USAGE'), false) AS may_prepare,
       -- An older version of pgrail in the database does not know rehearsals.
       EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = n.oid AND p.proname IN ('report', 'verdict') AND p.prosrc LIKE '%pgrail.rehearsal\_%') AS known
FROM pg_roles l LEFT JOIN pg_namespace n ON n.nspname = 'pgrail'
WHERE l.rolname = session_user
