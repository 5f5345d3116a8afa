CREATE OR REPLACE FUNCTION pgrail.{function} RETURNS pg_catalog.trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET intervalstyle = postgres SET extra_float_digits = 3 SET bytea_output = hex AS $capture$
#variable_conflict use_variable
-- This runs as the owner of the tables, {owner}, and writes to tables of that owner: whatever the owner does to those, or
-- to the types of columns, has no other rights than the owner has.
--
-- It still evaluates nothing that another role can define, such as the owner of a type. `OLD::text` and `to_json(OLD)` look
-- up casts, and would call their functions. record_out and record_image_ne look up no cast and no operator: they call
-- the output functions of the types, and compare bytes. Output functions are C, and only a superuser can define them; for
-- domains, enums, arrays, ranges and composite types they are the server's own.
DECLARE
  most CONSTANT bigint := {max_rows};
  me xid8;
  since CONSTANT timestamptz := transaction_timestamp();
  many bool;
  why text;
  taken bigint;
  changes text;
  changed smallint[];
BEGIN
  IF current_setting('session_replication_role') = 'replica'
     AND EXISTS (SELECT FROM pg_stat_get_subscription(NULL) s WHERE s.pid = pg_backend_pid()) THEN
    RETURN NULL;
  END IF;
  -- A cascade fires this for every table that it could reach. This is all that it costs where no row was deleted.
  IF TG_LEVEL = 'STATEMENT' THEN
    IF NOT EXISTS (SELECT FROM gone) THEN RETURN NULL; END IF;
  END IF;
  -- It would be published, and a subscriber without this table stops applying.
  IF EXISTS (SELECT FROM pg_publication p WHERE p.puballtables) THEN RETURN NULL; END IF;
  me := pg_current_xact_id();
  -- By the server's own counter, which may also include what the session did before: if so, the rows are counted below.
  many := pg_stat_get_xact_tuples_inserted('pgrail.captured_{owner}'::regclass) > most;
  IF many THEN
    SELECT t.incomplete INTO why FROM pgrail.captured_transaction_{owner} t WHERE t.xid = me AND t.began = since AND t.guard = {guard};
    IF why IS NOT NULL THEN RETURN NULL; END IF;
  END IF;

  IF TG_LEVEL = 'STATEMENT' THEN
    INSERT INTO pgrail.captured_{owner} (xid, began, guard, rel, label, effect, attributes, fields, before)
    SELECT me, since, {guard}, TG_RELID, format('%s.%s', TG_TABLE_SCHEMA, TG_TABLE_NAME), 'd', (SELECT c.relnatts FROM pg_class c WHERE c.oid = TG_RELID),
           (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = TG_RELID AND a.attnum > 0 AND NOT a.attisdropped), textin(record_out(ROW(gone.*)))
    FROM gone LIMIT most + 1;
    GET DIAGNOSTICS taken = ROW_COUNT;
    IF taken = 0 THEN RETURN NULL; END IF;
    -- Rows of inheritance children lack the columns that the parent does not have.
    IF EXISTS (SELECT FROM pg_class c WHERE c.oid = TG_RELID AND c.relkind = 'r' AND c.relhassubclass)
       AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = TG_RELID) THEN
      why := format('rows of inheritance children of %s were deleted before pgrail had checked them', TG_RELID::regclass);
    END IF;
  ELSIF TG_OP = 'DELETE' THEN
    INSERT INTO pgrail.captured_{owner} (xid, began, guard, rel, label, effect, attributes, fields, before)
    SELECT me, since, {guard}, TG_RELID, format('%s.%s', TG_TABLE_SCHEMA, TG_TABLE_NAME), 'd', (SELECT c.relnatts FROM pg_class c WHERE c.oid = TG_RELID),
           (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = TG_RELID AND a.attnum > 0 AND NOT a.attisdropped), textin(record_out(OLD));
    taken := 1;
  ELSE
    -- Any nested update comes here; only a foreign key that was set to NULL or its default is captured.
    SELECT string_agg(format('CASE WHEN record_image_ne(ROW(($1).%1$I), ROW(($2).%1$I))%2$s THEN %3$s END', a.attname,
                             CASE WHEN NOT k.to_default THEN format(' AND num_nulls(($2).%I) = 1', a.attname) END, a.attnum), ', ' ORDER BY a.attnum) INTO changes
    FROM (SELECT k.attnum, bool_or(f.confdeltype = 'd') AS to_default FROM pg_constraint f, unnest(coalesce(f.confdelsetcols, f.conkey)) k(attnum)
          WHERE f.conrelid = TG_RELID AND f.contype = 'f' AND f.confdeltype IN ('n', 'd') GROUP BY k.attnum) k
    JOIN pg_attribute a ON a.attrelid = TG_RELID AND a.attnum = k.attnum;
    EXECUTE format('SELECT nullif(array_remove(ARRAY[%s]::int2[], NULL), ''{}'')', changes) INTO changed USING OLD, NEW;
    IF changed IS NULL THEN RETURN NULL; END IF;
    INSERT INTO pgrail.captured_{owner} (xid, began, guard, rel, label, effect, attributes, fields, keys, before, after)
    SELECT me, since, {guard}, TG_RELID, format('%s.%s', TG_TABLE_SCHEMA, TG_TABLE_NAME), 'u', (SELECT c.relnatts FROM pg_class c WHERE c.oid = TG_RELID),
           (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = TG_RELID AND a.attnum > 0 AND NOT a.attisdropped), changed, textin(record_out(OLD)), textin(record_out(NEW));
    taken := 1;
  END IF;

  INSERT INTO pgrail.captured_transaction_{owner} (xid, began, guard, guard_name, kept_until, login, role, application, client)
  VALUES (me, since, {guard}, {name}, since + {retention} * interval '1 second', session_user,
          CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END, current_setting('application_name'), inet_client_addr())
  ON CONFLICT DO NOTHING;
  IF many OR taken > most OR pg_stat_get_xact_tuples_inserted('pgrail.captured_{owner}'::regclass) > most THEN
    SELECT count(*) INTO taken FROM (SELECT FROM pgrail.captured_{owner} c WHERE c.xid = me AND c.began = since AND c.guard = {guard} LIMIT most + 1) x;
    IF taken > most THEN
      why := format('it deleted more than %s rows (capture.maxRows)', most);
    END IF;
  ELSIF why IS NULL AND random() * most < 4 * taken AND current_setting('transaction_isolation') = 'read committed' THEN
    -- The operator does this every minute. While it does not run, the disk must not fill up: on average once in a quarter
    -- of what may be kept, since it costs as much as that many rows. Only where it cannot fail because another session did the same.
    PERFORM pgrail.prune_captured_rows({owner}, jsonb_build_array(jsonb_build_object('name', {name}, 'retention', {retention}, 'max_rows', most)), {name}, 1000);
  END IF;
  IF why IS NOT NULL THEN
    UPDATE pgrail.captured_transaction_{owner} t SET incomplete = why WHERE t.xid = me AND t.began = since AND t.guard = {guard};
    DELETE FROM pgrail.captured_{owner} c WHERE c.xid = me AND c.began = since AND c.guard = {guard};
  END IF;
  RETURN NULL;
END $capture$;
