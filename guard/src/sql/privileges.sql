DO $privileges$
DECLARE
  x record;
BEGIN
  -- Replacing a function leaves it with whoever owns it.
  FOR x IN
    SELECT 'TABLE' AS kind, c.oid::pg_catalog.regclass::text AS object, pg_catalog.pg_get_userbyid(n.nspowner) AS owner
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'pgrail' AND c.relkind IN ('r', 'S', 'v') AND c.relowner <> n.nspowner
      -- What is captured, and what captures it, belongs to the owner of the tables.
      AND c.relname !~ '^captured_[a-z_]*[0-9]+$'
      -- The sequence of a column goes with its table.
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype IN ('i', 'a'))
    UNION ALL
    SELECT 'FUNCTION', p.oid::pg_catalog.regprocedure::text, pg_catalog.pg_get_userbyid(n.nspowner)
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'pgrail' AND p.proowner <> n.nspowner AND p.proname !~ '^capture_'
  LOOP
    EXECUTE pg_catalog.format('ALTER %s %s OWNER TO %I', x.kind, x.object, x.owner);
  END LOOP;
  -- Default privileges may have granted on what was just created.
  FOR x IN
    SELECT DISTINCT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind, c.oid::pg_catalog.regclass::text AS object, a.grantee
    FROM pg_catalog.pg_class c, LATERAL pg_catalog.aclexplode(c.relacl) a
    WHERE c.relnamespace = 'pgrail'::pg_catalog.regnamespace AND a.grantee <> c.relowner AND c.relkind IN ('r', 'S', 'v') AND c.relname !~ '^captured_[a-z_]*[0-9]+(_id_seq)?$'
      AND NOT (a.grantee = 0 AND a.privilege_type = 'SELECT' AND (c.relpersistence = 'u' OR c.relkind = 'S'))
    UNION
    SELECT DISTINCT 'FUNCTION', p.oid::pg_catalog.regprocedure::text, a.grantee
    FROM pg_catalog.pg_proc p, LATERAL pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
    WHERE p.pronamespace = 'pgrail'::pg_catalog.regnamespace AND a.grantee <> p.proowner AND a.grantee <> 0
    UNION
    SELECT DISTINCT 'FUNCTION', p.oid::pg_catalog.regprocedure::text, 0::pg_catalog.oid
    FROM pg_catalog.pg_proc p
    WHERE p.pronamespace = 'pgrail'::pg_catalog.regnamespace AND p.proname IN ('{private}')
      AND pg_catalog.has_function_privilege('public', p.oid, 'EXECUTE')
  LOOP
    EXECUTE pg_catalog.format('REVOKE ALL ON %s %s FROM %s', x.kind, x.object,
      CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(x.grantee)) END);
  END LOOP;
  -- What pg_dump locks and reads: whoever could dump the database can do it still.
  FOR x IN
    SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind, c.oid::pg_catalog.regclass::text AS object
    FROM pg_catalog.pg_class c
    WHERE c.relnamespace = 'pgrail'::pg_catalog.regnamespace AND (c.relkind = 'S' OR (c.relkind = 'r' AND c.relpersistence = 'u')) AND c.relname !~ '^captured_[a-z_]*[0-9]+(_id_seq)?$'
      AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(c.relacl) a WHERE a.grantee = 0 AND a.privilege_type = 'SELECT')
  LOOP
    EXECUTE pg_catalog.format('GRANT SELECT ON %s %s TO PUBLIC', x.kind, x.object);
  END LOOP;
  FOR x IN
    SELECT p.oid::pg_catalog.regprocedure::text AS object FROM pg_catalog.pg_proc p
    WHERE p.pronamespace = 'pgrail'::pg_catalog.regnamespace AND p.proname IN ('{public}')
  LOOP
    EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO PUBLIC', x.object);
  END LOOP;
  FOR x IN
    SELECT DISTINCT a.grantee FROM pg_catalog.pg_namespace n, LATERAL pg_catalog.aclexplode(n.nspacl) a
    WHERE n.nspname = 'pgrail' AND a.grantee <> n.nspowner AND a.privilege_type = 'CREATE'
  LOOP
    EXECUTE pg_catalog.format('REVOKE ALL ON SCHEMA pgrail FROM %s', CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(x.grantee)) END);
  END LOOP;
  IF NOT pg_catalog.has_schema_privilege('public', 'pgrail', 'USAGE') THEN
    GRANT USAGE ON SCHEMA pgrail TO PUBLIC;
  END IF;
END $privileges$
