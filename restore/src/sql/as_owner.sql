-- What runs a statement as the role {owner}. Transient: it is in the session's temporary schema, and created before each use.
--
-- SET ROLE would be no boundary: code of the owner that the statement calls could RESET ROLE. In a SECURITY DEFINER function
-- the server refuses that. The owner may alter the function, even by code that it runs; so it is created anew each time.
DROP FUNCTION IF EXISTS pg_temp.pgrail_restore(pg_catalog.text, pg_catalog.bool);
CREATE FUNCTION pg_temp.pgrail_restore(statement pg_catalog.text, answers pg_catalog.bool) RETURNS pg_catalog.text LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $restore$
DECLARE
  answer pg_catalog.text;
BEGIN
  IF answers THEN EXECUTE statement INTO answer; ELSE EXECUTE statement; END IF;
  RETURN answer;
END $restore$;
DO $own$ BEGIN
  EXECUTE pg_catalog.format('ALTER FUNCTION pg_temp.pgrail_restore(pg_catalog.text, pg_catalog.bool) OWNER TO %I',
    (SELECT r.rolname FROM pg_catalog.pg_roles r WHERE r.oid OPERATOR(pg_catalog.=) {owner}::pg_catalog.oid));
END $own$
