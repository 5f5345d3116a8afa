-- The functions that do not depend on which tables are guarded. Replaced as a whole with the schema version.

-- No trigger ever gets to its function: WHEN decides.
CREATE OR REPLACE FUNCTION pgrail.noop() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN NULL; END $$;

-- One root with its assignments and its closure. In a database that was restored from a dump, tables have other numbers:
-- there they are found by name.
CREATE OR REPLACE FUNCTION pgrail.root(p_root int) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  d jsonb := pgrail.document('root_' || p_root);
BEGIN
  IF (d ->> 'usage_table')::oid IS DISTINCT FROM to_regclass('pgrail.usage')::oid THEN
    d := d - 'counted' || jsonb_build_object('rel', coalesce(to_regclass(d ->> 'name')::oid, 0)::int8, 'members', (
      SELECT coalesce(jsonb_agg(m.value || jsonb_build_object('rel', coalesce(to_regclass(m.value ->> 'name')::oid, 0)::int8)), '[]') FROM jsonb_array_elements(d -> 'members') m));
  END IF;
  RETURN d;
END $$;

-- Whether this session is the server's own worker that applies a subscription: a guard must not stop a subscriber.
-- The setting alone proves nothing, since roles may be allowed to set it.
CREATE OR REPLACE FUNCTION pgrail.is_apply_worker() RETURNS bool
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF current_setting('session_replication_role') <> 'replica' THEN RETURN false; END IF;
  RETURN EXISTS (SELECT FROM pg_stat_get_subscription(NULL) s WHERE s.pid = pg_backend_pid());
END $$;

-- What this transaction has done so far to a root and its closure, by the server's own counters.
CREATE OR REPLACE FUNCTION pgrail.counts(p_root jsonb, OUT deleted bigint, OUT inserted bigint, OUT updated bigint, OUT cascaded bigint, OUT nulled bigint, OUT partitioned bool)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  counted CONSTANT jsonb := p_root -> 'counted';
  t oid;
BEGIN
  IF counted IS NOT NULL THEN
    deleted := 0;
    inserted := 0;
    updated := 0;
    cascaded := 0;
    nulled := 0;
    partitioned := false;
    FOREACH t IN ARRAY (counted ->> 'r')::oid[] LOOP
      deleted := deleted + pg_stat_get_xact_tuples_deleted(t);
      inserted := inserted + pg_stat_get_xact_tuples_inserted(t);
      updated := updated + pg_stat_get_xact_tuples_updated(t);
    END LOOP;
    FOREACH t IN ARRAY (counted ->> 'd')::oid[] LOOP
      cascaded := cascaded + pg_stat_get_xact_tuples_deleted(t);
    END LOOP;
    FOREACH t IN ARRAY (counted ->> 'u')::oid[] LOOP
      nulled := nulled + pg_stat_get_xact_tuples_updated(t);
    END LOOP;
    RETURN;
  END IF;
  WITH leaves AS (
    SELECT m.effect, l.oid, bool_or(l.oid <> m.rel) AS is_leaf
    FROM jsonb_to_recordset(p_root -> 'members') AS m(rel oid, effect "char"),
         LATERAL (SELECT m.rel UNION SELECT t.relid::oid FROM pg_partition_tree(m.rel::regclass) t WHERE t.isleaf) l(oid)
    GROUP BY m.effect, l.oid
  )
  SELECT coalesce(sum(pg_stat_get_xact_tuples_deleted(oid)) FILTER (WHERE effect = 'r'), 0)::bigint,
         coalesce(sum(pg_stat_get_xact_tuples_inserted(oid)) FILTER (WHERE effect = 'r'), 0)::bigint,
         coalesce(sum(pg_stat_get_xact_tuples_updated(oid)) FILTER (WHERE effect = 'r'), 0)::bigint,
         coalesce(sum(pg_stat_get_xact_tuples_deleted(oid)) FILTER (WHERE effect = 'd' AND oid NOT IN (SELECT r.oid FROM leaves r WHERE r.effect = 'r')), 0)::bigint,
         coalesce(sum(pg_stat_get_xact_tuples_updated(oid)) FILTER (WHERE effect = 'u'), 0)::bigint,
         coalesce(bool_or(is_leaf) FILTER (WHERE effect = 'r'), false)
  INTO deleted, inserted, updated, cascaded, nulled, partitioned
  FROM leaves;
END $$;

-- Counts an attempt, which survives the abort; then fails the statement, or warns once per client statement and allows
-- it. p_about: assignment, enforce, guard, code, message, detail, hint, schema, table. One argument, and called by an
-- expression without a query: all else would be in the CONTEXT that the client gets.
CREATE OR REPLACE FUNCTION pgrail.report(p_about jsonb) RETURNS bool
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  enforce CONSTANT bool := p_about ->> 'enforce';
  key CONSTANT text := encode(timestamptz_send(statement_timestamp()), 'hex');
  setting CONSTANT text := 'pgrail.warned_' || (p_about ->> 'assignment');
  message CONSTANT text := 'pgrail: ' || (p_about ->> 'message');
  detail CONSTANT text := format('%s Guard: %s.', p_about ->> 'detail', p_about ->> 'guard');
  hint CONSTANT text := p_about ->> 'hint';
  schema_name CONSTANT text := coalesce(p_about ->> 'schema', '');
  table_name CONSTANT text := coalesce(p_about ->> 'table', '');
  code CONSTANT text := p_about ->> 'code';
BEGIN
  IF NOT enforce AND current_setting(setting, true) = key THEN RETURN false; END IF;
  -- A rehearsal is no attempt: this function is there only in a transaction of pgrail's role that is rolled back. And a
  -- counter that was dropped or is used up must not change what the client gets.
  IF to_regproc('pgrail.rehearsal_' || pg_backend_pid()) IS NULL THEN
    BEGIN
      PERFORM nextval(format('pgrail.blocked_%s', p_about ->> 'assignment')::regclass);
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
  END IF;
  IF enforce THEN
    RAISE EXCEPTION USING ERRCODE = code, MESSAGE = message, DETAIL = detail, HINT = hint, SCHEMA = schema_name, TABLE = table_name;
  END IF;
  PERFORM set_config(setting, key, true);
  RAISE WARNING USING ERRCODE = '01PGR', MESSAGE = message || ' (not stopped: the guard only warns)', DETAIL = detail, HINT = hint, SCHEMA = schema_name, TABLE = table_name;
  RETURN false;
END $$;

-- Schema and name of a table, for `report`; of a dropped table, nothing.
CREATE OR REPLACE FUNCTION pgrail.named(p_rel oid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce((SELECT jsonb_build_object('schema', n.nspname, 'table', c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = p_rel), '{}')
$$;

-- Notes where the counters of a root stand before the first statement of this transaction on it. Where the client's
-- statement began a transaction, all that is there is the transaction's: then only updates before the first delete are
-- not its cascade's. In a procedure that has committed, what was there before is an earlier transaction's. So it is while the
-- transaction has no number, since it has changed no row then: after COMMIT AND CHAIN, or COMMIT and BEGIN in one message, the
-- counters still contain the transaction before. The first note stands, and only this function writes it.
CREATE OR REPLACE FUNCTION pgrail.note_baseline(p_root int) RETURNS bool
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  follows_another CONSTANT bool := transaction_timestamp() > statement_timestamp() OR pg_current_xact_id_if_assigned() IS NULL;
  root jsonb;
  n record;
BEGIN
  IF EXISTS (SELECT FROM pgrail.baseline b WHERE b.root = p_root AND b.xid = pg_current_xact_id_if_assigned()) THEN RETURN false; END IF;
  root := pgrail.root(p_root);
  IF root IS NULL THEN RETURN false; END IF;
  n := pgrail.counts(root);
  IF NOT follows_another AND (n.deleted > 0 OR n.nulled = 0) THEN RETURN false; END IF;
  DELETE FROM pgrail.baseline b WHERE b.backend = pg_backend_pid() AND b.xid <> pg_current_xact_id();
  INSERT INTO pgrail.baseline (root, xid, backend, deleted, cascaded, updated)
    VALUES (p_root, pg_current_xact_id(), pg_backend_pid(), CASE WHEN follows_another THEN n.deleted ELSE 0 END, CASE WHEN follows_another THEN n.cascaded ELSE 0 END, n.nulled);
  -- Only says that counters are not to be taken as they are; see `removing_<root>`.
  PERFORM set_config('pgrail.baseline', 'noted', true);
  RETURN false;
END $$;

-- Where the updates of a root stood when this client statement first came to it. The note is the value of a sequence in
-- this session: every role can read it, only pgrail's can set it. Its low half is the count, its high half the statement.
CREATE OR REPLACE FUNCTION pgrail.updated_before(p_root int) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  note bigint;
BEGIN
  note := currval(('pgrail.updated_' || p_root)::regclass);
  RETURN CASE WHEN (note >> 31) & 2147483647 = (extract(epoch FROM statement_timestamp()) * 1000000)::bigint & 2147483647 THEN note & 2147483647 ELSE 0 END;
EXCEPTION WHEN object_not_in_prerequisite_state OR undefined_table THEN
  RETURN 0;
END $$;

-- Where this transaction and this client statement stand with a root, by the counters. Baselines of the transaction are in
-- a table that only pgrail writes. Those of the statement are what the session noted about itself (see pgrail.note_<root>):
-- a forged note can lift the limits of a statement, as sending several statements does, but not those of the transaction.
CREATE OR REPLACE FUNCTION pgrail.measure(p_id int, p_root jsonb, OUT deleted bigint, OUT cascaded bigint, OUT statement_deleted bigint, OUT statement_cascaded bigint,
                                          OUT rows_counted bigint, OUT cascade_counted bigint, OUT updated bigint, OUT raw_deleted bigint)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  n record;
  key text := encode(timestamptz_send(statement_timestamp()), 'hex');
  note text := nullif(current_setting('pgrail.note_' || p_id, true), '');
  noted bigint[] := '{0,0,0,0}';
  of_this_statement bool := coalesce(left(note, 16) = key, false);
  before record;
  moved bigint := 0;
BEGIN
  n := pgrail.counts(p_root);
  updated := n.updated;
  raw_deleted := n.deleted;
  -- As the gate counts, see there.
  rows_counted := n.deleted;
  cascade_counted := n.cascaded + n.nulled;
  IF note ~ '^[0-9a-f]{16}(:[0-9]{1,18}){4}$' THEN noted := (string_to_array(note, ':'))[2:5]::bigint[]; END IF;
  SELECT coalesce(max(b.deleted), 0) AS deleted, coalesce(max(b.cascaded), 0) AS cascaded, coalesce(max(b.updated), 0) AS updated INTO before
    FROM pgrail.baseline b WHERE b.root = p_id AND b.xid = pg_current_xact_id_if_assigned();
  -- An UPDATE that moves a row to another partition deletes it here and inserts it there. Without a DELETE in this
  -- client statement, as many deletes as inserts may be moves; with one, only those that had happened when it began.
  -- To pass a delete off as a move takes a forged note and as many inserted rows.
  IF n.partitioned THEN
    moved := CASE WHEN of_this_statement THEN least(noted[1], noted[4], n.inserted, n.deleted) ELSE least(n.inserted, n.deleted) END;
  END IF;
  deleted := n.deleted - greatest(moved, before.deleted);
  -- Rows updated before the first delete on the root were not nulled by it.
  cascaded := n.cascaded - before.cascaded + greatest(n.nulled - before.updated, 0);
  -- Per statement: against what was noted when this client statement first came to the root. A note of another
  -- statement: this one did not delete from the root. None at all: a partition that has no triggers of its own yet.
  statement_deleted := 0;
  statement_cascaded := 0;
  IF of_this_statement THEN
    statement_deleted := n.deleted - noted[1];
    statement_cascaded := cascaded - (noted[2] - before.cascaded);
  ELSIF note IS NULL THEN
    statement_deleted := deleted;
    statement_cascaded := cascaded;
  END IF;
END $$;

-- How many rows each limit still allows: rows of the root, rows of other tables, rows in all. Negative: passed. NULL: not
-- limited.
CREATE OR REPLACE FUNCTION pgrail.remaining(p_rows bigint, p_cascade_rows bigint, p_transaction_rows bigint,
                                            p_deleted bigint, p_cascaded bigint, p_statement_deleted bigint, p_statement_cascaded bigint,
                                            OUT rows bigint, OUT cascade_rows bigint, OUT transaction_rows bigint)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  rows := p_rows - CASE WHEN p_transaction_rows IS NULL THEN p_deleted ELSE p_statement_deleted END;
  cascade_rows := p_cascade_rows - CASE WHEN p_transaction_rows IS NULL THEN p_cascaded ELSE p_statement_cascaded END;
  transaction_rows := p_transaction_rows - p_deleted - p_cascaded;
END $$;

-- What a statement would do that these limits forbid, from what `remaining` returned; NULL where they are kept.
CREATE OR REPLACE FUNCTION pgrail.violation(p_rows bigint, p_cascade_rows bigint, p_transaction_rows bigint,
                                            p_remaining_rows bigint, p_remaining_cascade_rows bigint, p_remaining_transaction_rows bigint) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  what CONSTANT text := CASE WHEN p_transaction_rows IS NULL THEN 'transaction' ELSE 'statement' END;
BEGIN
  IF p_remaining_transaction_rows < 0 THEN
    RETURN format('remove more than %s rows in one transaction (maxTransactionRows)', p_transaction_rows);
  ELSIF p_remaining_rows < 0 THEN
    RETURN format('remove more than %s of its rows in one %s (maxRows)', p_rows, what);
  ELSIF p_remaining_cascade_rows < 0 THEN
    RETURN format('take more than %s rows of other tables in one %s (maxCascadeRows)', p_cascade_rows, what);
  END IF;
  RETURN NULL;
END $$;

-- The allowances of this login role that hold now, by the server's clock, for a guard on a root.
CREATE OR REPLACE FUNCTION pgrail.allowances_for(p_guard int, p_root int, p_operation text) RETURNS SETOF pgrail.allowance
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY SELECT w.* FROM pgrail.allowance w
    WHERE p_guard = ANY (w.guards) AND w.role = session_user AND p_operation = ANY (w.operations)
      AND (w.roots IS NULL OR p_root = ANY (w.roots))
      AND (w.not_before IS NULL OR clock_timestamp() >= w.not_before) AND (w.not_after IS NULL OR clock_timestamp() < w.not_after)
    ORDER BY w.id;
END $$;

-- Charges an allowance: rows so far in this transaction, and how many it may come to before it is charged again. Returns
-- that number: what was wanted; or as much of it as the total of the allowance still has; or NULL, if that is less than is
-- there already.
CREATE OR REPLACE FUNCTION pgrail.charge(p_allowance int, p_total_rows bigint, p_operation text, p_root int, p_rows bigint, p_leased bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  earlier record;
  wanted bigint;
BEGIN
  SELECT u.leased, u.statement_at INTO earlier FROM pgrail.usage u
    WHERE u.allowance = p_allowance AND u.root = p_root AND u.operation = p_operation AND u.xid = pg_current_xact_id();
  IF earlier.leased >= p_rows AND earlier.statement_at = statement_timestamp() AND p_leased > p_rows THEN RETURN earlier.leased; END IF;
  wanted := greatest(p_leased, p_rows);
  IF p_total_rows IS NOT NULL THEN
    -- Two sessions that use the same total wait for each other: neither can use what the other has used. Without a row, the
    -- server crashed since the allowance was given: nothing is left.
    SELECT least(wanted, p_total_rows - b.used + coalesce(earlier.leased, 0)) INTO wanted FROM pgrail.budget b WHERE b.allowance = p_allowance FOR UPDATE;
    IF wanted IS NULL OR wanted < p_rows THEN RETURN NULL; END IF;
    UPDATE pgrail.budget b SET used = b.used + wanted - coalesce(earlier.leased, 0) WHERE b.allowance = p_allowance;
  END IF;
  INSERT INTO pgrail.usage AS u (allowance, root, operation, xid, rows, leased, statements, statement_at)
    VALUES (p_allowance, p_root, p_operation, pg_current_xact_id(), p_rows, wanted, 1, statement_timestamp())
    ON CONFLICT (allowance, root, operation, xid) DO UPDATE SET rows = greatest(u.rows, excluded.rows), leased = excluded.leased,
      statements = u.statements + (u.statement_at <> excluded.statement_at)::int, statement_at = excluded.statement_at;
  RETURN wanted;
END $$;

-- Whether an allowance covers an operation that is not counted row by row; charges the first that does.
CREATE OR REPLACE FUNCTION pgrail.is_allowed(p_guard int, p_root int, p_operation text, p_rows bigint) RETURNS bool
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  w pgrail.allowance;
  earlier bigint;
BEGIN
  FOR w IN SELECT * FROM pgrail.allowances_for(p_guard, p_root, p_operation) LOOP
    SELECT coalesce(max(u.rows), 0) INTO earlier FROM pgrail.usage u
      WHERE u.allowance = w.id AND u.root = p_root AND u.operation = p_operation AND u.xid = pg_current_xact_id();
    IF pgrail.charge(w.id, w.total_rows, p_operation, p_root, p_rows + earlier, 0) IS NOT NULL THEN RETURN true; END IF;
  END LOOP;
  RETURN false;
END $$;

-- At the end of a transaction: what it could have used and did not is refunded.
CREATE OR REPLACE FUNCTION pgrail.refund() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  u pgrail.usage;
  root jsonb;
  m record;
  used_rows bigint;
BEGIN
  SELECT * INTO u FROM pgrail.usage x WHERE x.allowance = NEW.allowance AND x.root = NEW.root AND x.operation = NEW.operation AND x.xid = NEW.xid;
  IF NOT FOUND OR u.leased = u.rows OR to_regproc('pgrail.measure') IS NULL OR to_regproc('pgrail.root') IS NULL THEN RETURN NULL; END IF;
  root := pgrail.root(u.root);
  m := pgrail.measure(u.root, root);
  used_rows := least(u.leased, greatest(u.rows, CASE u.operation WHEN 'Update' THEN m.updated ELSE m.deleted + m.cascaded END));
  UPDATE pgrail.usage x SET rows = used_rows, leased = used_rows WHERE x.allowance = u.allowance AND x.root = u.root AND x.operation = u.operation AND x.xid = u.xid;
  UPDATE pgrail.budget b SET used = b.used - (u.leased - used_rows) WHERE b.allowance = u.allowance;
  RETURN NULL;
END $$;

-- The exact decision about one row that was deleted or updated: called where a gate cannot decide by its own counters.
-- Raises, or returns false.
-- p_kind 0: a row of the root was deleted; 1: a row of its closure was deleted or nulled; 2: a row of the root was updated.
CREATE OR REPLACE FUNCTION pgrail.check_limits(p_root int, p_kind int, p_rel oid) RETURNS bool
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  lease CONSTANT bigint := 100;                         -- rows are allowed in multiples of this, as the gates have it
  root CONSTANT jsonb := pgrail.root(p_root);
  root_name CONSTANT text := (root ->> 'rel')::oid::regclass;
  m record;
  a record;
  w pgrail.allowance;
  r record;
  covered bool;
  removed bigint;
  wanted bigint;
  leased bigint;
  allowed_table CONSTANT text := CASE p_kind WHEN 0 THEN 'pgrail.allowed_' ELSE 'pgrail.allowed_cascade_' END || p_root;
  allowed bigint := 0;                                  -- rows that this kind may reach before the gate asks again
  allowed_other bigint := 0;                             -- the same of the other kind, as far as it is not used up
  counted bigint;                                       -- rows of this kind so far, as the gate counts
  more bigint;                                          -- rows that may be removed now before the gate asks again
  updated bigint;
  what text;
  beyond text;
  under text;
  about jsonb;
  stopped bool;
BEGIN
  IF root IS NULL THEN RETURN false; END IF;
  IF current_setting('session_replication_role') = 'replica' THEN
    IF pgrail.is_apply_worker() THEN RETURN false; END IF;
  END IF;
  m := pgrail.measure(p_root, root);

  IF p_kind = 2 THEN
    updated := m.updated - pgrail.updated_before(p_root);
    FOR a IN SELECT * FROM jsonb_to_recordset(root -> 'assignments') AS x(id int, guard int, guard_name text, enforce bool, max_updated_rows bigint)
             WHERE updated > x.max_updated_rows ORDER BY x.enforce, x.max_updated_rows LOOP
      CONTINUE WHEN EXISTS (SELECT FROM pgrail.allowances_for(a.guard, p_root, 'Update') y
                            WHERE (y.unlimited OR updated <= y.max_updated_rows)
                              AND pgrail.charge(y.id, y.total_rows, 'Update', p_root, updated, least(updated + 10 * lease, y.max_updated_rows)) IS NOT NULL);
      about := pgrail.named((root ->> 'rel')::oid) || jsonb_build_object('assignment', a.id, 'enforce', a.enforce, 'guard', a.guard_name, 'code', 'PGR04',
        'message', format('UPDATE on %s %s more than %s rows in one statement (maxUpdatedRows)', root_name,
          CASE WHEN a.enforce THEN 'would change' ELSE 'changes' END, a.max_updated_rows),
        'detail', format('Reached in %s.', p_rel::regclass), 'hint', 'Update in smaller batches, or ask for a GuardExemption.');
      stopped := pgrail.report(about);
    END LOOP;
    RETURN false;
  END IF;

  -- The root lost nothing: the cascade of another table.
  IF m.raw_deleted = 0 THEN RETURN false; END IF;
  -- A cascade from another guarded root counts there only.
  IF root -> 'above' <> '[]' AND pg_trigger_depth() > 0 THEN
    IF EXISTS (SELECT FROM jsonb_array_elements_text(root -> 'above') above(id) WHERE (pgrail.counts(pgrail.root(above.id::int))).deleted > 0) THEN RETURN false; END IF;
  END IF;

  -- What was allowed before in this transaction, see the end: inserts into a table that only pgrail can write.
  IF to_regclass(allowed_table) IS NOT NULL THEN
    allowed := lease * pg_stat_get_xact_tuples_inserted(to_regclass(allowed_table));
    allowed_other := CASE p_kind
      WHEN 0 THEN lease * pg_stat_get_xact_tuples_inserted(to_regclass('pgrail.allowed_cascade_' || p_root)) - m.cascade_counted
      ELSE lease * pg_stat_get_xact_tuples_inserted(to_regclass('pgrail.allowed_' || p_root)) - m.rows_counted END;
    allowed_other := greatest(coalesce(allowed_other, 0), 0);
  END IF;

  -- Twice as far each time, up to 50,000 rows: what one kind may still use, the other may not, until it is used up.
  counted := CASE p_kind WHEN 0 THEN m.rows_counted ELSE m.cascade_counted END;
  more := least(greatest(counted, 10 * lease), 500 * lease);

  FOR a IN SELECT * FROM jsonb_to_recordset(root -> 'assignments') AS x(id int, guard int, guard_name text, enforce bool, max_rows bigint, max_cascade_rows bigint,
             max_transaction_rows bigint, protect_delete bool)
           WHERE x.protect_delete ORDER BY x.enforce, x.max_rows, x.max_cascade_rows LOOP
    under := '';
    r := pgrail.remaining(a.max_rows, a.max_cascade_rows, a.max_transaction_rows, m.deleted, m.cascaded, m.statement_deleted, m.statement_cascaded);
    what := pgrail.violation(a.max_rows, a.max_cascade_rows, a.max_transaction_rows, r.rows, r.cascade_rows, r.transaction_rows);
    IF what IS NOT NULL THEN
      covered := false;
      FOR w IN SELECT * FROM pgrail.allowances_for(a.guard, p_root, 'Delete') LOOP
        IF w.unlimited THEN
          r := pgrail.remaining(NULL, NULL, NULL, 0, 0, 0, 0);
        ELSE
          r := pgrail.remaining(coalesce(w.max_rows, a.max_rows), coalesce(w.max_cascade_rows, a.max_cascade_rows), coalesce(w.max_transaction_rows, a.max_transaction_rows),
                           m.deleted, m.cascaded, m.statement_deleted, m.statement_cascaded);
        END IF;
        beyond := pgrail.violation(coalesce(w.max_rows, a.max_rows), coalesce(w.max_cascade_rows, a.max_cascade_rows),
                                coalesce(w.max_transaction_rows, a.max_transaction_rows), r.rows, r.cascade_rows, r.transaction_rows);
        -- The message names what the allowance forbids, not what the guard would have forbidden without it.
        IF beyond IS NOT NULL THEN
          what := beyond;
          under := format(' Under the %s %s.', CASE WHEN w.exemption IS NULL THEN 'allowance of' ELSE 'GuardExemption' END, coalesce(w.exemption, w.role));
          CONTINUE;
        END IF;
        removed := m.deleted + m.cascaded + allowed_other;
        -- To a multiple, as the gate has it: what is charged is then what it allows, and both end at the same row.
        wanted := greatest((counted + least(more, CASE p_kind WHEN 0 THEN r.rows ELSE r.cascade_rows END, r.transaction_rows - allowed_other))
                           / lease * lease - counted, 0);
        leased := pgrail.charge(w.id, w.total_rows, 'Delete', p_root, m.deleted + m.cascaded, removed + wanted);
        IF leased IS NULL AND w.lost THEN
          what := format('use the GuardExemption %s, whose count of used rows (totalRows) was lost in a crash of the server', w.exemption);
          under := '';
          CONTINUE;
        ELSIF leased IS NULL THEN
          what := format('remove more than the %s rows of the GuardExemption %s (totalRows)', w.total_rows, w.exemption);
          under := '';
          CONTINUE;
        END IF;
        more := least(wanted, leased - removed);
        covered := true;
        EXIT;
      END LOOP;
      IF NOT covered THEN
        about := pgrail.named((root ->> 'rel')::oid) || jsonb_build_object('assignment', a.id, 'enforce', a.enforce, 'guard', a.guard_name, 'code', 'PGR01',
          'message', format('DELETE on %s would %s', root_name, what),
          'detail', format('Reached in %s (%s), after %s rows of %s and %s rows of other tables in this transaction.', p_rel::regclass,
            coalesce((SELECT x.path FROM jsonb_to_recordset(root -> 'members') AS x(rel oid, effect text, path text)
                      WHERE x.rel IN (SELECT p_rel UNION SELECT relid FROM pg_partition_ancestors(p_rel)) ORDER BY x.effect = 'r' LIMIT 1), 'a new partition'),
            m.deleted, root_name, m.cascaded) || under,
          'hint', 'Delete in smaller batches, each in a transaction of its own, or ask for a GuardExemption.');
        stopped := pgrail.report(about);
      END IF;
    ELSE
      more := least(more, CASE p_kind WHEN 0 THEN r.rows ELSE r.cascade_rows END, r.transaction_rows - allowed_other);
    END IF;
  END LOOP;

  -- The gate asks again after that many rows; up to there no limit can be passed. The transaction's own counters of this
  -- table are memory that every role can read and only pgrail's can write.
  more := (counted + greatest(more, 0)) / lease - allowed / lease;
  IF more > 0 AND to_regclass(allowed_table) IS NOT NULL THEN
    EXECUTE format('INSERT INTO %s SELECT FROM generate_series(1, %s)', allowed_table, more);
    EXECUTE format('DELETE FROM %s', allowed_table);
  END IF;
  RETURN false;
END $$;

-- TRUNCATE of a root, of a table of its tree, or through CASCADE from elsewhere.
CREATE OR REPLACE FUNCTION pgrail.check_truncate(p_rel oid) RETURNS bool
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  a record;
  rows_removed bigint;
  about jsonb;
  stopped bool;
BEGIN
  -- Only a session that truncates holds this lock; a mere call of this function is no attempt.
  IF NOT EXISTS (SELECT FROM pg_locks l WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.relation = p_rel
                 AND l.mode = 'AccessExclusiveLock' AND l.granted) OR pgrail.is_apply_worker() THEN
    RETURN false;
  END IF;
  FOR a IN
    WITH RECURSIVE up(rel) AS (SELECT p_rel UNION SELECT i.inhparent FROM up JOIN pg_inherits i ON i.inhrelid = up.rel)
    SELECT x.id, x.root, x.guard, g.name AS guard_name, g.enforce, r.rel::oid AS rel
    FROM pgrail.relation r JOIN up ON up.rel = r.rel::oid JOIN pgrail.assignment x ON x.root = r.id JOIN pgrail.guard g ON g.id = x.guard
    WHERE x.protect_truncate ORDER BY g.enforce, g.name
  LOOP
    -- How many rows are removed is only known by estimate.
    rows_removed := greatest(pg_stat_get_live_tuples(p_rel), (SELECT c.reltuples::bigint FROM pg_class c WHERE c.oid = p_rel), 0);
    CONTINUE WHEN pgrail.is_allowed(a.guard, a.root, 'Truncate', rows_removed);
    about := pgrail.named(a.rel) || jsonb_build_object('assignment', a.id, 'enforce', a.enforce, 'guard', a.guard_name, 'code', 'PGR02',
      'message', format('TRUNCATE of %s is not allowed', p_rel::regclass),
      'detail', CASE WHEN p_rel = a.rel THEN 'The table is guarded.' ELSE format('It is part of the guarded table %s.', a.rel::regclass) END,
      'hint', 'Delete in smaller batches, or ask for a GuardExemption.');
    stopped := pgrail.report(about);
  END LOOP;
  RETURN false;
END $$;

-- DROP of a root, by whatever statement, and of a partition where the guard asks for it. Tables are known by their numbers,
-- partitions by the copy of the trigger that is dropped with them.
CREATE OR REPLACE FUNCTION pgrail.check_drop() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  a record;
  about jsonb;
  stopped bool;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_event_trigger_dropped_objects() d
                 WHERE d.classid = 'pg_class'::regclass AND d.objsubid = 0 AND d.object_type = 'table' AND NOT d.is_temporary) THEN
    RETURN;
  END IF;
  FOR a IN
    WITH dropped AS MATERIALIZED (SELECT * FROM pg_event_trigger_dropped_objects()),
    tables AS (
      SELECT d.objid, d.object_identity, d.schema_name, d.object_name FROM dropped d
      WHERE d.classid = 'pg_class'::regclass AND d.objsubid = 0 AND d.object_type = 'table' AND NOT d.is_temporary
    ), relations AS MATERIALIZED (SELECT * FROM pgrail.relation),
    held AS (
      SELECT x.object_identity, x.schema_name, x.object_name, r.id AS root, 'The table is guarded.' AS detail, false AS partition
      FROM tables x JOIN relations r ON r.rel::oid = x.objid OR (r.restored AND r.name = x.object_identity)
      UNION
      SELECT x.object_identity, x.schema_name, x.object_name, m.root, 'The table is a partition of a guarded table.', true
      FROM tables x JOIN dropped d ON d.object_type = 'trigger' AND d.address_names[1] = x.schema_name AND d.address_names[2] = x.object_name
      JOIN relations r ON r.id = substring(d.address_names[3] FROM '^pgrail_delete_([0-9]{1,9})$')::int AND r.rel::oid <> x.objid
      JOIN pgrail.member m ON m.rel = r.rel AND m.effect = 'r'
    )
    SELECT h.*, y.id, y.guard, g.name AS guard_name, g.enforce
    FROM held h JOIN pgrail.assignment y ON y.root = h.root JOIN pgrail.guard g ON g.id = y.guard
    WHERE CASE WHEN h.partition THEN y.protect_drop_partition ELSE y.protect_drop END
    ORDER BY h.partition, g.enforce, g.name
  LOOP
    CONTINUE WHEN pgrail.is_allowed(a.guard, a.root, 'Drop', 0);
    about := jsonb_build_object('assignment', a.id, 'enforce', a.enforce, 'guard', a.guard_name, 'code', 'PGR03',
      'message', format('DROP of %s is not allowed', a.object_identity), 'detail', a.detail,
      'hint', 'Ask for a GuardExemption, or remove the guard first.', 'schema', a.schema_name, 'table', a.object_name);
    stopped := pgrail.report(about);
  END LOOP;
END $$;

-- DETACH of a partition, where the guard asks for it: a table that has the trigger of a root's partition and is none.
CREATE OR REPLACE FUNCTION pgrail.check_detach() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  a record;
  about jsonb;
  stopped bool;
BEGIN
  FOR a IN
    WITH parents AS MATERIALIZED (
      SELECT y.id, y.root, y.guard, g.name AS guard_name, g.enforce, r.rel::oid AS rel
      FROM pgrail.assignment y JOIN pgrail.guard g ON g.id = y.guard JOIN pgrail.relation r ON r.id = y.root
      JOIN pg_class p ON p.oid = r.rel::oid AND p.relkind = 'p'
      WHERE y.protect_drop_partition
        AND EXISTS (SELECT FROM pg_event_trigger_ddl_commands() d JOIN pg_partition_tree(r.rel) tree ON tree.relid = d.objid WHERE d.classid = 'pg_class'::regclass)
    )
    SELECT DISTINCT p.*, t.tgrelid AS detached
    FROM parents p JOIN pg_trigger t ON t.tgname = ('pgrail_note_' || p.root)::name AND t.tgrelid <> p.rel
    JOIN pg_proc f ON f.oid = t.tgfoid AND f.pronamespace = 'pgrail'::regnamespace
    JOIN pg_class c ON c.oid = t.tgrelid AND NOT c.relispartition
    ORDER BY p.enforce, p.guard_name
  LOOP
    CONTINUE WHEN pgrail.is_allowed(a.guard, a.root, 'Drop', 0);
    about := pgrail.named(a.rel) || jsonb_build_object('assignment', a.id, 'enforce', a.enforce, 'guard', a.guard_name, 'code', 'PGR03',
      'message', format('DETACH of %s is not allowed', a.detached::regclass), 'detail', format('The table is a partition of the guarded table %s.', a.rel::regclass),
      'hint', 'Ask for a GuardExemption, or remove the guard first.');
    stopped := pgrail.report(about);
  END LOOP;
END $$;

-- DROP COLUMN of a root or of a table of its tree, by whatever statement: also DROP TYPE … CASCADE. A column whose type is
-- composite, or is made of such a type, loses what the type loses.
CREATE OR REPLACE FUNCTION pgrail.check_columns() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  a record;
  about jsonb;
  stopped bool;
BEGIN
  FOR a IN
    WITH RECURSIVE dropped AS MATERIALIZED (
      SELECT d.objid, d.object_identity, d.original FROM pg_event_trigger_dropped_objects() d
      WHERE d.classid = 'pg_class'::regclass AND d.objsubid > 0 AND NOT d.is_temporary
    ), uses(origin, classid, objid) AS (
      SELECT DISTINCT d.objid, 'pg_class'::regclass::oid, d.objid FROM dropped d
      UNION
      SELECT u.origin, e.classid, e.objid
      FROM uses u JOIN pg_depend e ON e.refclassid = 'pg_type'::regclass
        AND e.refobjid = CASE WHEN u.classid = 'pg_type'::regclass THEN u.objid ELSE (SELECT c.reltype FROM pg_class c WHERE c.oid = u.objid) END
      WHERE e.classid = 'pg_type'::regclass OR (e.classid = 'pg_class'::regclass AND e.objsubid > 0)
    ), up(origin, rel, above) AS (
      SELECT u.origin, u.objid, u.objid FROM uses u WHERE u.classid = 'pg_class'::regclass
      UNION
      SELECT up.origin, up.rel, i.inhparent FROM up JOIN pg_inherits i ON i.inhrelid = up.above
    )
    SELECT d.object_identity, up.rel, r.rel::oid AS guarded, up.origin <> up.rel AS by_type, y.id, y.root, y.guard, g.name AS guard_name, g.enforce
    FROM dropped d JOIN up ON up.origin = d.objid JOIN pgrail.relation r ON r.rel::oid = up.above
    JOIN pgrail.assignment y ON y.root = r.id JOIN pgrail.guard g ON g.id = y.guard
    WHERE y.protect_drop_column
    ORDER BY g.enforce, NOT d.original, by_type, up.rel <> r.rel::oid, g.name, d.object_identity
  LOOP
    CONTINUE WHEN pgrail.is_allowed(a.guard, a.root, 'Drop', 0);
    about := pgrail.named(a.rel) || jsonb_build_object('assignment', a.id, 'enforce', a.enforce, 'guard', a.guard_name, 'code', 'PGR03',
      'message', format('DROP of column %s is not allowed', a.object_identity),
      'detail', CASE WHEN a.by_type THEN format('A column of %s has that type. ', a.rel::regclass) ELSE '' END
        || CASE WHEN a.rel = a.guarded THEN 'The table is guarded.' ELSE format('The table is part of the guarded table %s.', a.guarded::regclass) END,
      'hint', 'Ask for a GuardExemption, or remove the guard first.');
    stopped := pgrail.report(about);
  END LOOP;
END $$;

-- A change of a column's type that rewrites a root, or a table of its tree.
CREATE OR REPLACE FUNCTION pgrail.check_rewrite(p_rel oid) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  a record;
  about jsonb;
  stopped bool;
BEGIN
  FOR a IN
    WITH RECURSIVE up(rel) AS (SELECT p_rel UNION SELECT i.inhparent FROM up JOIN pg_inherits i ON i.inhrelid = up.rel)
    SELECT y.id, y.root, y.guard, g.name AS guard_name, g.enforce, r.rel::oid AS guarded
    FROM up JOIN pgrail.relation r ON r.rel::oid = up.rel JOIN pgrail.assignment y ON y.root = r.id JOIN pgrail.guard g ON g.id = y.guard
    WHERE y.protect_drop_column AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = p_rel AND c.relpersistence = 't')
    ORDER BY g.enforce, up.rel <> p_rel, g.name
  LOOP
    CONTINUE WHEN pgrail.is_allowed(a.guard, a.root, 'Drop', 0);
    about := pgrail.named(p_rel) || jsonb_build_object('assignment', a.id, 'enforce', a.enforce, 'guard', a.guard_name, 'code', 'PGR03',
      'message', format('a change of the type of a column that rewrites %s is not allowed', p_rel::regclass),
      'detail', CASE WHEN p_rel = a.guarded THEN 'The table is guarded.' ELSE format('The table is part of the guarded table %s.', a.guarded::regclass) END,
      'hint', 'Add a column and copy the values in batches, ask for a GuardExemption, or remove the guard first.');
    stopped := pgrail.report(about);
  END LOOP;
END $$;

-- Whether everything is there that a decision about DDL needs: where others dropped a part of it, DDL of the application
-- must not fail.
CREATE OR REPLACE FUNCTION pgrail.is_intact() RETURNS bool
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT NOT EXISTS (SELECT FROM unnest('{documents,install,guard,relation,assignment,member,allowance,budget,usage}'::text[]) name WHERE to_regclass('pgrail.' || name) IS NULL)
     AND NOT EXISTS (SELECT FROM unnest('{document,allowances_for,is_allowed,charge,check_drop,check_detach,report,named}'::text[]) name WHERE to_regproc('pgrail.' || name) IS NULL)
$$;

CREATE OR REPLACE FUNCTION pgrail.on_drop() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF to_regproc('pgrail.is_intact') IS NOT NULL THEN
    IF pgrail.is_intact() THEN
      PERFORM pgrail.check_drop();
      IF (pgrail.document('install') ->> 'drop_column')::bool AND to_regproc('pgrail.check_columns') IS NOT NULL THEN PERFORM pgrail.check_columns(); END IF;
    END IF;
  END IF;
  -- A transaction that notified cannot be prepared for two-phase commit: where that is possible, none does.
  IF current_setting('max_prepared_transactions')::int = 0 AND EXISTS (SELECT FROM pg_event_trigger_dropped_objects() d WHERE NOT d.is_temporary) THEN
    PERFORM pg_notify('pgrail', '');
  END IF;
END $$;

-- A table is rewritten. Of the reasons, 4 is a change of a column's type.
CREATE OR REPLACE FUNCTION pgrail.on_rewrite() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF pg_event_trigger_table_rewrite_reason() & 4 = 0 OR to_regproc('pgrail.is_intact') IS NULL OR to_regproc('pgrail.document') IS NULL
     OR to_regproc('pgrail.check_rewrite') IS NULL THEN
    RETURN;
  END IF;
  IF (pgrail.document('install') ->> 'drop_column')::bool AND pgrail.is_intact() THEN PERFORM pgrail.check_rewrite(pg_event_trigger_table_rewrite_oid()); END IF;
END $$;

-- Notifies the operator of everything that may change what is guarded. Locks nothing unless a guard asks for DropPartition.
CREATE OR REPLACE FUNCTION pgrail.on_ddl() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_event_trigger_ddl_commands() d WHERE d.schema_name IS DISTINCT FROM 'pg_temp') THEN RETURN; END IF;
  IF TG_TAG = 'ALTER TABLE' AND to_regproc('pgrail.is_intact') IS NOT NULL AND to_regproc('pgrail.document') IS NOT NULL THEN
    IF (pgrail.document('install') ->> 'drop_partition')::bool AND pgrail.is_intact() THEN PERFORM pgrail.check_detach(); END IF;
  END IF;
  IF current_setting('max_prepared_transactions')::int = 0 THEN
    PERFORM pg_notify('pgrail', '');
  END IF;
END $$;

DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = 'pgrail.usage'::pg_catalog.regclass AND t.tgname = 'refund') THEN
    CREATE CONSTRAINT TRIGGER refund AFTER INSERT ON pgrail.usage DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pgrail.refund();
    ALTER TABLE pgrail.usage ENABLE ALWAYS TRIGGER refund;
  END IF;
END $$;
