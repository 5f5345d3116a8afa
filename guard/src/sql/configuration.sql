-- The configuration, in one row of JSON. The names are those of tables in version 1, of views since.
-- Only where pgrail.install exists.
SELECT json_build_object(
  'schema_version', i.schema_version,
  'owner', i.owner,
  'digest', i.digest,
  'installed_at', to_char(i.installed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
  'restored_from', CASE WHEN (to_jsonb(i) ->> 'restored')::bool THEN to_jsonb(i) ->> 'database' END,
  'server_version', (to_jsonb(i) ->> 'server_version')::int,
  'guards', coalesce((SELECT json_agg(g ORDER BY id) FROM (
      SELECT id, name, enforce, CASE WHEN capture_rows IS NOT NULL THEN json_build_object('retention', capture_seconds, 'max_rows', capture_rows) END AS capture FROM pgrail.guard) g), '[]'),
  'relations', coalesce((SELECT json_agg(r ORDER BY id) FROM (SELECT id, rel::oid::int8 AS rel, label, above FROM pgrail.relation) r), '[]'),
  'assignments', coalesce((SELECT json_agg(a ORDER BY id) FROM (
      SELECT id, root, guard, max_rows, max_cascade_rows, max_transaction_rows, max_updated_rows, to_jsonb(a) -> 'window' AS "window",
             protect_delete, protect_truncate, protect_drop, protect_drop_partition,
             coalesce((to_jsonb(a) ->> 'protect_drop_column')::bool, false) AS protect_drop_column FROM pgrail.assignment a) a), '[]'),
  'allowances', coalesce((SELECT json_agg(w ORDER BY id) FROM (
      SELECT id, guards, exemption, object, role, operations, roots, unlimited, max_rows, max_cascade_rows, max_transaction_rows, max_updated_rows, to_jsonb(w) -> 'window' AS "window",
             extract(epoch FROM not_before)::int8 AS not_before, extract(epoch FROM not_after)::int8 AS not_after, total_rows FROM pgrail.allowance w) w), '[]'),
  'members', coalesce((SELECT json_agg(m ORDER BY root, rel, effect) FROM (SELECT root, rel::oid::int8 AS rel, effect, path FROM pgrail.member) m), '[]'),
  'triggers', coalesce((SELECT json_agg(t) FROM (SELECT rel::oid::int8 AS rel, name, source, fingerprint FROM pgrail.trigger) t), '[]'),
  'routines', coalesce((SELECT json_agg(r) FROM (SELECT name, source, fingerprint FROM pgrail.routine) r), '[]'),
  'event_triggers', (SELECT split_part(p.prosrc, '$json$', 2)::json FROM pg_proc p
                     WHERE p.proname = 'config_event_triggers' AND p.pronamespace = 'pgrail'::regnamespace AND p.pronargs = 0),
  'counters', coalesce((
      SELECT json_agg(json_build_object('assignment', a.id, 'blocked',
        coalesce(pg_sequence_last_value(c.oid::regclass), 0) - a.skipped
        - CASE WHEN i.counters_of = pg_postmaster_start_time() THEN 0 ELSE greatest(coalesce(pg_sequence_last_value(c.oid::regclass), 0) - a.seen, 0) END))
      FROM pgrail.assignment a
      JOIN pg_class c ON c.relname = 'blocked_' || a.id AND c.relkind = 'S' AND c.relnamespace = 'pgrail'::regnamespace), '[]')
)::text
FROM pgrail.install i
