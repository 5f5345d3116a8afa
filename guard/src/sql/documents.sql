-- The functions that read and write the configuration and the record of what was installed.

-- A document: configuration that is the constant of a function. Here and below, what runs once in a transaction is PL/pgSQL:
-- a function in SQL is planned at each call.
CREATE OR REPLACE FUNCTION pgrail.document(p_name text) RETURNS jsonb
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (SELECT split_part(p.prosrc, '$json$', 2)::jsonb FROM pg_proc p
          WHERE p.proname = ('config_' || p_name)::name AND p.pronamespace = 'pgrail'::regnamespace AND p.pronargs = 0);
END $$;

-- Writes a document, or drops it where there is no content. What is the same already is not written.
CREATE OR REPLACE FUNCTION pgrail.write_document(p_name text, p_content jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF p_content IS NULL THEN
    EXECUTE format('DROP FUNCTION IF EXISTS pgrail.%I()', 'config_' || p_name);
  ELSIF pgrail.document(p_name) IS DISTINCT FROM p_content THEN
    -- The name of a table could hold what ends the constant.
    EXECUTE format('CREATE OR REPLACE FUNCTION pgrail.%I() RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE AS %L', 'config_' || p_name,
      'SELECT $json$' || replace(p_content::text, '$', chr(92) || 'u0024') || '$json$::pg_catalog.jsonb');
  END IF;
END $$;

-- Makes the configuration exactly what is given.
CREATE OR REPLACE FUNCTION pgrail.write_configuration(p_configuration jsonb, p_about jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  usage_table CONSTANT oid := 'pgrail.usage'::regclass;
  allowances CONSTANT bool := coalesce(p_configuration -> 'allowances', '[]') <> '[]';
  known CONSTANT jsonb := coalesce(pgrail.document('allowances'), '[]');
  x record;
BEGIN
  PERFORM pgrail.write_document('guards', p_configuration -> 'guards');
  PERFORM pgrail.write_document('relations', (
    SELECT coalesce(jsonb_agg(r.value || jsonb_build_object('name', (r.value ->> 'rel')::oid::regclass) ORDER BY (r.value ->> 'id')::int), '[]')
    FROM jsonb_array_elements(p_configuration -> 'relations') r));
  -- Roots, with everything that a decision about them needs.
  FOR x IN
    WITH assignments AS (
      SELECT (a.value ->> 'root')::int AS root, jsonb_agg(a.value || jsonb_build_object('guard_name', g.value -> 'name', 'enforce', g.value -> 'enforce') ORDER BY (a.value ->> 'id')::int) AS j
      FROM jsonb_array_elements(p_configuration -> 'assignments') a JOIN jsonb_array_elements(p_configuration -> 'guards') g ON g.value -> 'id' = a.value -> 'guard'
      GROUP BY 1
    ), members AS (
      SELECT (m.value ->> 'root')::int AS root, jsonb_agg(m.value || jsonb_build_object('name', (m.value ->> 'rel')::oid::regclass) ORDER BY (m.value ->> 'rel')::oid, m.value ->> 'effect') AS j,
        hashtextextended(string_agg(concat(m.value ->> 'effect', c.oid), ',' ORDER BY m.value ->> 'effect', c.oid), 0) & 16777215 AS tables, bool_or(c.relkind = 'p') AS partitioned, array_agg(c.oid) FILTER (WHERE m.value ->> 'effect' = 'r') AS own,
        array_agg(c.oid) FILTER (WHERE m.value ->> 'effect' = 'd') AS deleted, array_agg(c.oid) FILTER (WHERE m.value ->> 'effect' = 'u') AS updated
      FROM jsonb_array_elements(p_configuration -> 'members') m LEFT JOIN pg_class c ON c.oid = (m.value ->> 'rel')::oid GROUP BY 1
    )
    SELECT a.root, jsonb_build_object('usage_table', usage_table::int8, 'rel', r.value -> 'rel', 'name', (r.value ->> 'rel')::oid::regclass, 'above', r.value -> 'above',
      'assignments', a.j, 'members', coalesce(m.j, '[]'), 'allowances', allowances)
      -- Without partitions, the tables that are counted are always these.
      || CASE WHEN m.partitioned THEN '{}' ELSE jsonb_build_object('counted', jsonb_build_object('r', coalesce(m.own, '{}')::text, 'u', coalesce(m.updated, '{}')::text,
           'd', ARRAY(SELECT unnest(m.deleted) EXCEPT SELECT unnest(m.own))::text, 'tables', m.tables)) END AS content
    FROM assignments a JOIN jsonb_array_elements(p_configuration -> 'relations') r ON (r.value ->> 'id')::int = a.root LEFT JOIN members m USING (root)
  LOOP
    PERFORM pgrail.write_document('root_' || x.root, x.content);
  END LOOP;
  FOR x IN SELECT d.name FROM pgrail.documents d
           WHERE d.name LIKE 'root\_%' AND substr(d.name, 6)::int NOT IN (SELECT (a.value ->> 'root')::int FROM jsonb_array_elements(p_configuration -> 'assignments') a) LOOP
    PERFORM pgrail.write_document(x.name, NULL);
  END LOOP;
  -- A total is given once, with the allowance: one that lost its row is used up.
  PERFORM pgrail.write_document('allowances', p_configuration -> 'allowances');
  INSERT INTO pgrail.budget (allowance, used)
    SELECT (w.value ->> 'id')::int, 0 FROM jsonb_array_elements(p_configuration -> 'allowances') w
    WHERE w.value ->> 'total_rows' IS NOT NULL AND NOT EXISTS (SELECT FROM jsonb_array_elements(known) k WHERE k.value -> 'id' = w.value -> 'id' AND k.value ->> 'total_rows' IS NOT NULL)
    ON CONFLICT (allowance) DO UPDATE SET used = 0;
  DELETE FROM pgrail.budget b WHERE b.allowance NOT IN (SELECT (w.value ->> 'id')::int FROM jsonb_array_elements(p_configuration -> 'allowances') w);
  DELETE FROM pgrail.usage u WHERE u.allowance NOT IN (SELECT (w.value ->> 'id')::int FROM jsonb_array_elements(p_configuration -> 'allowances') w);
  IF pgrail.document('counters') IS NULL THEN
    PERFORM pgrail.write_document('counters', jsonb_build_object('server_start', pg_postmaster_start_time(), 'seen', '{}'::jsonb, 'skipped', '{}'::jsonb));
  END IF;
  -- None yet; where an earlier version installed, it is not known which.
  IF pgrail.document('install') IS NULL THEN PERFORM pgrail.write_document('event_triggers', '[]'); END IF;
  PERFORM pgrail.write_document('install', p_about || jsonb_build_object('owner', p_configuration -> 'owner', 'usage_table', usage_table::int8, 'database', current_database(),
    'server_version', current_setting('server_version_num')::int, 'installed_at', coalesce(pgrail.document('install') -> 'installed_at', to_jsonb(now())),
    'drop_partition', EXISTS (SELECT FROM jsonb_array_elements(p_configuration -> 'assignments') a WHERE (a.value ->> 'protect_drop_partition')::bool),
    'drop_column', EXISTS (SELECT FROM jsonb_array_elements(p_configuration -> 'assignments') a WHERE (a.value ->> 'protect_drop_column')::bool)));
END $$;

-- Records the triggers of a table that were just created, and forgets those that are not kept. Returns a row for each
-- that was found.
CREATE OR REPLACE FUNCTION pgrail.record_triggers(p jsonb) RETURNS SETOF name
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  table_id CONSTANT oid := (p ->> 'rel')::oid;
  known CONSTANT jsonb := coalesce(pgrail.document('triggers_' || table_id) -> 'triggers', '{}');
  recorded jsonb;
  made record;
BEGIN
  SELECT coalesce(jsonb_object_agg(k.key, k.value), '{}') INTO recorded FROM jsonb_each(known) k WHERE p -> 'kept' ? k.key;
  FOR made IN
    SELECT t.tgname, w.source, md5(concat_ws('|', t.tgtype, t.tgfoid::int8, t.tgqual, t.tgattr, t.tgargs, t.tgconstraint::int8)) AS fingerprint
    FROM jsonb_to_recordset(p -> 'created') AS w(name name, source text) JOIN pg_trigger t ON t.tgrelid = table_id AND t.tgname = w.name
  LOOP
    recorded := recorded || jsonb_build_object(made.tgname, jsonb_build_array(made.source, made.fingerprint));
    RETURN NEXT made.tgname;
  END LOOP;
  PERFORM pgrail.write_document('triggers_' || table_id, CASE WHEN recorded <> '{}' THEN jsonb_build_object('rel', table_id::int8, 'triggers', recorded) END);
END $$;

-- The same for functions; where `kept` is null, none is forgotten.
CREATE OR REPLACE FUNCTION pgrail.record_routines(p jsonb) RETURNS SETOF name
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  recorded jsonb := coalesce(pgrail.document('routines'), '{}');
  made jsonb;
BEGIN
  IF p ->> 'kept' IS NOT NULL THEN
    SELECT coalesce(jsonb_object_agg(k.key, k.value), '{}') INTO recorded FROM jsonb_each(recorded) k JOIN jsonb_array_elements_text(p -> 'kept') kept ON kept = k.key;
  END IF;
  SELECT coalesce(jsonb_object_agg(p.proname, jsonb_build_array(w.source, md5(concat_ws('|', p.prosrc, p.provolatile, p.prosecdef, p.proconfig::text, p.proowner::int8, p.proacl::text, p.prolang::int8, p.proargtypes::text)))), '{}')
  INTO made
  FROM jsonb_to_recordset(p -> 'created') AS w(name name, source text) JOIN pg_proc p ON p.proname = w.name AND p.pronamespace = 'pgrail'::regnamespace;
  PERFORM pgrail.write_document('routines', recorded || made);
  RETURN QUERY SELECT k.key::name FROM jsonb_each(made) k;
END $$;

