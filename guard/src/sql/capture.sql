CREATE OR REPLACE FUNCTION pgrail.{function}() RETURNS pg_catalog.trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET intervalstyle = postgres SET extra_float_digits = 3 SET bytea_output = hex AS $capture$
#variable_conflict use_variable
DECLARE
  most CONSTANT bigint := {max_rows};
  me CONSTANT xid8 := pg_current_xact_id();
  since CONSTANT timestamptz := transaction_timestamp();
  many bool;
  why text;
  taken bigint;
  old_row json;
  new_row json;
  changed smallint[];
BEGIN
  IF current_setting('session_replication_role') = 'replica' THEN
    IF pgrail.is_apply_worker() THEN RETURN NULL; END IF;
  END IF;
  -- By the server's own counter, which may also hold what the session did before: then it is looked at closely.
  many := pg_stat_get_xact_tuples_inserted('pgrail.captured'::regclass) > most;
  IF many THEN
    SELECT t.incomplete INTO why FROM pgrail.captured_transaction t WHERE t.xid = me AND t.began = since AND t.guard = {guard};
    IF why IS NOT NULL THEN RETURN NULL; END IF;
  END IF;

  IF TG_LEVEL = 'STATEMENT' THEN
    INSERT INTO pgrail.captured (xid, began, guard, rel, label, effect, attributes, fields, before)
    SELECT me, since, {guard}, TG_RELID, format('%s.%s', TG_TABLE_SCHEMA, TG_TABLE_NAME), 'd', (SELECT c.relnatts FROM pg_class c WHERE c.oid = TG_RELID),
           (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = TG_RELID AND a.attnum > 0 AND NOT a.attisdropped), ROW(gone.*)::text
    FROM gone LIMIT most + 1;
    GET DIAGNOSTICS taken = ROW_COUNT;
    IF taken = 0 THEN RETURN NULL; END IF;
    -- Rows of children come without what the parent does not have.
    IF EXISTS (SELECT FROM pg_class c WHERE c.oid = TG_RELID AND c.relkind = 'r' AND c.relhassubclass)
       AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = TG_RELID) THEN
      why := format('rows of inheritance children of %s were deleted before pgrail knew of them', TG_RELID::regclass);
    END IF;
  ELSIF TG_OP = 'DELETE' THEN
    INSERT INTO pgrail.captured (xid, began, guard, rel, label, effect, attributes, fields, before)
    SELECT me, since, {guard}, TG_RELID, format('%s.%s', TG_TABLE_SCHEMA, TG_TABLE_NAME), 'd', (SELECT c.relnatts FROM pg_class c WHERE c.oid = TG_RELID),
           (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = TG_RELID AND a.attnum > 0 AND NOT a.attisdropped), OLD::text;
    taken := 1;
  ELSE
    -- Any nested update comes here; only a foreign key that was let go of is kept.
    old_row := to_json(OLD);
    new_row := to_json(NEW);
    SELECT array_agg(DISTINCT a.attnum ORDER BY a.attnum) INTO changed
    FROM pg_constraint f, unnest(coalesce(f.confdelsetcols, f.conkey)) k(attnum) JOIN pg_attribute a ON a.attrelid = TG_RELID AND a.attnum = k.attnum
    WHERE f.conrelid = TG_RELID AND f.contype = 'f' AND f.confdeltype IN ('n', 'd')
      AND (old_row ->> a.attname) IS DISTINCT FROM (new_row ->> a.attname) AND (f.confdeltype = 'd' OR (new_row ->> a.attname) IS NULL);
    IF changed IS NULL THEN RETURN NULL; END IF;
    INSERT INTO pgrail.captured (xid, began, guard, rel, label, effect, attributes, fields, keys, before, after)
    SELECT me, since, {guard}, TG_RELID, format('%s.%s', TG_TABLE_SCHEMA, TG_TABLE_NAME), 'u', (SELECT c.relnatts FROM pg_class c WHERE c.oid = TG_RELID),
           (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = TG_RELID AND a.attnum > 0 AND NOT a.attisdropped), changed, OLD::text, NEW::text;
    taken := 1;
  END IF;

  INSERT INTO pgrail.captured_transaction (xid, began, guard, guard_name, kept_until, login, role, application, client)
  VALUES (me, since, {guard}, {name}, since + {retention} * interval '1 second', session_user,
          CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END, current_setting('application_name'), inet_client_addr())
  ON CONFLICT DO NOTHING;
  IF many OR taken > most OR pg_stat_get_xact_tuples_inserted('pgrail.captured'::regclass) > most THEN
    SELECT count(*) INTO taken FROM (SELECT FROM pgrail.captured c WHERE c.xid = me AND c.began = since AND c.guard = {guard} LIMIT most + 1) x;
    IF taken > most THEN
      why := format('it took more than %s rows (capture.maxRows)', most);
    END IF;
  ELSIF why IS NULL AND random() * most < 4 * taken AND current_setting('transaction_isolation') = 'read committed' THEN
    -- The operator does this every minute. While it is away, the disk must not fill up: on average once in a quarter of
    -- what may be kept, since it costs as much as that many rows. Not in a transaction that would fail because somebody else did the same.
    PERFORM pgrail.prune_captured({name}, 1000);
  END IF;
  IF why IS NOT NULL THEN
    UPDATE pgrail.captured_transaction t SET incomplete = why WHERE t.xid = me AND t.began = since AND t.guard = {guard};
    DELETE FROM pgrail.captured c WHERE c.xid = me AND c.began = since AND c.guard = {guard};
  END IF;
  RETURN NULL;
END $capture$
