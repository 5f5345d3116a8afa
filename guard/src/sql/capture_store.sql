-- What is captured of the tables of one owner, {owner}. It belongs to that owner: row level security does not hold for an
-- owner, so pg_dump by that role works as it does for the tables themselves.
--
-- A transaction by guard. Numbers of transactions begin anew where a dump is restored; with the time of its beginning, one
-- is never taken for another.
SELECT set_config('pgrail.created', (to_regclass('pgrail.captured_{owner}') IS NULL)::text, true);
CREATE TABLE IF NOT EXISTS pgrail.captured_transaction_{owner} (
  xid xid8 NOT NULL,
  began timestamptz NOT NULL,
  guard int NOT NULL,
  guard_name text NOT NULL,                             -- guards are removed, and their numbers used again
  kept_until timestamptz NOT NULL,                      -- where its guard captures no more; else its retention holds
  login name NOT NULL,                                  -- session_user
  role text NOT NULL,                                   -- SET ROLE, or the login
  application text NOT NULL,
  client inet,                                          -- NULL: a local socket
  incomplete text,                                      -- why it cannot be restored as a whole
  undone_at timestamptz,
  undone_by name,
  PRIMARY KEY (xid, began, guard)
);

-- Its rows, as text: exactly what each type writes and reads, whatever the tables and columns are called later.
CREATE TABLE IF NOT EXISTS pgrail.captured_{owner} (
  xid xid8 NOT NULL,
  began timestamptz NOT NULL,
  guard int NOT NULL,
  id bigint GENERATED ALWAYS AS IDENTITY,               -- the order in which they were deleted
  rel regclass NOT NULL,                                -- as the statement named it: for rows of partitions, maybe their parent
  label text NOT NULL,                                  -- schema.table then
  effect "char" NOT NULL,                               -- d: deleted, u: a key was set to NULL or its default
  attributes smallint NOT NULL,                         -- the number of the last column then
  fields smallint NOT NULL,                             -- columns then, without dropped ones
  keys smallint[],                                      -- effect u: the columns that were set
  before text NOT NULL,
  after text,                                           -- effect u
  PRIMARY KEY (xid, began, guard, id)
);

DO $store$
DECLARE
  owner CONSTANT name := (SELECT r.rolname FROM pg_roles r WHERE r.oid = {owner});
  -- Who owns something in a schema must be able to create in it; in this transaction only.
  lent CONSTANT bool := NOT has_schema_privilege({owner}::oid, 'pgrail', 'CREATE');
  store regclass;
  granted record;
BEGIN
  IF current_setting('pgrail.created')::bool THEN
    -- Default privileges of pgrail's role may have granted rights on it. What its owner grants later is the owner's choice.
    FOR granted IN
      SELECT c.oid::regclass AS object, CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee
      FROM pg_class c, aclexplode(c.relacl) a WHERE a.grantee <> c.relowner
       AND c.oid IN ('pgrail.captured_{owner}'::regclass, 'pgrail.captured_transaction_{owner}'::regclass, 'pgrail.captured_{owner}_id_seq'::regclass)
    LOOP
      EXECUTE format('REVOKE ALL ON %s %s FROM %s', granted.kind, granted.object, granted.grantee);
    END LOOP;
    -- Up to schema version 1 there was one store, of pgrail's own.
    IF to_regclass('pgrail.captured') IS NOT NULL AND to_regclass('pgrail.captured_transaction') IS NOT NULL THEN
      WITH moved AS (
        DELETE FROM pgrail.captured c USING pg_class r WHERE r.oid = c.rel AND r.relowner = {owner}
        RETURNING c.xid, c.began, c.guard, c.id, c.rel, c.label, c.effect, c.attributes, c.fields, c.keys, c.before, c.after
      )
      INSERT INTO pgrail.captured_{owner} (xid, began, guard, rel, label, effect, attributes, fields, keys, before, after)
      SELECT xid, began, guard, rel, label, effect, attributes, fields, keys, before, after FROM moved ORDER BY id;
      INSERT INTO pgrail.captured_transaction_{owner} SELECT t.* FROM pgrail.captured_transaction t
      WHERE EXISTS (SELECT FROM pgrail.captured_{owner} c WHERE c.xid = t.xid AND c.began = t.began AND c.guard = t.guard);
    END IF;
  END IF;
  IF lent THEN EXECUTE format('GRANT CREATE ON SCHEMA pgrail TO %I', owner); END IF;
  FOREACH store IN ARRAY ARRAY['pgrail.captured_transaction_{owner}', 'pgrail.captured_{owner}']::regclass[] LOOP
    IF (SELECT c.relowner <> {owner} FROM pg_class c WHERE c.oid = store) THEN EXECUTE format('ALTER TABLE %s OWNER TO %I', store, owner); END IF;
    IF (SELECT c.relrowsecurity <> ('{row_security}' = 'ENABLE') FROM pg_class c WHERE c.oid = store) THEN
      EXECUTE format('ALTER TABLE %s {row_security} ROW LEVEL SECURITY', store);
    END IF;
  END LOOP;
  IF lent THEN EXECUTE format('REVOKE CREATE ON SCHEMA pgrail FROM %I', owner); END IF;
END $store$
