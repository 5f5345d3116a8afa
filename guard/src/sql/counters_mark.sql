-- One number for the values of all counters. It changes when any of them does, or when the server is started again.
SELECT pg_catalog.md5(ROW(pg_catalog.pg_postmaster_start_time(),
  (SELECT pg_catalog.sum(pg_catalog.hashtextextended(ROW(c.oid, pg_catalog.pg_sequence_last_value(c.oid::pg_catalog.regclass))::text, 1))
   FROM pg_catalog.pg_class c WHERE c.relname >= 'blocked_' AND c.relname < 'blocked`' AND c.relkind = 'S' AND c.relnamespace = pg_catalog.to_regnamespace('pgrail')))::text)
