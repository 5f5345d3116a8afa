-- What runs a statement as the role {owner}. Transient: it is created before each use and never committed.
--
-- SET ROLE would be no boundary: code of the owner that the statement calls could RESET ROLE. In a SECURITY DEFINER function
-- the server refuses that. The owner may alter the function, even by code that it runs; so it is created anew each time.
DROP FUNCTION IF EXISTS pgrail.undo(text, bool);
CREATE FUNCTION pgrail.undo(statement text, answers bool) RETURNS text LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $undo$
DECLARE
  answer pg_catalog.text;
BEGIN
  IF answers THEN EXECUTE statement INTO answer; ELSE EXECUTE statement; END IF;
  RETURN answer;
END $undo$;
