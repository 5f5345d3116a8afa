
-- Removes what is captured of the tables of p_owner for too long, and the oldest transactions of guards that captured more
-- rows than they may; at most so many transactions, of one guard or all. p_bounds has the guards that capture. Returns how
-- many transactions it removed. Never waits: what another session has locked is left to that.
-- It has the privileges of its caller: of the owner within deletes, of pgrail's role when the operator calls it.
CREATE OR REPLACE FUNCTION pgrail.prune_captured_rows(p_owner oid, p_bounds jsonb, p_guard text, p_most int) RETURNS int
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  captured CONSTANT text := format('pgrail.captured_%s', p_owner);
  transactions CONSTANT text := format('pgrail.captured_transaction_%s', p_owner);
  xids xid8[];
  begans timestamptz[];
  guards int[];
  others int;
  locked int;
BEGIN
  EXECUTE format($due$
    WITH sizes AS (
      SELECT c.xid, c.began, c.guard, count(*) AS rows FROM %1$s c GROUP BY c.xid, c.began, c.guard
    ), bounds AS (
      SELECT b.name, b.retention, b.max_rows FROM jsonb_to_recordset($1) AS b(name text, retention bigint, max_rows bigint)
    ), kept AS (
      SELECT t.xid, t.began, t.guard, coalesce(t.began + b.retention * interval '1 second', t.kept_until) < clock_timestamp() AS old, b.max_rows,
             -- A transaction of which no rows are left counts as one: it must not be kept forever either.
             sum(coalesce(s.rows, 1)) OVER (PARTITION BY t.guard_name ORDER BY t.began DESC, t.xid DESC, t.guard) AS rows
      FROM %2$s t LEFT JOIN sizes s USING (xid, began, guard) LEFT JOIN bounds b ON b.name = t.guard_name
      WHERE $2 IS NULL OR t.guard_name = $2
    )
    SELECT array_agg(d.xid), array_agg(d.began), array_agg(d.guard) FROM (
      SELECT t.xid, t.began, t.guard FROM %2$s t JOIN kept k USING (xid, began, guard)
      -- The current transaction has not ended: a part of it would look like a whole.
      WHERE (k.old OR k.rows > k.max_rows) AND t.xid IS DISTINCT FROM pg_current_xact_id_if_assigned()
      ORDER BY t.began, t.xid LIMIT $3
      FOR UPDATE OF t SKIP LOCKED) d $due$, captured, transactions) INTO xids, begans, guards USING p_bounds, p_guard, p_most;
  IF xids IS NULL THEN RETURN 0; END IF;

  -- What the same transactions deleted of another guard's tables is no longer a whole.
  EXECUTE format('SELECT count(*) FROM %s t WHERE EXISTS (SELECT FROM unnest($1, $2, $3) d(xid, began, guard) WHERE d.xid = t.xid AND d.began = t.began AND d.guard <> t.guard)', transactions)
  INTO others USING xids, begans, guards;
  IF others > 0 THEN
    EXECUTE format('SELECT count(*) FROM (SELECT FROM %s t WHERE EXISTS (SELECT FROM unnest($1, $2, $3) d(xid, began, guard)
      WHERE d.xid = t.xid AND d.began = t.began AND d.guard <> t.guard) FOR UPDATE SKIP LOCKED) x', transactions) INTO locked USING xids, begans, guards;
    IF locked <> others THEN
      -- Another session removes some of these: this time, only what has no other part.
      EXECUTE format('SELECT array_agg(d.xid), array_agg(d.began), array_agg(d.guard) FROM unnest($1, $2, $3) d(xid, began, guard)
        WHERE NOT EXISTS (SELECT FROM %s t WHERE t.xid = d.xid AND t.began = d.began AND t.guard <> d.guard)', transactions)
      INTO xids, begans, guards USING xids, begans, guards;
      IF xids IS NULL THEN RETURN 0; END IF;
    ELSE
      EXECUTE format('UPDATE %s t SET incomplete = ''the rows of other tables were removed'' WHERE t.incomplete IS NULL AND EXISTS (
        SELECT FROM unnest($1, $2, $3) d(xid, began, guard) WHERE d.xid = t.xid AND d.began = t.began AND d.guard <> t.guard)', transactions) USING xids, begans, guards;
    END IF;
  END IF;
  EXECUTE format('DELETE FROM %s c USING unnest($1, $2, $3) d(xid, began, guard) WHERE c.xid = d.xid AND c.began = d.began AND c.guard = d.guard', captured) USING xids, begans, guards;
  EXECUTE format('DELETE FROM %s t USING unnest($1, $2, $3) d(xid, began, guard) WHERE t.xid = d.xid AND t.began = d.began AND t.guard = d.guard', transactions) USING xids, begans, guards;
  RETURN cardinality(xids);
END $$;
