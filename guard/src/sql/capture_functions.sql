
-- Takes away what is kept too long, and the oldest transactions of guards that keep more rows than they may; at most so
-- many transactions, of one guard or all. Returns how many went. Never waits: what somebody else holds is left to them.
CREATE OR REPLACE FUNCTION pgrail.prune_captured(p_guard text, p_most int) RETURNS int
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  due record;
  others int;
  gone int := 0;
BEGIN
  FOR due IN
    WITH sizes AS (
      SELECT c.xid, c.began, c.guard, count(*) AS rows FROM pgrail.captured c GROUP BY c.xid, c.began, c.guard
    ), kept AS (
      SELECT t.xid, t.began, t.guard, coalesce(t.began + g.capture_seconds * interval '1 second', t.kept_until) < clock_timestamp() AS old, g.capture_rows,
             -- A transaction of which no rows are left counts as one: it must not be kept forever either.
             sum(coalesce(s.rows, 1)) OVER (PARTITION BY t.guard_name ORDER BY t.began DESC, t.xid DESC, t.guard) AS rows
      FROM pgrail.captured_transaction t LEFT JOIN sizes s USING (xid, began, guard) LEFT JOIN pgrail.guard g ON g.name = t.guard_name
      WHERE p_guard IS NULL OR t.guard_name = p_guard
    )
    SELECT t.xid, t.began, t.guard FROM pgrail.captured_transaction t JOIN kept k USING (xid, began, guard)
    -- The current transaction has not ended: a part of it would look like a whole.
    WHERE (k.old OR k.rows > k.capture_rows) AND t.xid IS DISTINCT FROM pg_current_xact_id_if_assigned()
    ORDER BY t.began, t.xid LIMIT p_most
    FOR UPDATE OF t SKIP LOCKED
  LOOP
    -- What the same transaction took of another guard's tables is no whole any more.
    SELECT count(*) INTO others FROM (
      SELECT FROM pgrail.captured_transaction t WHERE t.xid = due.xid AND t.began = due.began AND t.guard <> due.guard FOR UPDATE SKIP LOCKED) x;
    CONTINUE WHEN others <> (SELECT count(*) FROM pgrail.captured_transaction t WHERE t.xid = due.xid AND t.began = due.began AND t.guard <> due.guard);
    IF others > 0 THEN
      UPDATE pgrail.captured_transaction t SET incomplete = 'rows of other tables are not kept any more'
      WHERE t.xid = due.xid AND t.began = due.began AND t.guard <> due.guard AND t.incomplete IS NULL;
    END IF;
    DELETE FROM pgrail.captured c WHERE c.xid = due.xid AND c.began = due.began AND c.guard = due.guard;
    DELETE FROM pgrail.captured_transaction t WHERE t.xid = due.xid AND t.began = due.began AND t.guard = due.guard;
    gone := gone + 1;
  END LOOP;
  RETURN gone;
END $$;
