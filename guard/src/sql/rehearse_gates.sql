-- The guarded roots among the tables $1, and the SQL that adds a row cap of $2 to the gates of their closures, for one
-- transaction that is rolled back. The cap counts what is deleted and updated in all of these closures together. With
-- $3 the gates stop statements as usual, else they allow everything up to the cap. Run with search_path = pg_catalog.
--
-- It replaces functions only, which locks nothing that readers or writers of the tables could wait for.
WITH roots AS (
  SELECT r.id, r.rel::oid AS rel, bool_or(a.protect_delete) AS deletes, bool_or(a.max_updated_rows IS NOT NULL) AS updates
  FROM pgrail.relation r JOIN pgrail.assignment a ON a.root = r.id
  WHERE r.rel::oid = ANY ($1) GROUP BY r.id, r.rel::oid
), members AS (
  SELECT DISTINCT m.rel::oid AS rel FROM pgrail.member m JOIN roots ON roots.id = m.root
), leaves AS (
  SELECT DISTINCT l.oid FROM members m, LATERAL (SELECT m.rel UNION SELECT t.relid::oid FROM pg_partition_tree(m.rel::regclass) t WHERE t.isleaf) l(oid)
), total AS (
  SELECT string_agg(format('pg_catalog.pg_stat_get_xact_tuples_deleted(%1$s::pg_catalog.oid) OPERATOR(pg_catalog.+) pg_catalog.pg_stat_get_xact_tuples_updated(%1$s::pg_catalog.oid)', l.oid),
                    ' OPERATOR(pg_catalog.+) ' ORDER BY l.oid) AS sum,
         -- What the session counted before and has not flushed yet.
         coalesce(sum(pg_stat_get_xact_tuples_deleted(l.oid) + pg_stat_get_xact_tuples_updated(l.oid)), 0)::bigint AS before
  FROM leaves l
), gates AS (
  SELECT p.proname AS gate, format('rehearsed_%s_%s', pg_backend_pid(), r.id) AS original, p.prosrc
  FROM members m JOIN pgrail.relation r ON r.rel::oid = m.rel
  JOIN pg_proc p ON p.pronamespace = 'pgrail'::regnamespace AND p.proname = 'gate_' || r.id
)
SELECT coalesce((SELECT array_agg(rel ORDER BY rel) FILTER (WHERE deletes) FROM roots), '{}') AS deletes,
       coalesce((SELECT array_agg(rel ORDER BY rel) FILTER (WHERE updates) FROM roots), '{}') AS updates,
       format('CREATE FUNCTION pgrail.rehearsal_%s() RETURNS pg_catalog.void LANGUAGE sql AS %L;', pg_backend_pid(), '') ||
       coalesce((SELECT string_agg(
         format('CREATE FUNCTION pgrail.%I(rel pg_catalog.oid, event pg_catalog.int4) RETURNS pg_catalog.bool LANGUAGE plpgsql VOLATILE AS %L;'
           'GRANT EXECUTE ON FUNCTION pgrail.%1$I(pg_catalog.oid, pg_catalog.int4) TO PUBLIC;', original, prosrc) ||
         format('CREATE OR REPLACE FUNCTION pgrail.%I(rel pg_catalog.oid, event pg_catalog.int4) RETURNS pg_catalog.bool LANGUAGE plpgsql VOLATILE AS %L;', gate,
           format('BEGIN IF %s OPERATOR(pg_catalog.>) %s THEN RAISE EXCEPTION USING ERRCODE = ''PGR00'', MESSAGE = ''pgrail: the row cap of the rehearsal is exceeded''; END IF; RETURN %s; END',
             sum, $2::bigint + before, CASE WHEN $3::bool THEN format('pgrail.%I(rel, event)', original) ELSE 'false' END)), '' ORDER BY gate)
         FROM gates, total), '') ||
       -- Neither do windows stop it then.
       CASE WHEN $3::bool THEN '' ELSE coalesce((SELECT string_agg(
         format('CREATE OR REPLACE FUNCTION pgrail.%I() RETURNS pg_catalog.bool LANGUAGE plpgsql VOLATILE AS %L;', p.proname, 'BEGIN RETURN false; END'), '' ORDER BY p.proname)
         FROM roots JOIN pg_proc p ON p.pronamespace = 'pgrail'::regnamespace AND p.proname = 'window_' || roots.id), '') END AS sql
