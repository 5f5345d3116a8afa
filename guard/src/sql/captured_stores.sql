-- The stores of captured rows, and whether each is as pgrail created it. Each belongs to another role, which can give it
-- triggers, rules, expressions in indexes, constraints and statistics. To plan a query evaluates some of those, as whoever
-- plans it. So a store is locked against such changes, found to have none of them, and used only then.
-- Run with search_path = pg_catalog.
WITH parts AS (
  SELECT c.oid, c.relname, c.relowner, substring(c.relname FROM '^captured_(?:transaction_)?([0-9]+)$') AS suffix, c.relname ~ '^captured_transaction_' AS transactions,
         c.relkind = 'r' AND c.relpersistence = 'p' AND c.relam = 2 AND NOT c.relhasrules AND NOT c.relforcerowsecurity AND NOT c.relispartition
         AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid)
         AND NOT EXISTS (SELECT FROM pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent))
         AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype NOT IN ('p', 'n'))
         AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND NOT (i.indisprimary AND i.indexprs IS NULL AND i.indpred IS NULL))
         AND NOT EXISTS (SELECT FROM pg_statistic_ext s WHERE s.stxrelid = c.oid)
         AND NOT EXISTS (SELECT FROM pg_attrdef d WHERE d.adrelid = c.oid)
         AND (SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0)
             = CASE WHEN c.relname ~ '^captured_transaction_'
                    THEN 'xid xid8, began timestamp with time zone, guard integer, guard_name text, kept_until timestamp with time zone, login name, role text, application text, client inet, incomplete text, undone_at timestamp with time zone, undone_by name'
                    ELSE 'xid xid8, began timestamp with time zone, guard integer, id bigint, rel regclass, label text, effect "char", attributes smallint, fields smallint, keys smallint[], before text, after text' END AS intact
  FROM pg_class c WHERE c.relnamespace = to_regnamespace('pgrail') AND c.relname ~ '^captured_(transaction_)?[0-9]+$' AND c.relkind = 'r'
)
SELECT format('pgrail.%I', r.relname) AS rows, format('pgrail.%I', t.relname) AS transactions, r.suffix, r.relowner AS owner,
       r.relowner = t.relowner AND pg_has_role(r.relowner, 'USAGE') AS readable, r.intact AND t.intact AS intact
FROM parts r JOIN parts t ON t.suffix = r.suffix AND t.transactions AND NOT r.transactions ORDER BY r.oid
