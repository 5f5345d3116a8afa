-- What runs a statement as the owner of a table. Transient: it is created before each use, and dropped or rolled back.
--
-- SET ROLE would be no boundary: code of the owner that the statement calls could RESET ROLE. In a SECURITY DEFINER function
-- the server refuses that. The owner may alter the function, even by code that it runs; so it is created anew each time.
DROP FUNCTION IF EXISTS {function}(pg_catalog.text, pg_catalog.bool);
CREATE FUNCTION {function}(statement pg_catalog.text, answers pg_catalog.bool) RETURNS pg_catalog.text LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $as_owner$
DECLARE
  answer pg_catalog.text;
BEGIN
  IF answers THEN EXECUTE statement INTO answer; ELSE EXECUTE statement; END IF;
  RETURN answer;
END $as_owner$;
