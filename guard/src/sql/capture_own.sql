
DO $own$
DECLARE
  owner CONSTANT name := (SELECT r.rolname FROM pg_catalog.pg_roles r WHERE r.oid = {owner});
  -- Who owns something in a schema must be able to create in it; in this transaction only.
  lent CONSTANT bool := NOT pg_catalog.has_schema_privilege({owner}::pg_catalog.oid, 'pgrail', 'CREATE');
BEGIN
  IF lent THEN EXECUTE pg_catalog.format('GRANT CREATE ON SCHEMA pgrail TO %I', owner); END IF;
  EXECUTE pg_catalog.format('ALTER FUNCTION {function} OWNER TO %I', owner);
  IF lent THEN EXECUTE pg_catalog.format('REVOKE CREATE ON SCHEMA pgrail FROM %I', owner); END IF;
END $own$
