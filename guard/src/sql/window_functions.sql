-- Windows: what all transactions of all sessions together may remove from a root, and from its closure, within some time.
--
-- While little of a window is used, nothing is written: `window_<kind>_<assignment>` remembers where the server's shared
-- counters stood, and pgrail.window_<root>() only compares. What was added to them is counted later, up to half of the
-- window, since the counters also have what was rolled back, and what was removed otherwise. Beyond a quarter, each transaction
-- is counted at its end (`count_removed`): exactly what it removed, and nothing of what was rolled back. All of it is in
-- sequences: no lock, no row, nothing that a transaction's snapshot could hide or its abort undo.
--
-- Rows are counted in two buckets, one for the even, one for the odd multiples of the window's duration: the number of the
-- bucket in the high bits, the rows in the lower 36. The former bucket counts by the share of it that the window still has.
-- The kind is `rows` or `cascade`, the key an assignment, or an allowance and a root. Only nextval adds for several sessions
-- at once, and it adds one: a second sequence of each bucket (`even64`, `odd64`) counts 64 rows at a time.

-- The number of the present bucket, and the rows that the window has now.
CREATE OR REPLACE FUNCTION pgrail.window_buckets(p_kind text, p_key text, p_seconds int, OUT bucket bigint, OUT removed bigint)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  rows_mask CONSTANT bigint := (1::bigint << 36) - 1;
  prefix CONSTANT text := 'pgrail.window_' || p_kind;
  at CONSTANT float8 := extract(epoch FROM clock_timestamp())::float8 / p_seconds;
  even bigint := coalesce(pg_sequence_last_value(to_regclass(prefix || '_even_' || p_key)), 0);
  odd bigint := coalesce(pg_sequence_last_value(to_regclass(prefix || '_odd_' || p_key)), 0);
  even64 CONSTANT bigint := coalesce(pg_sequence_last_value(to_regclass(prefix || '_even64_' || p_key)), 0);
  odd64 CONSTANT bigint := coalesce(pg_sequence_last_value(to_regclass(prefix || '_odd64_' || p_key)), 0);
  share float8;
  present bigint;
  former bigint;
BEGIN
  IF even64 >> 36 = even >> 36 THEN even := even + (even64 & rows_mask) * 64; END IF;
  IF odd64 >> 36 = odd >> 36 THEN odd := odd + (odd64 & rows_mask) * 64; END IF;
  bucket := floor(at);
  share := 1 - (at - bucket);
  -- A clock that was set back does not begin an earlier bucket.
  IF greatest(even >> 36, odd >> 36) = bucket + 1 THEN
    bucket := bucket + 1;
    share := 1;
  END IF;
  present := CASE bucket & 1 WHEN 0 THEN even ELSE odd END;
  former := CASE bucket & 1 WHEN 0 THEN odd ELSE even END;
  removed := CASE WHEN present >> 36 = bucket THEN present & rows_mask ELSE 0 END
           + ceil(CASE WHEN former >> 36 = bucket - 1 THEN former & rows_mask ELSE 0 END * share)::bigint;
END $$;

-- Counts rows, whatever becomes of this transaction.
CREATE OR REPLACE FUNCTION pgrail.count_in_window(p_kind text, p_key text, p_seconds int, p_rows bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  prefix CONSTANT text := 'pgrail.window_' || p_kind;
  bucket bigint := floor(extract(epoch FROM clock_timestamp())::float8 / p_seconds);
  parity text;
  ones regclass;
  blocks regclass;
  rest bigint := p_rows;
BEGIN
  IF p_rows <= 0 THEN RETURN; END IF;
  -- As in window_buckets.
  IF bucket + 1 IN (pg_sequence_last_value(to_regclass(prefix || '_even_' || p_key)) >> 36, pg_sequence_last_value(to_regclass(prefix || '_odd_' || p_key)) >> 36) THEN
    bucket := bucket + 1;
  END IF;
  parity := CASE bucket & 1 WHEN 0 THEN 'even' ELSE 'odd' END;
  ones := to_regclass(prefix || '_' || parity || '_' || p_key);
  IF ones IS NULL THEN RETURN; END IF;
  IF coalesce(pg_sequence_last_value(ones) >> 36, -1) <> bucket THEN PERFORM setval(ones, bucket << 36); END IF;
  IF p_rows >= 64 THEN
    blocks := to_regclass(prefix || '_' || parity || '64_' || p_key);
    -- An earlier version did not have it.
    IF blocks IS NOT NULL THEN
      IF coalesce(pg_sequence_last_value(blocks) >> 36, -1) <> bucket THEN PERFORM setval(blocks, bucket << 36); END IF;
      PERFORM nextval(blocks) FROM generate_series(1, p_rows / 64);
      rest := p_rows % 64;
    END IF;
  END IF;
  IF rest = 1 THEN
    PERFORM nextval(ones);
  ELSE
    PERFORM nextval(ones) FROM generate_series(1, rest);
  END IF;
END $$;

-- The server's shared counters of a root and its closure, and a fingerprint of the tables that they are of.
CREATE OR REPLACE FUNCTION pgrail.window_counters(p_root jsonb, OUT rows bigint, OUT cascaded bigint, OUT tables bigint)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  counted CONSTANT jsonb := p_root -> 'counted';
  t oid;
BEGIN
  IF counted IS NOT NULL THEN
    rows := 0;
    cascaded := 0;
    tables := counted -> 'tables';
    FOREACH t IN ARRAY (counted ->> 'r')::oid[] LOOP rows := rows + pg_stat_get_tuples_deleted(t); END LOOP;
    FOREACH t IN ARRAY (counted ->> 'd')::oid[] LOOP cascaded := cascaded + pg_stat_get_tuples_deleted(t); END LOOP;
    FOREACH t IN ARRAY (counted ->> 'u')::oid[] LOOP cascaded := cascaded + pg_stat_get_tuples_updated(t); END LOOP;
    RETURN;
  END IF;
  WITH leaves AS (
    SELECT DISTINCT m.effect, l.oid
    FROM jsonb_to_recordset(p_root -> 'members') AS m(rel oid, effect "char"),
         LATERAL (SELECT m.rel UNION SELECT t.relid::oid FROM pg_partition_tree(m.rel::regclass) t WHERE t.isleaf) l(oid)
  )
  SELECT coalesce(sum(pg_stat_get_tuples_deleted(oid)) FILTER (WHERE effect = 'r'), 0)::bigint,
         (coalesce(sum(pg_stat_get_tuples_deleted(oid)) FILTER (WHERE effect = 'd' AND oid NOT IN (SELECT r.oid FROM leaves r WHERE r.effect = 'r')), 0)
          + coalesce(sum(pg_stat_get_tuples_updated(oid)) FILTER (WHERE effect = 'u'), 0))::bigint,
         hashtextextended(coalesce(string_agg(concat(effect, oid), ',' ORDER BY effect, oid), ''), 0) & 16777215
  INTO rows, cascaded, tables
  FROM leaves;
END $$;

-- Whether an assignment's counters are of the tables that they were of before. In the high bits of its sequence is when it
-- began to count.
CREATE OR REPLACE FUNCTION pgrail.window_has_tables(p_assignment int, p_tables bigint) RETURNS bool
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN coalesce(pg_sequence_last_value(to_regclass('pgrail.window_since_' || p_assignment)) & 16777215 = p_tables, false);
END $$;

-- Brings one kind of an assignment's window up to date. Returns the rows that it has, and whether this transaction must be
-- counted at its end. The state: where the shared counter stood, less 2^62 while each transaction is counted.
CREATE OR REPLACE FUNCTION pgrail.observe_window(p_root jsonb, p_kind text, p_assignment int, p_limit bigint, p_seconds int, p_transaction bigint, p_shared bigint,
                                                 p_pending bigint, p_own bigint, p_tables bigint, OUT removed bigint, OUT counted bool)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  each CONSTANT bigint := 1::bigint << 62;
  -- As pgrail.window_<root>() has it: up to there it does not ask again.
  step CONSTANT bigint := 1::bigint << (length(ltrim(greatest(p_limit / 16, 1)::int::bit(32)::text, '0')) - 1);
  memory CONSTANT regclass := to_regclass(format('pgrail.window_%s_%s', p_kind, p_assignment));
  since CONSTANT regclass := to_regclass('pgrail.window_since_' || p_assignment);
  state CONSTANT bigint := pg_sequence_last_value(memory);
  stood bigint := CASE WHEN state < 0 THEN state + each ELSE state END;
  before CONSTANT bigint := stood;
  grown bigint;
BEGIN
  -- Dropped by others, and not yet installed again: nothing can be counted.
  IF memory IS NULL OR since IS NULL THEN
    removed := 0;
    counted := false;
    RETURN;
  END IF;
  -- What this transaction read of the counters may be older than what another session remembered meanwhile.
  IF p_shared < stood THEN
    PERFORM pg_stat_clear_snapshot();
    p_shared := CASE p_kind WHEN 'rows' THEN (pgrail.window_counters(p_root)).rows ELSE (pgrail.window_counters(p_root)).cascaded END;
  END IF;
  IF stood IS NULL OR p_shared < stood THEN
    -- New, or the counters went backwards. With other tables, such as fewer partitions, it goes on with what was counted.
    IF stood IS NULL OR pgrail.window_has_tables(p_assignment, p_tables) THEN
      PERFORM setval(to_regclass(format('pgrail.window_%s_%s_%s', p_kind, parity, p_assignment)), 0) FROM unnest('{even,odd,even64,odd64}'::text[]) parity;
      PERFORM setval(since, (extract(epoch FROM clock_timestamp())::bigint << 24) | p_tables);
      IF stood IS NOT NULL THEN
        RAISE LOG 'pgrail: the window of assignment % starts anew, since the statistics of its tables were reset', p_assignment;
      END IF;
    END IF;
    stood := p_shared;
  END IF;
  removed := (pgrail.window_buckets(p_kind, p_assignment::text, p_seconds)).removed;
  grown := 0;
  IF state < 0 THEN
    counted := removed + p_own > p_limit / 8 OR p_pending >= step;
  ELSE
    -- What this session has not reported, since it commits in a procedure, would be reported too late.
    grown := p_shared - stood;
    counted := removed + grown + p_pending + p_own > p_limit / 4 OR p_pending >= step;
    IF counted THEN grown := grown + p_pending; END IF;
    grown := greatest(least(grown, greatest(p_limit / 4 + step, least(p_limit / 4 + step + p_transaction, p_limit / 2)) - removed), 0);
  END IF;
  IF counted <> (coalesce(state, 0) < 0) OR state IS NULL OR p_shared - before >= step OR p_shared < before THEN
    -- Another session may have found meanwhile that each transaction must be counted.
    IF counted OR pg_sequence_last_value(memory) IS NOT DISTINCT FROM state THEN
      PERFORM setval(memory, CASE WHEN counted THEN p_shared - each ELSE p_shared END);
    END IF;
    PERFORM pgrail.count_in_window(p_kind, p_assignment::text, p_seconds, grown);
  END IF;
  removed := removed + grown;
END $$;

-- At the end of a statement on a root, where its window may be used up. Raises, or returns false.
CREATE OR REPLACE FUNCTION pgrail.check_window(p_root int) RETURNS bool
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  root CONSTANT jsonb := pgrail.root(p_root);
  root_name CONSTANT text := (root ->> 'rel')::oid::regclass;
  m record;
  c record;
  a record;
  w pgrail.allowance;
  o record;
  of_rows bigint;
  of_cascade bigint;
  counted bool;
  covered bool;
  what text;
  beyond text;
  under text;
  seconds int;
  rows_limit bigint;
  cascade_limit bigint;
  assignments int[] := '{}';
  allowances int[] := '{}';
  durations int[] := '{}';
  about jsonb;
  stopped bool;
  here tid;
  allows CONSTANT bool := coalesce((root ->> 'allowances')::bool, true);
BEGIN
  IF root IS NULL OR pgrail.is_apply_worker() THEN RETURN false; END IF;
  m := pgrail.measure(p_root, root);
  -- Nothing was removed by this transaction.
  IF m.deleted <= 0 THEN RETURN false; END IF;
  -- A cascade from another guarded root counts there only.
  IF root -> 'above' <> '[]' AND pg_trigger_depth() > 0 THEN
    IF EXISTS (SELECT FROM jsonb_array_elements_text(root -> 'above') above(id) WHERE (pgrail.counts(pgrail.root(above.id::int))).deleted > 0) THEN RETURN false; END IF;
  END IF;
  c := pgrail.window_counters(root);
  FOR a IN SELECT x.*, (x."window" ->> 'duration')::int AS seconds, (x."window" ->> 'max_rows')::bigint AS window_rows, (x."window" ->> 'max_cascade_rows')::bigint AS window_cascade_rows
           FROM jsonb_to_recordset(root -> 'assignments') AS x(id int, guard int, guard_name text, enforce bool, max_rows bigint, max_cascade_rows bigint,
             max_transaction_rows bigint, protect_delete bool, "window" jsonb)
           WHERE x.protect_delete AND x."window" ->> 'duration' IS NOT NULL ORDER BY x.enforce, x.id LOOP
    what := NULL;
    under := '';
    counted := false;
    of_rows := 0;
    of_cascade := 0;
    IF a.window_rows IS NOT NULL THEN
      o := pgrail.observe_window(root, 'rows', a.id, a.window_rows, a.seconds, coalesce(a.max_transaction_rows, a.max_rows),
        c.rows, greatest(m.rows_counted - m.deleted, 0), m.deleted, c.tables);
      of_rows := o.removed;
      counted := o.counted;
      IF of_rows + m.deleted > a.window_rows THEN what := pgrail.window_violation('rows', a.window_rows, a.seconds); END IF;
    END IF;
    IF a.window_cascade_rows IS NOT NULL THEN
      o := pgrail.observe_window(root, 'cascade', a.id, a.window_cascade_rows, a.seconds, coalesce(a.max_transaction_rows, a.max_cascade_rows),
        c.cascaded, greatest(m.cascade_counted - m.cascaded, 0), m.cascaded, c.tables);
      of_cascade := o.removed;
      counted := counted OR o.counted;
      -- The cascade of this statement has not begun.
      IF what IS NULL AND (of_cascade + m.cascaded > a.window_cascade_rows OR of_cascade >= greatest(a.window_cascade_rows, 1)) THEN
        what := pgrail.window_violation('cascade', a.window_cascade_rows, a.seconds);
      END IF;
    END IF;
    IF NOT pgrail.window_has_tables(a.id, c.tables) THEN
      PERFORM setval(to_regclass('pgrail.window_since_' || a.id), (coalesce(pg_sequence_last_value(to_regclass('pgrail.window_since_' || a.id)), 0) >> 24 << 24) | c.tables);
    END IF;
    CONTINUE WHEN NOT counted AND what IS NULL;

    -- What a role with an allowance removes counts there first, and takes nothing from the others.
    covered := false;
    FOR w IN SELECT x.* FROM pgrail.allowances_for(a.guard, p_root, 'Delete') x WHERE allows LOOP
      -- What is given once is not used where it is not needed.
      CONTINUE WHEN what IS NULL AND w.total_rows IS NOT NULL;
      IF w.unlimited THEN
        seconds := NULL;
      ELSE
        -- Without a window of its own it has that of the guard; but what it may remove in one transaction, it may.
        seconds := coalesce((w."window" ->> 'duration')::int, a.seconds);
        rows_limit := CASE WHEN w."window" IS NULL THEN greatest(a.window_rows, w.max_rows, w.max_transaction_rows) ELSE (w."window" ->> 'max_rows')::bigint END;
        cascade_limit := CASE WHEN w."window" IS NULL THEN greatest(a.window_cascade_rows, w.max_cascade_rows, w.max_transaction_rows) ELSE (w."window" ->> 'max_cascade_rows')::bigint END;
        beyond := NULL;
        o := pgrail.window_buckets('rows', format('w%s_%s', w.id, p_root), seconds);
        IF o.removed + m.deleted > rows_limit THEN beyond := pgrail.window_violation('rows', rows_limit, seconds); END IF;
        o := pgrail.window_buckets('cascade', format('w%s_%s', w.id, p_root), seconds);
        IF beyond IS NULL AND (o.removed + m.cascaded > cascade_limit OR o.removed >= greatest(cascade_limit, 1)) THEN
          beyond := pgrail.window_violation('cascade', cascade_limit, seconds);
        END IF;
        IF beyond IS NOT NULL THEN
          IF what IS NOT NULL THEN
            what := beyond;
            under := format(' Under the %s %s.', CASE WHEN w.exemption IS NULL THEN 'allowance of' ELSE 'GuardExemption' END, coalesce(w.exemption, w.role));
          END IF;
          CONTINUE;
        END IF;
      END IF;
      -- What the transaction may still remove; at its end, what it did not is refunded.
      IF pgrail.charge(w.id, w.total_rows, 'Delete', p_root, m.deleted + m.cascaded, m.deleted + m.cascaded + a.max_rows + a.max_cascade_rows) IS NULL THEN
        IF what IS NOT NULL THEN what := format('remove more than the %s rows of the GuardExemption %s (totalRows)', w.total_rows, w.exemption); END IF;
        CONTINUE;
      END IF;
      covered := true;
      IF seconds IS NOT NULL THEN
        allowances := allowances || w.id;
        durations := durations || seconds;
      END IF;
      EXIT;
    END LOOP;
    CONTINUE WHEN covered;
    IF counted THEN assignments := assignments || a.id; END IF;
    CONTINUE WHEN what IS NULL;
    IF to_regproc('pgrail.rehearsal_' || pg_backend_pid()) IS NULL AND to_regclass('pgrail.window_stopped_' || a.id) IS NOT NULL THEN
      PERFORM setval(to_regclass('pgrail.window_stopped_' || a.id), extract(epoch FROM clock_timestamp())::bigint);
    END IF;
    about := pgrail.named((root ->> 'rel')::oid) || jsonb_build_object('assignment', a.id, 'enforce', a.enforce, 'guard', a.guard_name, 'code', 'PGR01',
      'message', format('DELETE on %s would %s', root_name, what),
      'detail', format('Within that time, all transactions together removed %s rows of %s and %s rows of other tables. This transaction removed %s and %s rows.',
        of_rows, root_name, of_cascade, m.deleted, m.cascaded) || under,
      'hint', 'Wait until fewer rows were removed within that time, or ask for a GuardExemption.');
    stopped := pgrail.report(about);
  END LOOP;

  IF (assignments <> '{}' OR allowances <> '{}')
     AND EXISTS (SELECT FROM pg_constraint k WHERE k.conname = 'count_removed' AND k.connamespace = 'pgrail'::regnamespace) THEN
    -- Whatever the session has set: what the cascade removes is only known at the end.
    SET CONSTRAINTS pgrail.count_removed DEFERRED;
    INSERT INTO pgrail.removal (root, rows, assignments, allowances, durations) VALUES (p_root, m.deleted, assignments, allowances, durations) RETURNING ctid INTO here;
    DELETE FROM pgrail.removal r WHERE r.ctid = here;
  END IF;
  RETURN false;
END $$;

CREATE OR REPLACE FUNCTION pgrail.window_violation(p_kind text, p_limit bigint, p_seconds int) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT format(CASE p_kind WHEN 'rows' THEN 'remove more than %s of its rows within %s (window.maxRows)' ELSE 'take more than %s rows of other tables within %s (window.maxCascadeRows)' END,
    p_limit, CASE WHEN p_seconds % 3600 = 0 THEN p_seconds / 3600 || ' h' WHEN p_seconds % 60 = 0 THEN p_seconds / 60 || ' min' ELSE p_seconds || ' s' END)
$$;

-- At the end of a transaction: counts what it removed. What of it is counted already, since a session has set constraints
-- to IMMEDIATE or since several statements are counted, is the value of a sequence in this session, as with updated_before.
CREATE OR REPLACE FUNCTION pgrail.count_removed() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  most CONSTANT bigint := (1::bigint << 23) - 1;
  key bigint;
  root jsonb;
  m record;
  a record;
  note bigint;
  of_rows bigint;
  of_cascade bigint;
BEGIN
  IF to_regproc('pgrail.measure') IS NULL OR to_regproc('pgrail.root') IS NULL OR to_regproc('pgrail.count_in_window') IS NULL
     OR to_regproc('pgrail.rehearsal_' || pg_backend_pid()) IS NOT NULL OR to_regclass('pgrail.window_counted_' || NEW.root) IS NULL THEN
    RETURN NULL;
  END IF;
  IF NEW.simple AND to_regproc('pgrail.removed_' || NEW.root) IS NOT NULL THEN
    EXECUTE 'SELECT pgrail.removed_' || NEW.root || '($1)' USING NEW.rows;
    RETURN NULL;
  END IF;
  root := pgrail.root(NEW.root);
  IF root IS NULL THEN RETURN NULL; END IF;
  m := pgrail.measure(NEW.root, root);
  of_rows := greatest(m.deleted, NEW.rows);
  of_cascade := greatest(m.cascaded, 0);
  key := pg_current_xact_id()::text::bigint & 131071;
  BEGIN
    note := currval(to_regclass('pgrail.window_counted_' || NEW.root));
  EXCEPTION WHEN object_not_in_prerequisite_state THEN NULL;
  END;
  PERFORM setval(to_regclass('pgrail.window_counted_' || NEW.root), (key << 46) | (least(of_rows, most) << 23) | least(of_cascade, most));
  IF note >> 46 = key THEN
    of_rows := greatest(of_rows - ((note >> 23) & most), 0);
    of_cascade := greatest(of_cascade - (note & most), 0);
  END IF;
  FOR a IN SELECT x.id, (x."window" ->> 'duration')::int AS seconds FROM jsonb_to_recordset(root -> 'assignments') AS x(id int, "window" jsonb)
           WHERE x.id = ANY (NEW.assignments) AND x."window" ->> 'duration' IS NOT NULL LOOP
    -- Where not each transaction is counted, the shared counters have it.
    IF pg_sequence_last_value(to_regclass('pgrail.window_rows_' || a.id)) < 0 THEN PERFORM pgrail.count_in_window('rows', a.id::text, a.seconds, of_rows); END IF;
    IF pg_sequence_last_value(to_regclass('pgrail.window_cascade_' || a.id)) < 0 THEN PERFORM pgrail.count_in_window('cascade', a.id::text, a.seconds, of_cascade); END IF;
  END LOOP;
  FOR a IN SELECT DISTINCT format('w%s_%s', w.id, NEW.root) AS key, w.seconds FROM unnest(NEW.allowances, NEW.durations) w(id, seconds) LOOP
    PERFORM pgrail.count_in_window('rows', a.key, a.seconds, of_rows);
    PERFORM pgrail.count_in_window('cascade', a.key, a.seconds, of_cascade);
  END LOOP;
  RETURN NULL;
END $$;

-- How much of the windows of a guard, or of all, is used; writes nothing. `since`: when it began to count, `stopped`: when it last stopped a
-- statement, both in seconds since 1970.
CREATE OR REPLACE FUNCTION pgrail.windows(p_guard text) RETURNS TABLE (assignment int, seconds int, removed bigint, max_rows bigint, cascade_removed bigint, max_cascade_rows bigint, since bigint, stopped bigint)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  a record;
  c record;
  state bigint;
BEGIN
  FOR a IN SELECT x.id, x.root, x."window" FROM pgrail.assignment x JOIN pgrail.guard g ON g.id = x.guard
           WHERE x."window" IS NOT NULL AND x.protect_delete AND (p_guard IS NULL OR g.name = p_guard) ORDER BY x.id LOOP
    c := pgrail.window_counters(pgrail.root(a.root));
    assignment := a.id;
    seconds := a."window" ->> 'duration';
    max_rows := a."window" ->> 'max_rows';
    max_cascade_rows := a."window" ->> 'max_cascade_rows';
    removed := NULL;
    cascade_removed := NULL;
    IF max_rows IS NOT NULL THEN
      state := pg_sequence_last_value(to_regclass('pgrail.window_rows_' || assignment));
      removed := (pgrail.window_buckets('rows', assignment::text, seconds)).removed;
      IF state >= 0 THEN removed := removed + least(greatest(c.rows - state, 0), greatest(max_rows / 2 - removed, 0)); END IF;
    END IF;
    IF max_cascade_rows IS NOT NULL THEN
      state := pg_sequence_last_value(to_regclass('pgrail.window_cascade_' || assignment));
      cascade_removed := (pgrail.window_buckets('cascade', assignment::text, seconds)).removed;
      IF state >= 0 THEN cascade_removed := cascade_removed + least(greatest(c.cascaded - state, 0), greatest(max_cascade_rows / 2 - cascade_removed, 0)); END IF;
    END IF;
    since := pg_sequence_last_value(to_regclass('pgrail.window_since_' || assignment)) >> 24;
    stopped := pg_sequence_last_value(to_regclass('pgrail.window_stopped_' || assignment));
    RETURN NEXT;
  END LOOP;
END $$;

DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = 'pgrail.removal'::pg_catalog.regclass AND t.tgname = 'count_removed') THEN
    CREATE CONSTRAINT TRIGGER count_removed AFTER INSERT ON pgrail.removal DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pgrail.count_removed();
    ALTER TABLE pgrail.removal ENABLE ALWAYS TRIGGER count_removed;
  END IF;
END $$;
