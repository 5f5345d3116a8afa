-- pgrail's own schema in a guarded database, version 1.
-- Nobody but pgrail's role reads or writes these tables: what roles of the application may do is granted one by one.
CREATE SCHEMA IF NOT EXISTS pgrail;

CREATE TABLE IF NOT EXISTS pgrail.install (
  singleton bool PRIMARY KEY DEFAULT true CHECK (singleton),
  schema_version int NOT NULL,
  owner text NOT NULL,                                  -- the managing cluster's id
  installed_at timestamptz NOT NULL DEFAULT now(),
  -- Sequences may jump ahead when the server crashes: counters read after another start are taken as a new base.
  counters_of timestamptz NOT NULL DEFAULT pg_postmaster_start_time(),
  digest text                                           -- of the configuration as it was last written: to tell what somebody else changed
);
ALTER TABLE pgrail.install ADD COLUMN IF NOT EXISTS digest text;

CREATE TABLE IF NOT EXISTS pgrail.guard (
  id int PRIMARY KEY,
  name text NOT NULL UNIQUE,                            -- namespace/name
  enforce bool NOT NULL,
  capture_seconds bigint,                               -- for how long deleted rows are kept; NULL: none are
  capture_rows bigint                                   -- and how many
);
ALTER TABLE pgrail.guard ADD COLUMN IF NOT EXISTS capture_seconds bigint, ADD COLUMN IF NOT EXISTS capture_rows bigint;

-- A table that has a gate: a guarded root, or one in the closure of a root, or both.
CREATE TABLE IF NOT EXISTS pgrail.relation (
  id int PRIMARY KEY,
  rel regclass NOT NULL UNIQUE,
  label text NOT NULL,                                  -- schema.table when it was last reconciled
  above int[] NOT NULL DEFAULT '{}'                     -- guarded roots whose deletes reach this one; what they take counts there only
);

-- One guard's hold on one root.
CREATE TABLE IF NOT EXISTS pgrail.assignment (
  id int PRIMARY KEY,
  root int NOT NULL REFERENCES pgrail.relation ON DELETE CASCADE,
  guard int NOT NULL REFERENCES pgrail.guard ON DELETE CASCADE,
  max_rows bigint NOT NULL,
  max_cascade_rows bigint NOT NULL,
  max_transaction_rows bigint,                          -- NULL: the two above hold per transaction, else per client statement
  max_updated_rows bigint,                              -- per client statement
  protect_delete bool NOT NULL,
  protect_truncate bool NOT NULL,
  protect_drop bool NOT NULL,
  protect_drop_partition bool NOT NULL,
  seen bigint NOT NULL DEFAULT 0,                       -- its sequence when it was last read
  skipped bigint NOT NULL DEFAULT 0,                    -- what of it were no attempts
  UNIQUE (root, guard)
);

-- A login role's right to go beyond a guard's limits: standing, or for a time. NULL limits are the guard's own.
CREATE TABLE IF NOT EXISTS pgrail.allowance (
  id int PRIMARY KEY,
  guards int[] NOT NULL,
  exemption text,                                       -- namespace/name of a GuardExemption; NULL: declared by the guard itself
  object text,                                          -- which object of that name
  role name NOT NULL,                                   -- session_user
  operations text[] NOT NULL,
  roots int[],                                          -- NULL: every table of the guard
  unlimited bool NOT NULL,
  max_rows bigint,
  max_cascade_rows bigint,
  max_transaction_rows bigint,
  max_updated_rows bigint,
  not_before timestamptz,
  not_after timestamptz,
  total_rows bigint,                                    -- over its whole life
  spent bigint NOT NULL DEFAULT 0                       -- counted where total_rows is set
);

-- What such a right was used for, by transaction.
CREATE TABLE IF NOT EXISTS pgrail.usage (
  allowance int NOT NULL REFERENCES pgrail.allowance ON DELETE CASCADE,
  root int NOT NULL,
  operation text NOT NULL,
  xid xid8 NOT NULL,
  rows bigint NOT NULL,
  leased bigint NOT NULL,                               -- rows that may go before it is asked again; at the end of the transaction the same as rows
  statements int NOT NULL,
  statement_at timestamptz NOT NULL,                    -- the last of them
  PRIMARY KEY (allowance, root, operation, xid)
);

-- The closure of a root. Partitioned tables stand for their partitions, also future ones.
CREATE TABLE IF NOT EXISTS pgrail.member (
  root int NOT NULL REFERENCES pgrail.relation ON DELETE CASCADE,
  rel regclass NOT NULL,
  effect "char" NOT NULL CHECK (effect IN ('r', 'd', 'u')),  -- the root's own rows, deleted, updated
  path text NOT NULL,
  PRIMARY KEY (root, rel, effect)
);

-- What was installed, to tell what somebody else changed.
CREATE TABLE IF NOT EXISTS pgrail.trigger (
  rel regclass NOT NULL,
  name name NOT NULL,
  source text NOT NULL,
  fingerprint text NOT NULL,
  PRIMARY KEY (rel, name)
);
CREATE TABLE IF NOT EXISTS pgrail.routine (
  name name PRIMARY KEY,
  source text NOT NULL,
  fingerprint text NOT NULL
);
