-- The tables $1 as they are now. One row of JSON. Run with search_path = pg_catalog.
WITH tables AS (
  SELECT r.oid AS rel, r.relkind, r.relowner, o.rolname, format('%I.%I', n.nspname, r.relname) AS ident, n.nspname, r.relname,
         r.relrowsecurity AND r.relforcerowsecurity AND NOT o.rolsuper AND NOT o.rolbypassrls AS forced
  FROM pg_class r JOIN pg_namespace n ON n.oid = r.relnamespace JOIN pg_roles o ON o.oid = r.relowner WHERE r.oid = ANY ($1::oid[])
), live AS (
  SELECT a.attrelid, a.attnum, quote_ident(a.attname) AS ident, a.attgenerated <> '' AS generated, a.attnotnull,
         format_type(a.atttypid, a.atttypmod) || CASE WHEN c.oid IS NULL THEN '' ELSE format(' COLLATE %I.%I', n.nspname, c.collname) END AS type,
         -- Whether its values are read by code of superusers only: base types, enums, the ranges of PostgreSQL, arrays of these.
         -- Domains and composite types can evaluate functions of any role.
         e.typtype IN ('b', 'e') OR (e.typtype IN ('r', 'm') AND e.typnamespace = 'pg_catalog'::regnamespace) AS trusted,
         (SELECT format('%I.%I', sn.nspname, s.relname) FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S' JOIN pg_namespace sn ON sn.oid = s.relnamespace
            JOIN pg_sequence q ON q.seqrelid = s.oid AND q.seqincrement > 0
            WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum AND d.deptype IN ('a', 'i') LIMIT 1) AS sequence
  FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
  JOIN pg_type e ON e.oid = CASE WHEN t.typsubscript = 'array_subscript_handler'::regproc THEN t.typelem ELSE t.oid END
  LEFT JOIN pg_collation c ON c.oid = a.attcollation AND a.attcollation <> t.typcollation LEFT JOIN pg_namespace n ON n.oid = c.collnamespace
  WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attrelid = ANY ($1::oid[])
), unique_keys AS (
  -- What identifies a row: the operators are those of the index.
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
  SELECT f.oid, f.conrelid, f.conname, f.confrelid, f.conparentid, f.confdeltype, p.relkind = 'p' AS partitioned,
         -- Whether the owner, as which rows are read, sees all rows of the referenced table.
         has_table_privilege(r.relowner, p.oid, 'SELECT')
           AND (NOT p.relrowsecurity OR o.rolsuper OR o.rolbypassrls OR (pg_has_role(r.relowner, p.relowner, 'USAGE') AND NOT p.relforcerowsecurity)) AS readable,
         format('%I.%I', n.nspname, p.relname) AS ident, format('%s.%s', n.nspname, p.relname) AS name,
         (SELECT json_agg(l.ident ORDER BY k.place) FROM unnest(f.conkey) WITH ORDINALITY k(attnum, place) JOIN live l ON l.attrelid = f.conrelid AND l.attnum = k.attnum) AS columns,
         (SELECT json_agg(quote_ident(l.attname) ORDER BY k.place) FROM unnest(f.confkey) WITH ORDINALITY k(attnum, place)
            JOIN pg_attribute l ON l.attrelid = f.confrelid AND l.attnum = k.attnum) AS referenced,
         (SELECT json_agg(format('OPERATOR(%I.%s)', x.nspname, o.oprname) ORDER BY k.place) FROM unnest(f.conpfeqop) WITH ORDINALITY k(operator, place)
            JOIN pg_operator o ON o.oid = k.operator JOIN pg_namespace x ON x.oid = o.oprnamespace) AS operators,
         f.conkey,
         -- What ON DELETE SET NULL and SET DEFAULT set, and to which value.
         (SELECT json_agg(json_build_object('ident', l.ident, 'default', CASE WHEN f.confdeltype = 'd' THEN (SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d WHERE d.adrelid = f.conrelid AND d.adnum = l.attnum) END) ORDER BY l.attnum)
            FROM live l WHERE l.attrelid = f.conrelid AND l.attnum = ANY (coalesce((SELECT array_agg(s::int2) FROM jsonb_array_elements_text(nullif(to_jsonb(f) -> 'confdelsetcols', 'null')) s), f.conkey))) AS set_columns,
         (SELECT json_agg(x::oid::int8) FROM (SELECT relid FROM pg_partition_tree(f.confrelid) UNION SELECT relid FROM pg_partition_ancestors(f.confrelid) UNION SELECT f.confrelid) x(x)) AS family
  FROM pg_constraint f JOIN pg_class p ON p.oid = f.confrelid JOIN pg_namespace n ON n.oid = p.relnamespace
  JOIN pg_class r ON r.oid = f.conrelid JOIN pg_roles o ON o.oid = r.relowner
  WHERE f.contype = 'f' AND f.conrelid IN (SELECT rel FROM tables)
    -- Copies of a key for the partitions of the referenced table.
    AND NOT EXISTS (SELECT FROM pg_constraint above WHERE above.oid = f.conparentid AND above.conrelid = f.conrelid)
    -- PostgreSQL 18: keys that are not enforced, and those over periods.
    AND coalesce(to_jsonb(f) ->> 'conenforced', 'true') = 'true' AND coalesce(to_jsonb(f) ->> 'conperiod', 'false') = 'false'
)
SELECT coalesce(json_agg(json_build_object(
    'rel', t.rel::int8, 'owner', t.relowner::int8, 'owner_name', t.rolname, 'owner_ident', quote_ident(t.rolname), 'forced', t.forced,
    'schema', t.nspname, 'name', t.relname, 'label', format('%s.%s', t.nspname, t.relname), 'ident', t.ident, 'partitioned', t.relkind = 'p',
    'columns', coalesce((SELECT json_agg(json_build_object('number', l.attnum, 'ident', l.ident, 'type', l.type, 'generated', l.generated) ORDER BY l.attnum) FROM live l WHERE l.attrelid = t.rel), '[]'),
    'untrusted', coalesce((SELECT json_agg(l.ident ORDER BY l.attnum) FROM live l WHERE l.attrelid = t.rel AND NOT l.trusted), '[]'),
    'sequences', coalesce((SELECT json_agg(json_build_object('column', l.ident, 'sequence', l.sequence) ORDER BY l.attnum) FROM live l WHERE l.attrelid = t.rel AND l.sequence IS NOT NULL), '[]'),
    'unique_keys', coalesce((SELECT json_agg(json_build_object('primary', u.indisprimary, 'not_null', u.not_null, 'columns', u.columns, 'operators', u.operators)
                                             ORDER BY NOT u.indisprimary, NOT u.not_null, u.indexrelid) FROM unique_keys u WHERE u.indrelid = t.rel), '[]'),
    'references', coalesce((SELECT json_agg(json_build_object('name', r.conname, 'ident', r.ident, 'label', r.name, 'partitioned', r.partitioned, 'readable', r.readable, 'columns', r.columns,
                                             'numbers', r.conkey, 'referenced', r.referenced, 'operators', r.operators, 'family', r.family) ORDER BY r.conname) FROM refers r WHERE r.conrelid = t.rel), '[]'),
    'cascades', coalesce((SELECT json_agg(json_build_object('name', r.conname, 'action', r.confdeltype, 'columns', r.columns, 'referenced', r.referenced, 'operators', r.operators,
                                             'set', r.set_columns, 'family', r.family) ORDER BY r.conname)
                          FROM refers r WHERE r.conrelid = t.rel AND r.conparentid = 0 AND r.confdeltype IN ('c', 'n', 'd')), '[]'),
    -- What fires when rows are inserted (4) or links set (16), except pgrail's own.
    'triggers', coalesce((SELECT json_agg(json_build_object('table', format('%I.%I', n.nspname, c.relname), 'name', quote_ident(g.tgname), 'enabled', g.tgenabled,
                                             'label', format('%s.%s: %s', n.nspname, c.relname, g.tgname)) ORDER BY n.nspname, c.relname, g.tgname)
        FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_proc p ON p.oid = g.tgfoid JOIN pg_namespace f ON f.oid = p.pronamespace
        WHERE NOT g.tgisinternal AND g.tgenabled IN ('O', 'A') AND f.nspname <> 'pgrail' AND g.tgtype & (4 | 16) <> 0
          AND (g.tgrelid = t.rel OR (g.tgparentid = 0 AND g.tgrelid IN (SELECT relid FROM pg_partition_tree(t.rel))))), '[]'),
    'family', (SELECT json_agg(x::oid::int8) FROM (SELECT relid FROM pg_partition_tree(t.rel) UNION SELECT relid FROM pg_partition_ancestors(t.rel) UNION SELECT t.rel) x(x))
  ) ORDER BY t.nspname, t.relname), '[]')::text
FROM tables t
