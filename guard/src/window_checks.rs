//! The SQL of the functions that check and count the windows of one root. See `window_functions.sql`.

use std::collections::BTreeSet;

use crate::catalog::Oid;
use crate::gate::{RootChecks, counter};

const EQ: &str = "OPERATOR(pg_catalog.=)";
const MINUS: &str = "OPERATOR(pg_catalog.-)";
const PLUS: &str = "OPERATOR(pg_catalog.+)";

/// One limit of one window.
struct Limit<'a> {
    kind: &'static str,
    assignment: i32,
    rows: i64,
    seconds: i64,
    /// The server's shared counters with what this session has not reported.
    total: &'a str,
    /// What this transaction removed.
    own: &'a str,
}

impl Limit<'_> {
    /// Whether what was removed since the counters were last noted is less than a 16th of the limit; NULL where a sequence is
    /// missing.
    fn in_range(&self) -> String {
        let step = (self.rows / 16).max(1).ilog2();
        let stood = self.sequence("");
        format!("((({} {MINUS} {stood}) OPERATOR(pg_catalog.>>) {step}) {EQ} 0)", self.total)
    }

    fn sequence(&self, bucket: &str) -> String {
        let (kind, assignment) = (self.kind, self.assignment);
        format!(
            "pg_catalog.pg_sequence_last_value(pg_catalog.to_regclass('pgrail.window_{kind}_{bucket}{assignment}'))"
        )
    }

    /// Whether each transaction is counted, and the limit allows what both buckets have, however old they are, with what this
    /// transaction removed; but so much that it stays so.
    fn is_counted_within(&self) -> String {
        let rows = |bucket: &str| format!("coalesce({} & 68719476735, 0)", self.sequence(bucket));
        let (even, odd) = (rows("even_"), rows("odd_"));
        let (even64, odd64) = (rows("even64_"), rows("odd64_"));
        let (least, most) = (self.rows / 8 + 1, if self.kind == "rows" { self.rows } else { self.rows - 1 });
        format!(
            "({} < 0 AND {even} + {odd} + 64 * ({even64} + {odd64}) + {} BETWEEN {least} AND {most})",
            self.sequence(""),
            self.own
        )
    }
}

fn sum(tables: Vec<String>) -> String {
    if tables.is_empty() { "0::pg_catalog.int8".to_owned() } else { tables.join(&format!(" {PLUS} ")) }
}

/// Every limit of the root's windows that can be passed: where no other table can lose rows, nothing is asked for the cascade.
fn each<T>(root: &RootChecks, of: impl Fn(&Limit<'_>) -> T) -> Vec<T> {
    let shared = |what: &str, oids: &BTreeSet<Oid>| {
        let of = |oid: &Oid| {
            format!("pg_catalog.pg_stat_get_tuples_{what}({oid}::pg_catalog.oid) {PLUS} {}", counter(what, *oid))
        };
        oids.iter().map(of).collect::<Vec<_>>()
    };
    let rows = sum(shared("deleted", &root.leaves));
    let cascaded = sum([shared("deleted", &root.deleted), shared("updated", &root.updated)].concat());
    let (own_rows, own_cascaded) = own(root);
    let mut all = Vec::new();
    for window in &root.windows {
        let cascade_rows = window.cascade_rows.filter(|_| root.cascaded_tables() > 0);
        let limits = [("rows", window.rows, &rows, &own_rows), ("cascade", cascade_rows, &cascaded, &own_cascaded)];
        for (kind, limit, total, own) in limits {
            let Some(rows) = limit else { continue };
            let (assignment, seconds) = (window.assignment, window.duration);
            all.push(of(&Limit { kind, assignment, rows, seconds, total, own }));
        }
    }
    all
}

/// What this transaction removed, where it is counted simply.
fn own(root: &RootChecks) -> (String, String) {
    let deleted = |oids: &BTreeSet<Oid>| sum(oids.iter().map(|oid| counter("deleted", *oid)).collect());
    (deleted(&root.leaves), deleted(&root.deleted))
}

/// `CREATE OR REPLACE FUNCTION pgrail.window_<id>()`: a statement on the root ends. Whether the shared counters, with what
/// this session has not reported, have left the range in which a window need not be examined. See `observe_window`. Where a
/// sequence is missing, `check_window` decides.
pub fn create_window(root: &RootChecks) -> String {
    let id = root.id;
    let examined = each(root, |limit| format!("{} IS NOT TRUE", limit.in_range()));
    let examined = if examined.is_empty() { "false".to_owned() } else { examined.join("\n    OR ") };
    let examine = if root.is_counted_simply() { format!("removing_{id}()") } else { format!("check_window({id})") };
    format!(
        "CREATE OR REPLACE FUNCTION pgrail.window_{id}() RETURNS pg_catalog.bool
LANGUAGE plpgsql VOLATILE AS $window$
BEGIN
  RETURN ({examined}) AND pgrail.{examine};
END $window$"
    )
}

/// `CREATE OR REPLACE FUNCTION pgrail.removing_<id>()`: the usual case of `check_window` where each transaction is counted, in
/// as few expressions as can be: each is prepared again in each transaction. Everything else is left to `check_window`: a
/// procedure that has committed, a transaction whose baselines were noted, a subscription's worker, a database that was restored from a dump, which has other tables.
pub fn create_removing(root: &RootChecks) -> String {
    let id = root.id;
    let rows = own(root).0;
    let within =
        each(root, |limit| format!("\n     AND ({} OR {})", limit.in_range(), limit.is_counted_within())).concat();
    let assignments = root.windows.iter().map(|window| window.assignment.to_string()).collect::<Vec<_>>().join(",");
    format!(
        "CREATE OR REPLACE FUNCTION pgrail.removing_{id}() RETURNS bool
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $window$
DECLARE
  here tid;
BEGIN
  IF {rows} > 0 AND transaction_timestamp() <= statement_timestamp() AND current_setting('session_replication_role') <> 'replica'
     AND coalesce(current_setting('pgrail.baseline', true), '') = ''{within} THEN
    IF EXISTS (SELECT FROM pg_constraint k WHERE k.conname = 'count_removed' AND k.connamespace = 'pgrail'::regnamespace)
       AND EXISTS (SELECT FROM pg_proc p WHERE p.proname = 'config_install' AND p.pronamespace = 'pgrail'::regnamespace
                   AND p.prosrc ~ ('\"usage_table\": ' || to_regclass('pgrail.usage')::oid || '[,}}]')) THEN
      SET CONSTRAINTS pgrail.count_removed DEFERRED;
      INSERT INTO pgrail.removal (root, rows, assignments, allowances, durations, simple)
        VALUES ({id}, {rows}, '{{{assignments}}}', '{{}}', '{{}}', true) RETURNING ctid INTO here;
      DELETE FROM pgrail.removal r WHERE r.ctid = here;
      RETURN false;
    END IF;
  END IF;
  RETURN pgrail.check_window({id});
END $window$"
    )
}

/// `CREATE OR REPLACE FUNCTION pgrail.removed_<id>(bigint)`: the end of a transaction that `removing_<id>` found. Called by
/// `count_removed` alone, which has the general case.
pub fn create_removed(root: &RootChecks) -> String {
    let id = root.id;
    let (rows, cascaded) = own(root);
    let count = each(root, |limit| {
        let (kind, assignment, seconds) = (limit.kind, limit.assignment, limit.seconds);
        let rows = if kind == "rows" { "n" } else { "c" };
        format!(
            "  IF {rows} > 0 AND {} < 0 THEN PERFORM pgrail.count_in_window('{kind}', '{assignment}', {seconds}, {rows}); END IF;\n",
            limit.sequence("")
        )
    });
    format!(
        "CREATE OR REPLACE FUNCTION pgrail.removed_{id}(p_rows bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $window$
DECLARE
  n bigint := greatest({rows}, p_rows);
  c bigint := {cascaded};
  key bigint := pg_current_xact_id()::text::bigint & 131071;
  note bigint;
BEGIN
  BEGIN
    note := currval('pgrail.window_counted_{id}');
  EXCEPTION WHEN object_not_in_prerequisite_state THEN NULL;
  END;
  PERFORM setval('pgrail.window_counted_{id}', (key << 46) | (least(n, 8388607) << 23) | least(c, 8388607));
  IF note >> 46 = key THEN
    n := greatest(n - ((note >> 23) & 8388607), 0);
    c := greatest(c - (note & 8388607), 0);
  END IF;
{}END $window$",
        count.concat()
    )
}
