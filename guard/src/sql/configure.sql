-- Makes the configuration exactly what $1 says. Rows that say the same already are not written.
WITH wanted AS (SELECT $1::jsonb AS j),
gone_guards AS (
  DELETE FROM pgrail.guard g WHERE NOT EXISTS (SELECT FROM wanted, jsonb_to_recordset(j -> 'guards') AS w(id int) WHERE w.id = g.id)
),
gone_assignments AS (
  DELETE FROM pgrail.assignment a WHERE NOT EXISTS (SELECT FROM wanted, jsonb_to_recordset(j -> 'assignments') AS w(id int) WHERE w.id = a.id)
),
gone_allowances AS (
  DELETE FROM pgrail.allowance a WHERE NOT EXISTS (SELECT FROM wanted, jsonb_to_recordset(j -> 'allowances') AS w(id int) WHERE w.id = a.id)
),
gone_members AS (
  DELETE FROM pgrail.member m WHERE NOT EXISTS (
    SELECT FROM wanted, jsonb_to_recordset(j -> 'members') AS w(root int, rel oid, effect "char") WHERE w.root = m.root AND w.rel = m.rel AND w.effect = m.effect)
),
gone_relations AS (
  DELETE FROM pgrail.relation r WHERE NOT EXISTS (SELECT FROM wanted, jsonb_to_recordset(j -> 'relations') AS w(id int) WHERE w.id = r.id)
)
UPDATE pgrail.install SET owner = j ->> 'owner' FROM wanted WHERE owner <> j ->> 'owner';

INSERT INTO pgrail.guard AS g (id, name, enforce, capture_seconds, capture_rows)
SELECT w.id, w.name, w.enforce, (w.capture ->> 'retention')::bigint, (w.capture ->> 'max_rows')::bigint
FROM jsonb_to_recordset($1::jsonb -> 'guards') AS w(id int, name text, enforce bool, capture jsonb)
ON CONFLICT (id) DO UPDATE SET name = excluded.name, enforce = excluded.enforce, capture_seconds = excluded.capture_seconds, capture_rows = excluded.capture_rows
WHERE (g.name, g.enforce, g.capture_seconds, g.capture_rows) IS DISTINCT FROM (excluded.name, excluded.enforce, excluded.capture_seconds, excluded.capture_rows);

INSERT INTO pgrail.relation AS r (id, rel, label, above)
SELECT w.id, w.rel::regclass, w.label, w.above FROM jsonb_to_recordset($1::jsonb -> 'relations') AS w(id int, rel oid, label text, above int[])
ON CONFLICT (id) DO UPDATE SET rel = excluded.rel, label = excluded.label, above = excluded.above
WHERE (r.rel::oid, r.label, r.above) IS DISTINCT FROM (excluded.rel::oid, excluded.label, excluded.above);

INSERT INTO pgrail.assignment AS a (id, root, guard, max_rows, max_cascade_rows, max_transaction_rows, max_updated_rows,
                                    protect_delete, protect_truncate, protect_drop, protect_drop_partition)
SELECT w.* FROM jsonb_to_recordset($1::jsonb -> 'assignments') AS w(id int, root int, guard int, max_rows bigint, max_cascade_rows bigint,
  max_transaction_rows bigint, max_updated_rows bigint, protect_delete bool, protect_truncate bool, protect_drop bool, protect_drop_partition bool)
ON CONFLICT (id) DO UPDATE SET root = excluded.root, guard = excluded.guard, max_rows = excluded.max_rows, max_cascade_rows = excluded.max_cascade_rows,
  max_transaction_rows = excluded.max_transaction_rows, max_updated_rows = excluded.max_updated_rows, protect_delete = excluded.protect_delete,
  protect_truncate = excluded.protect_truncate, protect_drop = excluded.protect_drop, protect_drop_partition = excluded.protect_drop_partition
WHERE (a.root, a.guard, a.max_rows, a.max_cascade_rows, a.max_transaction_rows, a.max_updated_rows,
       a.protect_delete, a.protect_truncate, a.protect_drop, a.protect_drop_partition)
   IS DISTINCT FROM (excluded.root, excluded.guard, excluded.max_rows, excluded.max_cascade_rows, excluded.max_transaction_rows, excluded.max_updated_rows,
       excluded.protect_delete, excluded.protect_truncate, excluded.protect_drop, excluded.protect_drop_partition);

INSERT INTO pgrail.allowance AS a (id, guards, exemption, object, role, operations, roots, unlimited, max_rows, max_cascade_rows,
                                   max_transaction_rows, max_updated_rows, not_before, not_after, total_rows)
SELECT w.id, w.guards, w.exemption, w.object, w.role, w.operations, w.roots, w.unlimited, w.max_rows, w.max_cascade_rows,
       w.max_transaction_rows, w.max_updated_rows, to_timestamp(w.not_before), to_timestamp(w.not_after), w.total_rows
FROM jsonb_to_recordset($1::jsonb -> 'allowances') AS w(id int, guards int[], exemption text, object text, role text, operations text[], roots int[], unlimited bool,
  max_rows bigint, max_cascade_rows bigint, max_transaction_rows bigint, max_updated_rows bigint, not_before bigint, not_after bigint, total_rows bigint)
ON CONFLICT (id) DO UPDATE SET guards = excluded.guards, exemption = excluded.exemption, object = excluded.object, role = excluded.role,
  operations = excluded.operations, roots = excluded.roots, unlimited = excluded.unlimited, max_rows = excluded.max_rows,
  max_cascade_rows = excluded.max_cascade_rows, max_transaction_rows = excluded.max_transaction_rows, max_updated_rows = excluded.max_updated_rows,
  not_before = excluded.not_before, not_after = excluded.not_after, total_rows = excluded.total_rows
WHERE (a.guards, a.exemption, a.object, a.role, a.operations, a.roots, a.unlimited, a.max_rows, a.max_cascade_rows,
       a.max_transaction_rows, a.max_updated_rows, a.not_before, a.not_after, a.total_rows)
   IS DISTINCT FROM (excluded.guards, excluded.exemption, excluded.object, excluded.role, excluded.operations, excluded.roots, excluded.unlimited, excluded.max_rows, excluded.max_cascade_rows,
       excluded.max_transaction_rows, excluded.max_updated_rows, excluded.not_before, excluded.not_after, excluded.total_rows);

INSERT INTO pgrail.member AS m (root, rel, effect, path)
SELECT w.root, w.rel::regclass, w.effect, w.path FROM jsonb_to_recordset($1::jsonb -> 'members') AS w(root int, rel oid, effect "char", path text)
ON CONFLICT (root, rel, effect) DO UPDATE SET path = excluded.path WHERE m.path <> excluded.path;
