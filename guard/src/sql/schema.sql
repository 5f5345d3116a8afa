-- pgrail's own schema in a guarded database, version 4.
-- The configuration is in functions that return a constant ("documents", see documents.sql): those are neither published
-- nor locked by pg_dump, survive a crash and are on every standby. Views of the names that were tables in version 1 show it.
-- What is only needed while the server runs is in unlogged tables: no publication carries them. Every role can read them,
-- so that every role can dump the database; they hold numbers only.
CREATE SCHEMA IF NOT EXISTS pgrail;

-- What allowances were used for, by transaction.
CREATE UNLOGGED TABLE IF NOT EXISTS pgrail.usage (
  allowance int NOT NULL,
  root int NOT NULL,
  operation text NOT NULL,
  xid xid8 NOT NULL,
  rows bigint NOT NULL,
  leased bigint NOT NULL,                               -- rows that are allowed before it is charged again; at the end of the transaction the same as rows
  statements int NOT NULL,
  statement_at timestamptz NOT NULL,                    -- the last of them
  PRIMARY KEY (allowance, root, operation, xid)
);

-- What of the total of an allowance is used up. A crash empties this table: an allowance with a total and without a row
-- counts as used up.
CREATE UNLOGGED TABLE IF NOT EXISTS pgrail.budget (
  allowance int PRIMARY KEY,
  used bigint NOT NULL
);

-- Where the counters of a root stood before the first statement of a transaction on it: what was there is not the
-- transaction's. Only written where that is not zero.
CREATE UNLOGGED TABLE IF NOT EXISTS pgrail.baseline (
  root int NOT NULL,
  xid xid8 NOT NULL,
  backend int NOT NULL,
  deleted bigint NOT NULL,
  cascaded bigint NOT NULL,
  updated bigint NOT NULL,
  PRIMARY KEY (root, xid)
);

-- A transaction that a window counts: written, and deleted again, by its first statement that must be counted. What stays is
-- the event of the trigger that counts at the end of the transaction.
CREATE UNLOGGED TABLE IF NOT EXISTS pgrail.removal (
  root int NOT NULL,
  rows bigint NOT NULL,                                 -- rows of the root so far
  assignments int[] NOT NULL,                           -- whose windows it counts in
  allowances int[] NOT NULL,                            -- the same of allowances
  durations int[] NOT NULL                              -- of their windows, in seconds
);
-- Counted by `removed_<root>`. Since version 4.
ALTER TABLE pgrail.removal ADD COLUMN IF NOT EXISTS simple bool NOT NULL DEFAULT false;

-- Every document by its name. Each of the views below reads its documents once for a query, however it is joined.
CREATE OR REPLACE VIEW pgrail.documents WITH (security_invoker = true) AS
  SELECT substr(p.proname, 8)::text AS name, split_part(p.prosrc, '$json$', 2)::jsonb AS content
  FROM pg_proc p
  WHERE p.pronamespace = (SELECT n.oid FROM pg_namespace n WHERE n.nspname = 'pgrail') AND p.pronargs = 0
    AND p.proname >= 'config_' AND p.proname < 'config`';

-- `usage_table` is the number that pgrail.usage had when the document was written: a restored dump gives it another one.
CREATE OR REPLACE VIEW pgrail.install WITH (security_invoker = true) AS WITH read AS MATERIALIZED (
  SELECT (d.content ->> 'schema_version')::int AS schema_version, d.content ->> 'owner' AS owner, (d.content ->> 'installed_at')::timestamptz AS installed_at,
         coalesce((SELECT (c.content ->> 'server_start')::timestamptz FROM pgrail.documents c WHERE c.name = 'counters'), pg_postmaster_start_time()) AS counters_of,
         d.content ->> 'digest' AS digest, d.content ->> 'database' AS database, (d.content ->> 'server_version')::int AS server_version,
         (d.content ->> 'usage_table')::oid IS DISTINCT FROM to_regclass('pgrail.usage')::oid AS restored
  FROM pgrail.documents d WHERE d.name = 'install'
) SELECT * FROM read;

CREATE OR REPLACE VIEW pgrail.guard WITH (security_invoker = true) AS WITH read AS MATERIALIZED (
  SELECT g.id, g.name, g.enforce, (g.capture ->> 'retention')::bigint AS capture_seconds, (g.capture ->> 'max_rows')::bigint AS capture_rows
  FROM pgrail.documents d, jsonb_to_recordset(d.content) AS g(id int, name text, enforce bool, capture jsonb) WHERE d.name = 'guards'
) SELECT * FROM read;

-- A table that has a gate: a guarded root, or one in the closure of a root, or both.
CREATE OR REPLACE VIEW pgrail.relation WITH (security_invoker = true) AS WITH read AS MATERIALIZED (
  SELECT r.id, CASE WHEN i.restored THEN coalesce(to_regclass(r.name), 0::oid::regclass) ELSE r.rel::regclass END AS rel, r.label, r.above, r.name, i.restored
  FROM pgrail.install i, pgrail.documents d, jsonb_to_recordset(d.content) AS r(id int, rel oid, label text, above int[], name text) WHERE d.name = 'relations'
) SELECT * FROM read;

-- One guard's hold on one root. `seen` and `skipped`: what its sequence had when it was last read, and what of that were no
-- attempts.
CREATE OR REPLACE VIEW pgrail.assignment WITH (security_invoker = true) AS WITH read AS MATERIALIZED (
  SELECT a.id, a.root, a.guard, a.max_rows, a.max_cascade_rows, a.max_transaction_rows, a.max_updated_rows, a.protect_delete, a.protect_truncate,
         a.protect_drop, a.protect_drop_partition,
         -- Read once, not once for each root.
         coalesce(((SELECT c.content -> 'seen' FROM pgrail.documents c WHERE c.name = 'counters') ->> a.id::text)::bigint, 0) AS seen,
         coalesce(((SELECT c.content -> 'skipped' FROM pgrail.documents c WHERE c.name = 'counters') ->> a.id::text)::bigint, 0) AS skipped,
         nullif(a."window", 'null') AS "window", coalesce(a.protect_drop_column, false) AS protect_drop_column
  FROM pgrail.documents d
  CROSS JOIN LATERAL jsonb_to_recordset(d.content -> 'assignments') AS a(id int, root int, guard int, max_rows bigint, max_cascade_rows bigint,
    max_transaction_rows bigint, max_updated_rows bigint, "window" jsonb, protect_delete bool, protect_truncate bool, protect_drop bool, protect_drop_partition bool,
    protect_drop_column bool)
  WHERE d.name LIKE 'root\_%'
) SELECT * FROM read;

-- A login role's allowance to go beyond a guard's limits: standing, or for a time. NULL limits are the guard's own.
CREATE OR REPLACE VIEW pgrail.allowance WITH (security_invoker = true) AS WITH read AS MATERIALIZED (
  SELECT w.id, w.guards, w.exemption, w.object, w.role, w.operations, w.roots, w.unlimited, w.max_rows, w.max_cascade_rows, w.max_transaction_rows,
         w.max_updated_rows, to_timestamp(w.not_before) AS not_before, to_timestamp(w.not_after) AS not_after, w.total_rows,
         CASE WHEN w.total_rows IS NULL THEN 0 ELSE coalesce(b.used, w.total_rows) END AS spent, w.total_rows IS NOT NULL AND b.used IS NULL AS lost,
         nullif(w."window", 'null') AS "window"
  FROM pgrail.documents d
  CROSS JOIN LATERAL jsonb_to_recordset(d.content) AS w(id int, guards int[], exemption text, object text, role name, operations text[], roots int[],
    unlimited bool, max_rows bigint, max_cascade_rows bigint, max_transaction_rows bigint, max_updated_rows bigint, "window" jsonb, not_before bigint, not_after bigint, total_rows bigint)
  LEFT JOIN pgrail.budget b ON b.allowance = w.id
  WHERE d.name = 'allowances'
) SELECT * FROM read;

-- The closure of a root. Partitioned tables stand for their partitions, also future ones. Effect: r the root's own rows,
-- d deleted, u updated.
CREATE OR REPLACE VIEW pgrail.member WITH (security_invoker = true) AS WITH read AS MATERIALIZED (
  SELECT m.root, CASE WHEN i.restored THEN coalesce(to_regclass(m.name), 0::oid::regclass) ELSE m.rel::regclass END AS rel, m.effect, m.path
  FROM pgrail.install i, pgrail.documents d, jsonb_to_recordset(d.content -> 'members') AS m(root int, rel oid, name text, effect "char", path text)
  WHERE d.name LIKE 'root\_%'
) SELECT * FROM read;

-- What was installed, to find what others changed. `source`: a digest of the SQL.
CREATE OR REPLACE VIEW pgrail.trigger WITH (security_invoker = true) AS WITH read AS MATERIALIZED (
  SELECT (d.content ->> 'rel')::oid AS rel, t.key AS name, t.value ->> 0 AS source, t.value ->> 1 AS fingerprint
  FROM pgrail.documents d, jsonb_each(d.content -> 'triggers') t WHERE d.name LIKE 'triggers\_%'
) SELECT * FROM read;

CREATE OR REPLACE VIEW pgrail.routine WITH (security_invoker = true) AS WITH read AS MATERIALIZED (
  SELECT r.key AS name, r.value ->> 0 AS source, r.value ->> 1 AS fingerprint
  FROM pgrail.documents d, jsonb_each(d.content) r WHERE d.name = 'routines'
) SELECT * FROM read;
