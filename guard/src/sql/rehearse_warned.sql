-- The assignments whose guard has warned in this transaction, by what `pgrail.report` noted; with search_path = pg_catalog.
SELECT a.id FROM (
  SELECT substr(c.relname, 9)::int AS id FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = 'pgrail' AND c.relkind = 'S' AND c.relname ~ '^blocked_[0-9]{1,9}$'
) a WHERE current_setting('pgrail.warned_' || a.id, true) <> ''
