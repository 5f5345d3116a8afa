DO $own$ BEGIN
  EXECUTE pg_catalog.format('ALTER FUNCTION {function} OWNER TO %I',
    (SELECT r.rolname FROM pg_catalog.pg_roles r WHERE r.oid OPERATOR(pg_catalog.=) {owner}::pg_catalog.oid));
END $own$
