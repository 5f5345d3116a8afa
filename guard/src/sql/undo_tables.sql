-- The tables of which rows of the transaction $1 are captured, as they are now. One row of JSON. Run with search_path = pg_catalog.
WITH batches AS (
  SELECT c.rel::oid AS rel, c.store, c.store_owner, c.attributes, c.fields, c.effect, c.keys, max(c.label) AS label, count(*) AS rows, min(c.id) AS first
  FROM {rows} c WHERE c.xid = $1::text::xid8
  GROUP BY c.rel, c.store, c.store_owner, c.attributes, c.fields, c.effect, c.keys
), tables AS (
  SELECT b.rel, min(b.first) AS first, min(b.label) AS label, r.relkind, r.relowner, o.rolname,
         r.relrowsecurity AND r.relforcerowsecurity AND NOT o.rolsuper AND NOT o.rolbypassrls AS forced, CASE WHEN r.relkind IN ('r', 'p') THEN format('%I.%I', n.nspname, r.relname) END AS ident,
         CASE WHEN r.oid IS NOT NULL THEN format('%s.%s', n.nspname, r.relname) END AS name
  FROM batches b LEFT JOIN pg_class r ON r.oid = b.rel LEFT JOIN pg_namespace n ON n.oid = r.relnamespace LEFT JOIN pg_roles o ON o.oid = r.relowner
  GROUP BY b.rel, r.oid, r.relkind, r.relowner, r.relrowsecurity, r.relforcerowsecurity, o.rolname, o.rolsuper, o.rolbypassrls, n.nspname, r.relname
), live AS (
  SELECT a.attrelid, a.attnum, quote_ident(a.attname) AS ident, a.attgenerated <> '' AS generated, a.attnotnull,
         format_type(a.atttypid, a.atttypmod) || CASE WHEN c.oid IS NULL THEN '' ELSE format(' COLLATE %I.%I', n.nspname, c.collname) END AS type
  FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_collation c ON c.oid = a.attcollation AND a.attcollation <> t.typcollation LEFT JOIN pg_namespace n ON n.oid = c.collnamespace
  WHERE a.attnum > 0 AND NOT a.attisdropped
), unique_keys AS (
  -- What can tell whether a row is there already: the operators are those of the index.
  SELECT i.indrelid, i.indexrelid, i.indisprimary, bool_and(l.attnotnull) AS not_null,
         json_agg(l.ident ORDER BY k.place) AS columns, json_agg(format('OPERATOR(%I.%s)', n.nspname, o.oprname) ORDER BY k.place) AS operators
  FROM pg_index i
  CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indclass::oid[]) WITH ORDINALITY k(attnum, class, place)
  JOIN live l ON l.attrelid = i.indrelid AND l.attnum = k.attnum
  JOIN pg_opclass c ON c.oid = k.class
  JOIN pg_amop m ON m.amopfamily = c.opcfamily AND m.amopstrategy = 3 AND m.amoplefttype = c.opcintype AND m.amoprighttype = c.opcintype
  JOIN pg_am am ON am.oid = c.opcmethod AND am.amname = 'btree'
  JOIN pg_operator o ON o.oid = m.amopopr JOIN pg_namespace n ON n.oid = o.oprnamespace
  WHERE i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL AND k.place <= i.indnkeyatts AND i.indrelid IN (SELECT rel FROM tables)
  GROUP BY i.indrelid, i.indexrelid, i.indisprimary, i.indnkeyatts HAVING count(*) = i.indnkeyatts
), refers AS (
  SELECT f.conrelid, f.conname, f.confrelid, p.relkind = 'p' AS partitioned,
         -- Whether the owner, as which rows are read, sees all rows of the table that it points to.
         has_table_privilege(r.relowner, p.oid, 'SELECT')
           AND (NOT p.relrowsecurity OR o.rolsuper OR o.rolbypassrls OR (pg_has_role(r.relowner, p.relowner, 'USAGE') AND NOT p.relforcerowsecurity)) AS readable, format('%I.%I', n.nspname, p.relname) AS ident, format('%s.%s', n.nspname, p.relname) AS name,
         (SELECT json_agg(l.ident ORDER BY k.place) FROM unnest(f.conkey) WITH ORDINALITY k(attnum, place) JOIN live l ON l.attrelid = f.conrelid AND l.attnum = k.attnum) AS columns,
         (SELECT json_agg(l.ident ORDER BY k.place) FROM unnest(f.confkey) WITH ORDINALITY k(attnum, place) JOIN live l ON l.attrelid = f.confrelid AND l.attnum = k.attnum) AS referenced,
         (SELECT json_agg(format('OPERATOR(%I.%s)', x.nspname, o.oprname) ORDER BY k.place) FROM unnest(f.conpfeqop) WITH ORDINALITY k(operator, place)
            JOIN pg_operator o ON o.oid = k.operator JOIN pg_namespace x ON x.oid = o.oprnamespace) AS operators,
         f.conkey,
         (SELECT json_agg(x::oid::int8) FROM (SELECT relid FROM pg_partition_tree(f.confrelid) UNION SELECT relid FROM pg_partition_ancestors(f.confrelid) UNION SELECT f.confrelid) x(x)) AS family
  FROM pg_constraint f JOIN pg_class p ON p.oid = f.confrelid JOIN pg_namespace n ON n.oid = p.relnamespace
  JOIN pg_class r ON r.oid = f.conrelid JOIN pg_roles o ON o.oid = r.relowner
  WHERE f.contype = 'f' AND f.conrelid IN (SELECT rel FROM tables)
    -- Copies of a key for the partitions of the table it points to.
    AND NOT EXISTS (SELECT FROM pg_constraint above WHERE above.oid = f.conparentid AND above.conrelid = f.conrelid)
    -- PostgreSQL 18: keys that are not enforced, and those over periods.
    AND coalesce(to_jsonb(f) ->> 'conenforced', 'true') = 'true' AND coalesce(to_jsonb(f) ->> 'conperiod', 'false') = 'false'
)
SELECT coalesce(json_agg(json_build_object(
    'rel', t.rel::int8, 'owner', t.relowner::int8, 'owner_name', t.rolname, 'forced', coalesce(t.forced, false), 'label', coalesce(t.name, t.label), 'ident', t.ident, 'partitioned', coalesce(t.relkind = 'p', false),
    'batches', (SELECT json_agg(json_build_object('store', b.store, 'store_owner', b.store_owner::int8, 'attributes', b.attributes, 'fields', b.fields, 'effect', b.effect, 'keys', b.keys, 'rows', b.rows) ORDER BY b.first)
                FROM batches b WHERE b.rel = t.rel),
    'columns', coalesce((SELECT json_agg(json_build_object('number', l.attnum, 'ident', l.ident, 'type', l.type, 'generated', l.generated) ORDER BY l.attnum) FROM live l WHERE l.attrelid = t.rel), '[]'),
    'unique_keys', coalesce((SELECT json_agg(json_build_object('primary', u.indisprimary, 'not_null', u.not_null, 'columns', u.columns, 'operators', u.operators)
                                             ORDER BY NOT u.indisprimary, NOT u.not_null, u.indexrelid) FROM unique_keys u WHERE u.indrelid = t.rel), '[]'),
    'references', coalesce((SELECT json_agg(json_build_object('name', r.conname, 'ident', r.ident, 'label', r.name, 'partitioned', r.partitioned, 'readable', r.readable, 'columns', r.columns,
                                             'numbers', r.conkey, 'referenced', r.referenced, 'operators', r.operators, 'family', r.family) ORDER BY r.conname) FROM refers r WHERE r.conrelid = t.rel), '[]'),
    -- What fires when rows are restored: INSERT for deleted ones, UPDATE for links.
    'triggers', coalesce((SELECT json_agg(json_build_object('table', format('%s.%s', n.nspname, c.relname), 'name', g.tgname, 'function', p.oid::regprocedure::text) ORDER BY n.nspname, c.relname, g.tgname)
        FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_proc p ON p.oid = g.tgfoid JOIN pg_namespace f ON f.oid = p.pronamespace
        WHERE NOT g.tgisinternal AND g.tgenabled IN ('O', 'A') AND f.nspname <> 'pgrail'
          AND (g.tgrelid = t.rel OR (g.tgparentid = 0 AND g.tgrelid IN (SELECT relid FROM pg_partition_tree(t.rel))))
          AND EXISTS (SELECT FROM batches b WHERE b.rel = t.rel AND g.tgtype & CASE b.effect WHEN 'd' THEN 4 ELSE 16 END <> 0)), '[]'),
    'family', (SELECT json_agg(x::oid::int8) FROM (SELECT relid FROM pg_partition_tree(t.rel) UNION SELECT relid FROM pg_partition_ancestors(t.rel) UNION SELECT t.rel) x(x))
  ) ORDER BY t.first), '[]')::text
FROM tables t
