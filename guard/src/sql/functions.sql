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
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
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
  FROM leaves
$$;

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
  PERFORM nextval(format('pgrail.blocked_%s', p_assignment.id)::regclass);
  IF guard.enforce THEN
    RAISE EXCEPTION USING ERRCODE = p_code, MESSAGE = 'pgrail: ' || p_message,
      DETAIL = format('%s Guard: %s.', p_detail, guard.name), HINT = p_hint, SCHEMA = root.nspname, TABLE = root.relname;
  END IF;
  PERFORM set_config(setting, key, true);
  RAISE WARNING USING ERRCODE = '01PGR', MESSAGE = 'pgrail: ' || p_message || ' (not stopped: the guard only warns)',
    DETAIL = format('%s Guard: %s.', p_detail, guard.name), HINT = p_hint, SCHEMA = root.nspname, TABLE = root.relname;
END $$;

-- The exact judgement of one row that went: called when a gate's quick look was not enough. Raises, or returns false.
-- p_kind 0: a row of the root was deleted; 1: a row of its closure was deleted or nulled; 2: a row of the root was updated.
CREATE OR REPLACE FUNCTION pgrail.trip(p_root int, p_kind int, p_rel oid) RETURNS bool
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  root pgrail.relation;
  n record;
  a record;
  key text := encode(timestamptz_send(statement_timestamp()), 'hex');
  note text := nullif(current_setting('pgrail.note_' || p_root, true), '');
  -- What the session noted about itself, see pgrail.note_<root>; anything else that it wrote there counts as zeros.
  noted bigint[] := '{0,0,0,0,0,0}';
  of_this_statement bool := coalesce(left(note, 16) = key, false);
  before bigint := 0;
  before_cascaded bigint := 0;
  moved bigint := 0;
  deleted bigint;
  cascaded bigint;
  statement_deleted bigint := 0;
  statement_cascaded bigint := 0;
  updated bigint;
  what text;
BEGIN
  SELECT * INTO root FROM pgrail.relation WHERE id = p_root;
  IF NOT FOUND THEN RETURN false; END IF;
  IF current_setting('session_replication_role') = 'replica' THEN
    IF pgrail.is_apply_worker() THEN RETURN false; END IF;
  END IF;
  n := pgrail.counts(p_root);

  IF p_kind = 2 THEN
    note := current_setting('pgrail.updated_' || p_root, true);
    updated := n.updated;
    IF left(note, 16) = key AND note ~ '^[0-9a-f]{16}:[0-9]{1,18}$' THEN updated := updated - split_part(note, ':', 2)::bigint; END IF;
    FOR a IN SELECT x AS assignment, x.max_updated_rows, g.enforce FROM pgrail.assignment x JOIN pgrail.guard g ON g.id = x.guard
             WHERE x.root = p_root AND updated > x.max_updated_rows ORDER BY g.enforce, x.max_updated_rows LOOP
      PERFORM pgrail.verdict(a.assignment, 'PGR04',
        format('UPDATE on %s %s more than %s rows in one statement (maxUpdatedRows)', root.rel::text,
          CASE WHEN a.enforce THEN 'would change' ELSE 'changes' END, a.max_updated_rows),
        format('Reached in %s.', p_rel::regclass), 'Update in smaller batches, or ask for a GuardExemption.');
    END LOOP;
    RETURN false;
  END IF;

  -- The root lost nothing: the cascade of somebody else.
  IF n.deleted = 0 THEN RETURN false; END IF;
  -- A cascade from another guarded root counts there only.
  IF p_kind = 0 AND root.above <> '{}' AND pg_trigger_depth() > 0 THEN
    IF EXISTS (SELECT FROM unnest(root.above) above(id) WHERE (pgrail.counts(above.id)).deleted > 0) THEN RETURN false; END IF;
  END IF;

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
  IF of_this_statement THEN
    statement_deleted := n.deleted - noted[1];
    statement_cascaded := cascaded - (noted[2] - before_cascaded);
  ELSIF note IS NULL THEN
    statement_deleted := deleted;
    statement_cascaded := cascaded;
  END IF;

  FOR a IN SELECT x AS assignment, x.max_rows, x.max_cascade_rows, x.max_transaction_rows, g.enforce
           FROM pgrail.assignment x JOIN pgrail.guard g ON g.id = x.guard
           WHERE x.root = p_root AND x.protect_delete ORDER BY g.enforce, x.max_rows, x.max_cascade_rows LOOP
    what := NULL;
    IF deleted + cascaded > a.max_transaction_rows THEN
      what := format('remove more than %s rows in one transaction (maxTransactionRows)', a.max_transaction_rows);
    ELSIF a.max_transaction_rows IS NULL AND deleted > a.max_rows THEN
      what := format('remove more than %s of its rows in one transaction (maxRows)', a.max_rows);
    ELSIF a.max_transaction_rows IS NOT NULL AND statement_deleted > a.max_rows THEN
      what := format('remove more than %s of its rows in one statement (maxRows)', a.max_rows);
    ELSIF a.max_transaction_rows IS NULL AND cascaded > a.max_cascade_rows THEN
      what := format('take more than %s rows of other tables in one transaction (maxCascadeRows)', a.max_cascade_rows);
    ELSIF a.max_transaction_rows IS NOT NULL AND statement_cascaded > a.max_cascade_rows THEN
      what := format('take more than %s rows of other tables in one statement (maxCascadeRows)', a.max_cascade_rows);
    END IF;
    IF what IS NOT NULL THEN
      PERFORM pgrail.verdict(a.assignment, 'PGR01', format('DELETE on %s would %s', root.rel::text, what),
        format('Reached in %s (%s), after %s rows of %s and %s rows of other tables in this transaction.', p_rel::regclass,
          coalesce((SELECT m.path FROM pgrail.member m WHERE m.root = p_root AND m.rel IN (SELECT p_rel UNION SELECT relid FROM pg_partition_ancestors(p_rel))
                    ORDER BY m.effect = 'r' LIMIT 1), 'a new partition'), deleted, root.rel::text, cascaded),
        'Delete in smaller batches, each in a transaction of its own, or ask for a GuardExemption.');
    END IF;
  END LOOP;
  RETURN false;
END $$;

-- TRUNCATE of a root, of a table of its tree, or through CASCADE from elsewhere.
CREATE OR REPLACE FUNCTION pgrail.truncating(p_rel oid) RETURNS bool
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  a pgrail.assignment;
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
     AND to_regclass('pgrail.member') IS NOT NULL AND to_regproc('pgrail.judge_drop') IS NOT NULL AND to_regproc('pgrail.verdict') IS NOT NULL THEN
    PERFORM pgrail.judge_drop();
  END IF;
END $$;
