-- Triggers and gates of version 1 stay until they are replaced, table by table: they call these two.
DO $upgrade$
BEGIN
  IF pg_catalog.to_regclass('pgrail.version_1_usage') IS NOT NULL THEN
    INSERT INTO pgrail.usage SELECT u.allowance, u.root, u.operation, u.xid, u.rows, u.leased, u.statements, u.statement_at FROM pgrail.version_1_usage u;
  END IF;
  IF pg_catalog.to_regclass('pgrail.version_1_allowance') IS NOT NULL THEN
    DELETE FROM pgrail.budget;
    INSERT INTO pgrail.budget SELECT w.id, w.spent FROM pgrail.version_1_allowance w WHERE w.total_rows IS NOT NULL AND w.id IN (SELECT x.id FROM pgrail.allowance x);
  END IF;
  IF pg_catalog.to_regclass('pgrail.version_1_assignment') IS NOT NULL AND pg_catalog.to_regclass('pgrail.version_1_install') IS NOT NULL THEN
    PERFORM pgrail.write_document('counters', (
      SELECT pg_catalog.jsonb_build_object('server_start', (SELECT i.counters_of FROM pgrail.version_1_install i),
        'seen', pg_catalog.jsonb_object_agg(a.id, a.seen), 'skipped', pg_catalog.jsonb_object_agg(a.id, a.skipped)) FROM pgrail.version_1_assignment a));
  END IF;
END $upgrade$;
DROP TABLE IF EXISTS pgrail.version_1_usage, pgrail.version_1_allowance, pgrail.version_1_assignment, pgrail.version_1_member, pgrail.version_1_relation,
  pgrail.version_1_guard, pgrail.version_1_trigger, pgrail.version_1_routine, pgrail.version_1_install;
CREATE OR REPLACE FUNCTION pgrail.trip(p_root int, p_kind int, p_rel oid) RETURNS bool
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN pgrail.check_limits(p_root, p_kind, p_rel); END $$;
CREATE OR REPLACE FUNCTION pgrail.truncating(p_rel oid) RETURNS bool
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN pgrail.check_truncate(p_rel); END $$
