-- The SQLSTATE of an attempt to create an event trigger with a function that does not exist: 42883 where the role has the
-- privilege, 42501 where it has not. One transaction; nothing is created.
DO $probe$
DECLARE
  state text := '00000';
BEGIN
  BEGIN
    CREATE EVENT TRIGGER pgrail_probe ON sql_drop EXECUTE FUNCTION pg_catalog.pgrail_no_such_function();
  EXCEPTION WHEN OTHERS THEN
    state := SQLSTATE;
  END;
  PERFORM pg_catalog.set_config('pgrail.probe', state, true);
END $probe$;
SELECT pg_catalog.current_setting('pgrail.probe')
