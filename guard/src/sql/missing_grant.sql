-- What the role lacks: on the table $1; or, where it is null, in the database. NULL where nothing obvious is missing.
SELECT CASE
  WHEN $1::pg_catalog.oid IS NOT NULL THEN (
    SELECT pg_catalog.format('GRANT %I TO %I', pg_catalog.pg_get_userbyid(c.relowner), current_user)
    FROM pg_catalog.pg_class c WHERE c.oid = $1 AND NOT pg_catalog.pg_has_role(c.relowner, 'USAGE'))
  WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname = 'pgrail')
    AND NOT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')
  THEN pg_catalog.format('GRANT CREATE ON DATABASE %I TO %I', pg_catalog.current_database(), current_user)
END
