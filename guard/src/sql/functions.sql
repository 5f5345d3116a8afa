-- The functions that do not depend on which tables are guarded. Replaced as a whole with the schema version.

-- No trigger of ours ever gets to its function: the verdict is taken in WHEN.
CREATE OR REPLACE FUNCTION pgrail.nothing() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN NULL; END $$;

-- Whether this session is the server's own worker that applies a subscription: a guard must not stall a subscriber.
-- The setting alone proves nothing, since roles may be allowed to set it.
CREATE OR REPLACE FUNCTION pgrail.is_apply_worker() RETURNS bool
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT current_setting('session_replication_role') = 'replica'
     AND EXISTS (SELECT FROM pg_stat_get_subscription(NULL) s WHERE s.pid = pg_backend_pid())
$$;

-- What this transaction has done so far to a root and its closure, by the server's own counters.
CREATE OR REPLACE FUNCTION pgrail.counts(p_root int, OUT deleted bigint, OUT inserted bigint, OUT updated bigint, OUT cascaded bigint, OUT nulled bigint, OUT partitioned bool)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  WITH leaves AS (
    SELECT m.effect, l.oid, bool_or(l.oid <> m.rel) AS is_leaf
    FROM pgrail.member m, LATERAL (SELECT m.rel::oid UNION SELECT t.relid::oid FROM pg_partition_tree(m.rel) t WHERE t.isleaf) l(oid)
    WHERE m.root = p_root
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

-- Counts the attempt, which survives the abort, and fails the statement; or warns and lets it pass.
CREATE OR REPLACE FUNCTION pgrail.verdict(p_assignment pgrail.assignment, p_code text, p_message text, p_detail text, p_hint text,
                                          p_schema text DEFAULT NULL, p_table text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  guard pgrail.guard;
  root record;
  key text := encode(timestamptz_send(statement_timestamp()), 'hex');
  setting text := 'pgrail.warned_' || p_assignment.id;
BEGIN
  SELECT * INTO guard FROM pgrail.guard WHERE id = p_assignment.guard;
  -- A dropped table is not in the catalog any more.
  SELECT coalesce(p_schema, n.nspname, '') AS nspname, coalesce(p_table, c.relname, '') AS relname INTO root
    FROM pgrail.relation r LEFT JOIN pg_class c ON c.oid = r.rel LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE r.id = p_assignment.root;
  IF NOT guard.enforce AND current_setting(setting, true) = key THEN RETURN; END IF;
  -- A rehearsal is no attempt: this function is there only in a transaction of pgrail's role that is rolled back. And a
  -- counter that is gone or used up must not change what the client is told.
  IF to_regproc('pgrail.rehearsal_' || pg_backend_pid()) IS NULL THEN
    BEGIN
      PERFORM nextval(format('pgrail.blocked_%s', p_assignment.id)::regclass);
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
  END IF;
  IF guard.enforce THEN
    RAISE EXCEPTION USING ERRCODE = p_code, MESSAGE = 'pgrail: ' || p_message,
      DETAIL = format('%s Guard: %s.', p_detail, guard.name), HINT = p_hint, SCHEMA = root.nspname, TABLE = root.relname;
  END IF;
  PERFORM set_config(setting, key, true);
  RAISE WARNING USING ERRCODE = '01PGR', MESSAGE = 'pgrail: ' || p_message || ' (not stopped: the guard only warns)',
    DETAIL = format('%s Guard: %s.', p_detail, guard.name), HINT = p_hint, SCHEMA = root.nspname, TABLE = root.relname;
END $$;

-- Where this transaction and this client statement stand with a root, by the counters and by what the session noted.
CREATE OR REPLACE FUNCTION pgrail.measure(p_root int, OUT deleted bigint, OUT cascaded bigint, OUT statement_deleted bigint, OUT statement_cascaded bigint,
                                          OUT rows_counted bigint, OUT cascade_counted bigint, OUT updated bigint, OUT raw_deleted bigint)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  n record;
  key text := encode(timestamptz_send(statement_timestamp()), 'hex');
  note text := nullif(current_setting('pgrail.note_' || p_root, true), '');
  -- What the session noted about itself, see pgrail.note_<root>; anything else that it wrote there counts as zeros.
  noted bigint[] := '{0,0,0,0,0,0}';
  of_this_statement bool := coalesce(left(note, 16) = key, false);
  before bigint := 0;
  before_cascaded bigint := 0;
  moved bigint := 0;
BEGIN
  n := pgrail.counts(p_root);
  updated := n.updated;
  raw_deleted := n.deleted;
  -- As the gate counts, see there.
  rows_counted := n.deleted;
  cascade_counted := n.cascaded + n.nulled;
  IF note ~ '^[0-9a-f]{16}(:[0-9]{1,18}){6}$' THEN noted := (string_to_array(note, ':'))[2:7]::bigint[]; END IF;
  -- The counters also hold what the session did in transactions that it has not reported yet. It reports when it is
  -- idle, which it is not between the transactions of a procedure: what was there before the first statement on the root
  -- is theirs, if there was a COMMIT. Only then does a transaction begin after the client's statement; no setting can fake that.
  IF transaction_timestamp() > statement_timestamp() THEN
    before := noted[5];
    before_cascaded := noted[6];
  END IF;
  -- An UPDATE that moves a row to another partition deletes it here and inserts it there. Without a DELETE in this
  -- client statement, as many deletes as inserts may be moves; with one, only those that had happened when it began.
  -- To pass a delete off as a move takes a forged note and as many inserted rows.
  IF n.partitioned THEN
    moved := CASE WHEN of_this_statement THEN least(noted[1], noted[4], n.inserted, n.deleted) ELSE least(n.inserted, n.deleted) END;
  END IF;
  deleted := n.deleted - greatest(moved, before);
  -- Rows updated before the first delete on the root were not nulled by it.
  cascaded := n.cascaded - before_cascaded + greatest(n.nulled - noted[3], 0);
  -- Per statement: against what was noted when this client statement first came to the root. A note of another
  -- statement: this one did not delete from the root. None at all: a partition that has no triggers of its own yet.
  statement_deleted := 0;
  statement_cascaded := 0;
  IF of_this_statement THEN
    statement_deleted := n.deleted - noted[1];
    statement_cascaded := cascaded - (noted[2] - before_cascaded);
  ELSIF note IS NULL THEN
    statement_deleted := deleted;
    statement_cascaded := cascaded;
  END IF;
END $$;

-- How far limits leave room: rows of the root, rows of other tables, rows in all. Negative: passed. NULL: not limited.
CREATE OR REPLACE FUNCTION pgrail.room(p_rows bigint, p_cascade_rows bigint, p_transaction_rows bigint,
                                       p_deleted bigint, p_cascaded bigint, p_statement_deleted bigint, p_statement_cascaded bigint,
                                       OUT rows bigint, OUT cascade_rows bigint, OUT transaction_rows bigint)
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  rows := p_rows - CASE WHEN p_transaction_rows IS NULL THEN p_deleted ELSE p_statement_deleted END;
  cascade_rows := p_cascade_rows - CASE WHEN p_transaction_rows IS NULL THEN p_cascaded ELSE p_statement_cascaded END;
  transaction_rows := p_transaction_rows - p_deleted - p_cascaded;
END $$;

-- What a statement would do that these limits forbid, as `room` found it; NULL where they are kept.
CREATE OR REPLACE FUNCTION pgrail.passed(p_rows bigint, p_cascade_rows bigint, p_transaction_rows bigint,
                                         p_room_rows bigint, p_room_cascade_rows bigint, p_room_transaction_rows bigint) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  what CONSTANT text := CASE WHEN p_transaction_rows IS NULL THEN 'transaction' ELSE 'statement' END;
BEGIN
  IF p_room_transaction_rows < 0 THEN
    RETURN format('remove more than %s rows in one transaction (maxTransactionRows)', p_transaction_rows);
  ELSIF p_room_rows < 0 THEN
    RETURN format('remove more than %s of its rows in one %s (maxRows)', p_rows, what);
  ELSIF p_room_cascade_rows < 0 THEN
    RETURN format('take more than %s rows of other tables in one %s (maxCascadeRows)', p_cascade_rows, what);
  END IF;
  RETURN NULL;
END $$;

-- The rights of this login role that hold now, by the server's clock, to go beyond what an assignment allows.
CREATE OR REPLACE FUNCTION pgrail.rights(p_assignment pgrail.assignment, p_operation text) RETURNS SETOF pgrail.allowance
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT w.* FROM pgrail.allowance w
  WHERE p_assignment.guard = ANY (w.guards) AND w.role = session_user AND p_operation = ANY (w.operations)
    AND (w.roots IS NULL OR p_assignment.root = ANY (w.roots))
    AND (w.not_before IS NULL OR clock_timestamp() >= w.not_before) AND (w.not_after IS NULL OR clock_timestamp() < w.not_after)
  ORDER BY w.id
$$;

-- Writes down what a right is used for: rows so far in this transaction, and how many it may come to before this is
-- asked again. Returns that number: what was wanted; or as much of it as the right has left of its whole life; or NULL, if
-- that is less than is there already.
CREATE OR REPLACE FUNCTION pgrail.spend(p_allowance pgrail.allowance, p_operation text, p_root int, p_rows bigint, p_leased bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  earlier record;
  wanted bigint;
BEGIN
  SELECT u.leased, u.statement_at INTO earlier FROM pgrail.usage u
    WHERE u.allowance = p_allowance.id AND u.root = p_root AND u.operation = p_operation AND u.xid = pg_current_xact_id();
  IF earlier.leased >= p_rows AND earlier.statement_at = statement_timestamp() AND p_leased > p_rows THEN RETURN earlier.leased; END IF;
  wanted := greatest(p_leased, p_rows);
  IF p_allowance.total_rows IS NOT NULL THEN
    -- Two sessions that use the same budget wait for each other: neither can spend what the other has spent.
    SELECT least(wanted, w.total_rows - w.spent + coalesce(earlier.leased, 0)) INTO wanted FROM pgrail.allowance w WHERE w.id = p_allowance.id FOR UPDATE;
    IF wanted IS NULL OR wanted < p_rows THEN RETURN NULL; END IF;
    UPDATE pgrail.allowance w SET spent = w.spent + wanted - coalesce(earlier.leased, 0) WHERE w.id = p_allowance.id;
  END IF;
  INSERT INTO pgrail.usage AS u (allowance, root, operation, xid, rows, leased, statements, statement_at)
    VALUES (p_allowance.id, p_root, p_operation, pg_current_xact_id(), p_rows, wanted, 1, statement_timestamp())
    ON CONFLICT (allowance, root, operation, xid) DO UPDATE SET rows = greatest(u.rows, excluded.rows), leased = excluded.leased,
      statements = u.statements + (u.statement_at <> excluded.statement_at)::int, statement_at = excluded.statement_at;
  RETURN wanted;
END $$;

-- The same for what is not counted row by row: adds to what this transaction has used.
CREATE OR REPLACE FUNCTION pgrail.spend_more(p_allowance pgrail.allowance, p_operation text, p_root int, p_rows bigint) RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT pgrail.spend(p_allowance, p_operation, p_root, p_rows + coalesce(max(u.rows), 0), 0)
  FROM pgrail.usage u WHERE u.allowance = p_allowance.id AND u.root = p_root AND u.operation = p_operation AND u.xid = pg_current_xact_id()
$$;

-- At the end of a transaction: what it might have used and did not is given back.
CREATE OR REPLACE FUNCTION pgrail.settle() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  u pgrail.usage;
  m record;
  used bigint;
BEGIN
  SELECT * INTO u FROM pgrail.usage x WHERE x.allowance = NEW.allowance AND x.root = NEW.root AND x.operation = NEW.operation AND x.xid = NEW.xid;
  IF NOT FOUND OR u.leased = u.rows OR to_regproc('pgrail.measure') IS NULL THEN RETURN NULL; END IF;
  m := pgrail.measure(u.root);
  used := least(u.leased, greatest(u.rows, CASE u.operation WHEN 'Update' THEN m.updated ELSE m.deleted + m.cascaded END));
  UPDATE pgrail.usage x SET rows = used, leased = used WHERE x.allowance = u.allowance AND x.root = u.root AND x.operation = u.operation AND x.xid = u.xid;
  UPDATE pgrail.allowance SET spent = spent - (u.leased - used) WHERE id = u.allowance AND total_rows IS NOT NULL;
  RETURN NULL;
END $$;

-- The exact judgement of one row that went: called when a gate's quick look was not enough. Raises, or returns false.
-- p_kind 0: a row of the root was deleted; 1: a row of its closure was deleted or nulled; 2: a row of the root was updated.
CREATE OR REPLACE FUNCTION pgrail.trip(p_root int, p_kind int, p_rel oid) RETURNS bool
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  lease CONSTANT bigint := 100;                         -- rows are let through in multiples of this, as the gates have it
  root pgrail.relation;
  m record;
  a record;
  w pgrail.allowance;
  r record;
  covered bool;
  gone bigint;
  wanted bigint;
  leased bigint;
  pass text;
  passed bigint := 0;                                   -- rows that this kind may reach before it is asked again
  passed_other bigint := 0;                             -- the same of the other kind, as far as it is not used up
  counted bigint;                                       -- rows of this kind so far, as the gate counts
  more bigint;                                          -- rows that may go now before this is asked again
  key text := encode(timestamptz_send(statement_timestamp()), 'hex');
  note text;
  updated bigint;
  what text;
  beyond text;
  under text;
BEGIN
  SELECT * INTO root FROM pgrail.relation WHERE id = p_root;
  IF NOT FOUND THEN RETURN false; END IF;
  IF current_setting('session_replication_role') = 'replica' THEN
    IF pgrail.is_apply_worker() THEN RETURN false; END IF;
  END IF;
  m := pgrail.measure(p_root);

  IF p_kind = 2 THEN
    note := current_setting('pgrail.updated_' || p_root, true);
    updated := m.updated;
    IF left(note, 16) = key AND note ~ '^[0-9a-f]{16}:[0-9]{1,18}$' THEN updated := updated - split_part(note, ':', 2)::bigint; END IF;
    FOR a IN SELECT x AS assignment, x.max_updated_rows, g.enforce FROM pgrail.assignment x JOIN pgrail.guard g ON g.id = x.guard
             WHERE x.root = p_root AND updated > x.max_updated_rows ORDER BY g.enforce, x.max_updated_rows LOOP
      CONTINUE WHEN EXISTS (SELECT FROM pgrail.rights(a.assignment, 'Update') y
                            WHERE (y.unlimited OR updated <= y.max_updated_rows) AND pgrail.spend(y, 'Update', p_root, updated, least(updated + 10 * lease, y.max_updated_rows)) IS NOT NULL);
      PERFORM pgrail.verdict(a.assignment, 'PGR04',
        format('UPDATE on %s %s more than %s rows in one statement (maxUpdatedRows)', root.rel::text,
          CASE WHEN a.enforce THEN 'would change' ELSE 'changes' END, a.max_updated_rows),
        format('Reached in %s.', p_rel::regclass), 'Update in smaller batches, or ask for a GuardExemption.');
    END LOOP;
    RETURN false;
  END IF;

  -- The root lost nothing: the cascade of somebody else.
  IF m.raw_deleted = 0 THEN RETURN false; END IF;
  -- A cascade from another guarded root counts there only.
  IF root.above <> '{}' AND pg_trigger_depth() > 0 THEN
    IF EXISTS (SELECT FROM unnest(root.above) above(id) WHERE (pgrail.counts(above.id)).deleted > 0) THEN RETURN false; END IF;
  END IF;

  -- What was let through before in this transaction, see the end: inserts into a table that only pgrail can write.
  pass := CASE p_kind WHEN 0 THEN 'pgrail.pass_' ELSE 'pgrail.pass_cascade_' END || p_root;
  IF to_regclass(pass) IS NOT NULL THEN
    passed := lease * pg_stat_get_xact_tuples_inserted(to_regclass(pass));
    passed_other := CASE p_kind
      WHEN 0 THEN lease * pg_stat_get_xact_tuples_inserted(to_regclass('pgrail.pass_cascade_' || p_root)) - m.cascade_counted
      ELSE lease * pg_stat_get_xact_tuples_inserted(to_regclass('pgrail.pass_' || p_root)) - m.rows_counted END;
    passed_other := greatest(coalesce(passed_other, 0), 0);
  END IF;

  -- Twice as far each time, up to 50,000 rows: what one kind may still use, the other may not, until it is used up.
  counted := CASE p_kind WHEN 0 THEN m.rows_counted ELSE m.cascade_counted END;
  more := least(greatest(counted, 10 * lease), 500 * lease);

  FOR a IN SELECT x AS assignment, x.max_rows, x.max_cascade_rows, x.max_transaction_rows, g.enforce
           FROM pgrail.assignment x JOIN pgrail.guard g ON g.id = x.guard
           WHERE x.root = p_root AND x.protect_delete ORDER BY g.enforce, x.max_rows, x.max_cascade_rows LOOP
    under := '';
    r := pgrail.room(a.max_rows, a.max_cascade_rows, a.max_transaction_rows, m.deleted, m.cascaded, m.statement_deleted, m.statement_cascaded);
    what := pgrail.passed(a.max_rows, a.max_cascade_rows, a.max_transaction_rows, r.rows, r.cascade_rows, r.transaction_rows);
    IF what IS NOT NULL THEN
      covered := false;
      -- Most roles have none at all, and a statement that is stopped shall not wait for that to be found out the long way.
      FOR w IN SELECT * FROM pgrail.rights(a.assignment, 'Delete') WHERE EXISTS (SELECT FROM pgrail.allowance y WHERE y.role = session_user) LOOP
        IF w.unlimited THEN
          r := pgrail.room(NULL, NULL, NULL, 0, 0, 0, 0);
        ELSE
          r := pgrail.room(coalesce(w.max_rows, a.max_rows), coalesce(w.max_cascade_rows, a.max_cascade_rows), coalesce(w.max_transaction_rows, a.max_transaction_rows),
                           m.deleted, m.cascaded, m.statement_deleted, m.statement_cascaded);
        END IF;
        beyond := pgrail.passed(coalesce(w.max_rows, a.max_rows), coalesce(w.max_cascade_rows, a.max_cascade_rows),
                                coalesce(w.max_transaction_rows, a.max_transaction_rows), r.rows, r.cascade_rows, r.transaction_rows);
        -- What is told is what the right lacks, not what the guard would have forbidden without it.
        IF beyond IS NOT NULL THEN
          what := beyond;
          under := format(' Under the %s %s.', CASE WHEN w.exemption IS NULL THEN 'allowance of' ELSE 'GuardExemption' END, coalesce(w.exemption, w.role));
          CONTINUE;
        END IF;
        gone := m.deleted + m.cascaded + passed_other;
        -- To a multiple, as the gate has it: what is written down is then what it lets through, and both end at the same row.
        wanted := greatest((counted + least(more, CASE p_kind WHEN 0 THEN r.rows ELSE r.cascade_rows END, r.transaction_rows - passed_other))
                           / lease * lease - counted, 0);
        leased := pgrail.spend(w, 'Delete', p_root, m.deleted + m.cascaded, gone + wanted);
        IF leased IS NULL THEN
          what := format('remove more than the %s rows of the GuardExemption %s (totalRows)', w.total_rows, w.exemption);
          under := '';
          CONTINUE;
        END IF;
        more := least(wanted, leased - gone);
        covered := true;
        EXIT;
      END LOOP;
      IF NOT covered THEN
        PERFORM pgrail.verdict(a.assignment, 'PGR01', format('DELETE on %s would %s', root.rel::text, what),
          format('Reached in %s (%s), after %s rows of %s and %s rows of other tables in this transaction.', p_rel::regclass,
            coalesce((SELECT x.path FROM pgrail.member x WHERE x.root = p_root AND x.rel IN (SELECT p_rel UNION SELECT relid FROM pg_partition_ancestors(p_rel))
                      ORDER BY x.effect = 'r' LIMIT 1), 'a new partition'), m.deleted, root.rel::text, m.cascaded) || under,
          'Delete in smaller batches, each in a transaction of its own, or ask for a GuardExemption.');
      END IF;
    ELSE
      more := least(more, CASE p_kind WHEN 0 THEN r.rows ELSE r.cascade_rows END, r.transaction_rows - passed_other);
    END IF;
  END LOOP;

  -- The gate asks again after that many rows; up to there no limit can be passed. The transaction's own counters of this
  -- table are memory that every role can read and none but pgrail's can write.
  more := (counted + greatest(more, 0)) / lease - passed / lease;
  IF more > 0 AND to_regclass(pass) IS NOT NULL THEN
    EXECUTE format('INSERT INTO %s SELECT FROM generate_series(1, %s)', pass, more);
    EXECUTE format('DELETE FROM %s', pass);
  END IF;
  RETURN false;
END $$;

-- TRUNCATE of a root, of a table of its tree, or through CASCADE from elsewhere.
CREATE OR REPLACE FUNCTION pgrail.truncating(p_rel oid) RETURNS bool
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  a pgrail.assignment;
  rows_gone bigint;
BEGIN
  -- Only somebody who is truncating holds this lock; a mere call of this function is no attempt.
  IF NOT EXISTS (SELECT FROM pg_locks l WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.relation = p_rel
                 AND l.mode = 'AccessExclusiveLock' AND l.granted) OR pgrail.is_apply_worker() THEN
    RETURN false;
  END IF;
  FOR a IN
    WITH RECURSIVE up(rel) AS (SELECT p_rel UNION SELECT i.inhparent FROM up JOIN pg_inherits i ON i.inhrelid = up.rel)
    SELECT x.* FROM pgrail.assignment x JOIN pgrail.relation r ON r.id = x.root JOIN up ON up.rel = r.rel JOIN pgrail.guard g ON g.id = x.guard
    WHERE x.protect_truncate ORDER BY g.enforce, g.name
  LOOP
    -- How many rows go is only known by estimate.
    rows_gone := greatest(pg_stat_get_live_tuples(p_rel), (SELECT c.reltuples::bigint FROM pg_class c WHERE c.oid = p_rel), 0);
    CONTINUE WHEN EXISTS (SELECT FROM pgrail.rights(a, 'Truncate') w WHERE pgrail.spend_more(w, 'Truncate', a.root, rows_gone) IS NOT NULL);
    PERFORM pgrail.verdict(a, 'PGR02', format('TRUNCATE of %s is not allowed', p_rel::regclass),
      CASE WHEN p_rel = (SELECT rel FROM pgrail.relation WHERE id = a.root) THEN 'The table is guarded.'
           ELSE format('It is part of the guarded table %s.', (SELECT rel::text FROM pgrail.relation WHERE id = a.root)) END,
      'Delete in smaller batches, or ask for a GuardExemption.');
  END LOOP;
  RETURN false;
END $$;

-- DROP of a root, however it comes about, and of a partition where that is asked for. Tables are known by their numbers,
-- partitions by the copy of our trigger that goes with them.
CREATE OR REPLACE FUNCTION pgrail.judge_drop() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  x record;
  a pgrail.assignment;
BEGIN
  FOR x IN SELECT d.objid, d.object_identity, d.schema_name, d.object_name FROM pg_event_trigger_dropped_objects() d
           WHERE d.classid = 'pg_class'::regclass AND d.objsubid = 0 AND d.object_type = 'table' AND NOT d.is_temporary LOOP
    FOR a IN SELECT y.* FROM pgrail.relation r JOIN pgrail.assignment y ON y.root = r.id JOIN pgrail.guard g ON g.id = y.guard
             WHERE r.rel = x.objid AND y.protect_drop ORDER BY g.enforce, g.name LOOP
      CONTINUE WHEN EXISTS (SELECT FROM pgrail.rights(a, 'Drop') w WHERE pgrail.spend_more(w, 'Drop', a.root, 0) IS NOT NULL);
      PERFORM pgrail.verdict(a, 'PGR03', format('DROP of %s is not allowed', x.object_identity), 'The table is guarded.',
        'Ask for a GuardExemption, or take the guard off first.', x.schema_name, x.object_name);
    END LOOP;
    FOR a IN
      SELECT DISTINCT y.* FROM pg_event_trigger_dropped_objects() d
      JOIN pgrail.relation r ON r.id = substring(d.address_names[3] FROM '^pgrail_delete_([0-9]{1,9})$')::int AND r.rel <> x.objid
      JOIN pgrail.member m ON m.rel = r.rel AND m.effect = 'r'
      JOIN pgrail.assignment y ON y.root = m.root
      WHERE d.object_type = 'trigger' AND d.address_names[1] = x.schema_name AND d.address_names[2] = x.object_name AND y.protect_drop_partition
    LOOP
      CONTINUE WHEN EXISTS (SELECT FROM pgrail.rights(a, 'Drop') w WHERE pgrail.spend_more(w, 'Drop', a.root, 0) IS NOT NULL);
      PERFORM pgrail.verdict(a, 'PGR03', format('DROP of %s is not allowed', x.object_identity), 'The table is a partition of a guarded table.',
        'Ask for a GuardExemption, or take the guard off first.', x.schema_name, x.object_name);
    END LOOP;
  END LOOP;
END $$;

-- Where somebody took our own tables away, DDL of the application must not suffer.
CREATE OR REPLACE FUNCTION pgrail.on_drop() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF to_regclass('pgrail.guard') IS NOT NULL AND to_regclass('pgrail.relation') IS NOT NULL AND to_regclass('pgrail.assignment') IS NOT NULL
     AND to_regclass('pgrail.member') IS NOT NULL AND to_regclass('pgrail.allowance') IS NOT NULL AND to_regclass('pgrail.usage') IS NOT NULL
     AND to_regproc('pgrail.rights') IS NOT NULL AND to_regproc('pgrail.spend') IS NOT NULL AND to_regproc('pgrail.spend_more') IS NOT NULL
     AND to_regproc('pgrail.judge_drop') IS NOT NULL AND to_regproc('pgrail.verdict') IS NOT NULL THEN
    PERFORM pgrail.judge_drop();
  END IF;
  -- A transaction that notified cannot be prepared for two-phase commit: where that is possible, nothing is told.
  IF current_setting('max_prepared_transactions')::int = 0 AND EXISTS (SELECT FROM pg_event_trigger_dropped_objects() d WHERE NOT d.is_temporary) THEN
    PERFORM pg_notify('pgrail', '');
  END IF;
END $$;

-- DETACH of a partition, where that is asked for: what carried a trigger of a root as its partition is none any more.
CREATE OR REPLACE FUNCTION pgrail.judge_detach() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  x record;
  a pgrail.assignment;
BEGIN
  IF NOT EXISTS (SELECT FROM pgrail.assignment WHERE protect_drop_partition) THEN RETURN; END IF;
  FOR x IN SELECT DISTINCT t.rel, r.id, r.rel AS root FROM pgrail.relation r
           JOIN pgrail.trigger t ON t.name = 'pgrail_note_' || r.id AND t.rel <> r.rel
           JOIN pg_class c ON c.oid = t.rel AND NOT c.relispartition
           JOIN pg_class p ON p.oid = r.rel AND p.relkind = 'p'
           WHERE EXISTS (SELECT FROM pg_event_trigger_ddl_commands() d JOIN pg_partition_tree(r.rel) tree ON tree.relid = d.objid
                         WHERE d.classid = 'pg_class'::regclass) LOOP
    FOR a IN SELECT y.* FROM pgrail.assignment y JOIN pgrail.guard g ON g.id = y.guard
             WHERE y.root = x.id AND y.protect_drop_partition ORDER BY g.enforce, g.name LOOP
      CONTINUE WHEN EXISTS (SELECT FROM pgrail.rights(a, 'Drop') w WHERE pgrail.spend_more(w, 'Drop', a.root, 0) IS NOT NULL);
      PERFORM pgrail.verdict(a, 'PGR03', format('DETACH of %s is not allowed', x.rel::text), format('The table is a partition of the guarded table %s.', x.root::text),
        'Ask for a GuardExemption, or take the guard off first.');
    END LOOP;
  END LOOP;
END $$;

-- Whatever may change what is guarded: told to whoever looks after the guards, who then looks.
CREATE OR REPLACE FUNCTION pgrail.on_ddl() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_event_trigger_ddl_commands() d WHERE d.schema_name IS DISTINCT FROM 'pg_temp') THEN RETURN; END IF;
  IF TG_TAG = 'ALTER TABLE' AND to_regclass('pgrail.guard') IS NOT NULL AND to_regclass('pgrail.relation') IS NOT NULL
     AND to_regclass('pgrail.assignment') IS NOT NULL AND to_regclass('pgrail.trigger') IS NOT NULL
     AND to_regclass('pgrail.allowance') IS NOT NULL AND to_regclass('pgrail.usage') IS NOT NULL
     AND to_regproc('pgrail.rights') IS NOT NULL AND to_regproc('pgrail.spend_more') IS NOT NULL
     AND to_regproc('pgrail.judge_detach') IS NOT NULL AND to_regproc('pgrail.verdict') IS NOT NULL THEN
    PERFORM pgrail.judge_detach();
  END IF;
  IF current_setting('max_prepared_transactions')::int = 0 THEN
    PERFORM pg_notify('pgrail', '');
  END IF;
END $$;

DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = 'pgrail.usage'::pg_catalog.regclass AND t.tgname = 'settle') THEN
    CREATE CONSTRAINT TRIGGER settle AFTER INSERT ON pgrail.usage DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pgrail.settle();
    ALTER TABLE pgrail.usage ENABLE ALWAYS TRIGGER settle;
  END IF;
END $$;
