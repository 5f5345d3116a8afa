
-- Removes what is captured of the tables of p_owner for too long, and the oldest transactions of guards that captured more
-- rows than they may; at most so many transactions, of one guard or all. p_bounds has the guards that capture. Returns how
-- many transactions it removed. Never waits: what another session has locked is left to that.
-- It has the privileges of its caller: of the owner within deletes, of pgrail's role when the operator calls it.
CREATE OR REPLACE FUNCTION pgrail.prune_captured_rows(p_owner oid, p_bounds jsonb, p_guard text, p_most int) RETURNS int
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  captured CONSTANT text := format('pgrail.captured_%s', p_owner);
  transactions CONSTANT text := format('pgrail.captured_transaction_%s', p_owner);
  due record;
  others int;
  locked int;
  removed int := 0;
BEGIN
  FOR due IN EXECUTE format($due$
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
    SELECT t.xid, t.began, t.guard FROM %2$s t JOIN kept k USING (xid, began, guard)
    -- The current transaction has not ended: a part of it would look like a whole.
    WHERE (k.old OR k.rows > k.max_rows) AND t.xid IS DISTINCT FROM pg_current_xact_id_if_assigned()
    ORDER BY t.began, t.xid LIMIT $3
    FOR UPDATE OF t SKIP LOCKED $due$, captured, transactions) USING p_bounds, p_guard, p_most
  LOOP
    -- What the same transaction deleted of another guard's tables is no longer a whole.
    EXECUTE format('SELECT count(*) FROM %s t WHERE t.xid = $1 AND t.began = $2 AND t.guard <> $3', transactions) INTO others USING due.xid, due.began, due.guard;
    EXECUTE format('SELECT count(*) FROM (SELECT FROM %s t WHERE t.xid = $1 AND t.began = $2 AND t.guard <> $3 FOR UPDATE SKIP LOCKED) x', transactions) INTO locked USING due.xid, due.began, due.guard;
    CONTINUE WHEN others <> locked;
    IF others > 0 THEN
      EXECUTE format('UPDATE %s t SET incomplete = ''the rows of other tables were removed'' WHERE t.xid = $1 AND t.began = $2 AND t.guard <> $3 AND t.incomplete IS NULL', transactions)
      USING due.xid, due.began, due.guard;
    END IF;
    EXECUTE format('DELETE FROM %s c WHERE c.xid = $1 AND c.began = $2 AND c.guard = $3', captured) USING due.xid, due.began, due.guard;
    EXECUTE format('DELETE FROM %s t WHERE t.xid = $1 AND t.began = $2 AND t.guard = $3', transactions) USING due.xid, due.began, due.guard;
    removed := removed + 1;
  END LOOP;
  RETURN removed;
END $$;
