//! The SQL of the functions and triggers that are made for particular tables.
//!
//! A gate runs as the role that deletes, with its search_path: every function, type and operator is qualified. It holds
//! numbers of tables, not names: nothing depends on the tables, nothing is looked up, and a table it does not know
//! (a new partition, a restored dump) goes to `pgrail.check_limits`, which is exact.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::catalog::Oid;

/// What a gate must know about one root.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts of one root")]
pub struct RootChecks {
    /// The root's number.
    pub id: i32,
    /// Tables that hold the root's rows.
    pub leaves: BTreeSet<Oid>,
    /// Tables that lose rows by cascade.
    pub deleted: BTreeSet<Oid>,
    /// Tables whose rows are updated.
    pub updated: BTreeSet<Oid>,
    /// Tables that hold the rows of guarded roots above this one.
    pub above: BTreeSet<Oid>,
    /// Whether an UPDATE can move a row of the root to another partition, which the server counts as a delete.
    pub partitioned: bool,
    /// Whether some role has an allowance to go beyond a limit: then what it allowed is counted, see `pgrail.check_limits`.
    pub has_allowances: bool,
    /// Whether such an allowance is limited per client statement.
    pub allowances_per_statement: bool,
    /// The strictest limits of the guards that stop.
    pub enforced: Limits,
    /// What all transactions together may remove.
    pub windows: Vec<WindowLimits>,
    /// Whether the root's own tables and those that lose rows are all without partitions: then none can be added to them.
    pub without_partitions: bool,
    /// The limits of every guard that only warns, by the number of its assignment: each warns for itself, once per statement.
    pub warned: Vec<(i32, Limits)>,
}

/// What an assignment allows all transactions together, within the time that its window has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowLimits {
    /// The assignment's number.
    pub assignment: i32,
    /// Rows of the root.
    pub rows: Option<i64>,
    /// Rows of other tables.
    pub cascade_rows: Option<i64>,
    /// Seconds.
    pub duration: i64,
}

/// Limits that hold together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Per transaction: rows, rows of other tables.
    pub per_transaction: Option<(i64, i64)>,
    /// Per client statement: rows, rows of other tables.
    pub per_statement: Option<(i64, i64)>,
    /// The total of a transaction, where the others hold per statement.
    pub total: Option<i64>,
    /// Rows that one client statement may update.
    pub updates: Option<i64>,
}

impl Limits {
    fn pairs(&self) -> impl Iterator<Item = (i64, i64)> {
        self.per_transaction.into_iter().chain(self.per_statement)
    }

    /// The fewest rows of the root that could pass a limit.
    fn least_rows(&self) -> Option<i64> {
        self.pairs().map(|(rows, _)| rows).chain(self.total).min()
    }

    fn least_cascade_rows(&self) -> Option<i64> {
        self.pairs().map(|(_, cascade)| cascade).chain(self.total).min()
    }
}

impl RootChecks {
    fn sets(&self) -> impl Iterator<Item = (Option<i32>, &Limits)> {
        [(None, &self.enforced)].into_iter().chain(self.warned.iter().map(|(id, limits)| (Some(*id), limits)))
    }

    /// Whether deletes are limited at all.
    pub fn limits_deletes(&self) -> bool {
        self.sets().any(|(_, limits)| limits.pairs().next().is_some())
    }

    /// Whether deletes beyond a limit are stopped.
    pub fn stops_deletes(&self) -> bool {
        self.enforced.pairs().next().is_some()
    }

    /// Whether updates are limited at all.
    pub fn limits_updates(&self) -> bool {
        self.sets().any(|(_, limits)| limits.updates.is_some())
    }

    fn per_statement(&self) -> bool {
        self.sets().any(|(_, limits)| limits.per_statement.is_some())
    }

    fn has_total(&self) -> bool {
        self.sets().any(|(_, limits)| limits.total.is_some())
    }

    /// Whether every statement on the root must note where the counters stand. The others do so only where the
    /// counters contain an earlier transaction.
    fn needs_note(&self) -> bool {
        self.limits_deletes()
            && (self.per_statement() || self.allowances_per_statement || self.partitioned || !self.updated.is_empty())
    }

    /// Whether what a transaction removed is what the counters of these tables have, with no allowance and no other root to
    /// ask for: then a window counts it by `removing_<id>` and `removed_<id>`.
    pub fn is_counted_simply(&self) -> bool {
        self.without_partitions && self.updated.is_empty() && self.above.is_empty() && !self.has_allowances
    }

    /// How many counters its rows of other tables have.
    pub fn cascaded_tables(&self) -> usize {
        self.deleted.len() + self.updated.len()
    }

    /// Whether a gate that judges the cascades of so many roots first asks whether this one lost rows: its own tables are
    /// fewer than those that it reaches.
    fn is_asked_first(&self, roots: usize) -> bool {
        roots > 1 && self.leaves.len() < self.cascaded_tables()
    }

    /// Whether the counter of the row's own table alone can show that no limit of this root is passed: what a transaction
    /// deleted is no less than what a statement of it did, and all that counts to its total where no other table loses rows.
    fn own_counter_decides(&self) -> bool {
        let alone = self.deleted.is_empty() && self.updated.is_empty();
        self.leaves.len() <= 1 && !self.partitioned && (alone || !self.has_total())
    }
}

/// What one gate judges: the rows of a table that has our row triggers, with its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate<'a> {
    /// The number of the table with the triggers.
    pub id: i32,
    /// The tables with rows that the gate knows.
    pub known: BTreeSet<Oid>,
    /// Roots whose own rows these are.
    pub own: Vec<&'a RootChecks>,
    /// Roots whose cascades delete these rows.
    pub deleted_for: Vec<&'a RootChecks>,
    /// Roots for which these rows are nulled.
    pub updated_for: Vec<&'a RootChecks>,
}

/// Rows are allowed in multiples of this, as `pgrail.check_limits` has it.
const LEASE: i32 = 100;
/// Of a root that reaches more tables than these, the sum is not in the first expression of a gate that other roots reach too.
const INLINE: usize = 8;
const GT: &str = "OPERATOR(pg_catalog.>)";
const LE: &str = "OPERATOR(pg_catalog.<=)";
const EQ: &str = "OPERATOR(pg_catalog.=)";
const MINUS: &str = "OPERATOR(pg_catalog.-)";
const PLUS: &str = "OPERATOR(pg_catalog.+)";
const FLUSH: &str = "pg_catalog.pg_stat_force_next_flush() IS NOT NULL";
const STATEMENT_KEY: &str = "pg_catalog.encode(pg_catalog.timestamptz_send(pg_catalog.statement_timestamp()), 'hex')";

pub(crate) fn counter(what: &str, oid: Oid) -> String {
    format!("pg_catalog.pg_stat_get_xact_tuples_{what}({oid}::pg_catalog.oid)")
}

fn sum(what: &str, oids: &BTreeSet<Oid>) -> String {
    if oids.is_empty() {
        return "0::pg_catalog.int8".to_owned();
    }
    oids.iter().map(|oid| counter(what, *oid)).collect::<Vec<_>>().join(&format!(" {PLUS} "))
}

fn cascaded(root: &RootChecks) -> String {
    match (root.deleted.is_empty(), root.updated.is_empty()) {
        (_, true) => sum("deleted", &root.deleted),
        (true, false) => sum("updated", &root.updated),
        (false, false) => format!("{} {PLUS} {}", sum("deleted", &root.deleted), sum("updated", &root.updated)),
    }
}

/// Rows that `pgrail.check_limits` allowed for a role with an allowance: up to there it need not be called again.
fn leased(root: &RootChecks, kind: &str) -> Option<String> {
    let table = format!("'pgrail.allowed_{kind}{}'::pg_catalog.regclass", root.id);
    let times = format!("({LEASE} OPERATOR(pg_catalog.*) pg_catalog.pg_stat_get_xact_tuples_inserted({table}))");
    root.has_allowances.then_some(times)
}

fn note(id: i32) -> String {
    format!("pg_catalog.current_setting('pgrail.note_{id}', true)")
}

/// Reads a number from the note; what is not one counts as nothing there, and `check_limits` decides.
fn noted(field: u8) -> String {
    format!("pg_catalog.split_part(s, ':', {field})::pg_catalog.int8")
}

impl Gate<'_> {
    /// `CREATE OR REPLACE FUNCTION pgrail.gate_<id>(rel oid, event int)`: event 0 a delete, 1 an update.
    pub fn create(&self) -> String {
        let mut body = String::new();
        let known = self.known.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        if let Some(quiet) = self.quiet() {
            let _ = writeln!(body, "  IF {quiet} THEN RETURN false; END IF;");
        }
        let _ = writeln!(body, "  IF NOT rel {EQ} ANY ('{{{known}}}'::pg_catalog.oid[]) THEN");
        self.write_unknown(&mut body);
        body.push_str("  ELSIF event OPERATOR(pg_catalog.=) 0 THEN\n");
        for root in &self.own {
            write_own(&mut body, root);
        }
        write_cascade(&mut body, &self.deleted_for);
        body.push_str("  ELSE\n");
        for root in self.own.iter().filter(|root| root.limits_updates()) {
            write_updates(&mut body, root);
        }
        write_cascade(&mut body, &self.updated_for);
        body.push_str("  END IF;\n  RETURN false;\n");
        format!(
            "CREATE OR REPLACE FUNCTION pgrail.gate_{}(rel pg_catalog.oid, event pg_catalog.int4) RETURNS pg_catalog.bool\nLANGUAGE plpgsql VOLATILE AS $gate$\nDECLARE\n  n pg_catalog.int8;\n  c pg_catalog.int8;\n  s pg_catalog.text;\nBEGIN\n{body}END $gate$",
            self.id
        )
    }

    /// The whole judgement of nearly every row that gets here, in one expression, since it is expressions that take the
    /// time: a known table, and no limit is passed, whatever the statement is and whichever way the row went. Of the roots
    /// that reach a table, few lose rows in one statement: the tables of the others are not counted. An expression is
    /// prepared as a whole, so sums of many tables are left to the statements that follow, except for the smallest.
    fn quiet(&self) -> Option<String> {
        let mut quiet = match self.known.iter().collect::<Vec<_>>().as_slice() {
            [] => return None,
            [one] => vec![format!("rel {EQ} {one}::pg_catalog.oid")],
            many => {
                let known = many.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
                vec![format!("rel {EQ} ANY ('{{{known}}}'::pg_catalog.oid[])")]
            }
        };
        // A table whose rows are only nulled never sees a delete here, and most others never an update.
        let deletes = !self.deleted_for.is_empty() || self.own.iter().any(|root| root.limits_deletes());
        if deletes && self.judges_updates() {
            quiet.push(format!("event {EQ} 0"));
        } else if !deletes && !self.own.is_empty() {
            return None;
        }
        let own = self.own.iter().filter(|root| root.limits_deletes()).map(|root| {
            let rows = sum("deleted", &root.leaves);
            let least = root.sets().filter_map(|(_, limits)| limits.least_rows()).min();
            (*root, "", least.map(|least| format!("{rows} {LE} {least}")), rows)
        });
        let reached = if deletes { &self.deleted_for } else { &self.updated_for };
        let cascades = reached.iter().map(|root| {
            let rows = cascaded(root);
            let least = root.sets().filter_map(|(_, limits)| limits.least_cascade_rows()).min();
            (*root, "cascade_", least.map(|least| format!("{rows} {LE} {least}")), rows)
        });
        let mut unhurt: BTreeSet<Oid> = BTreeSet::new();
        for (root, kind, within, rows) in own.chain(cascades) {
            let asked_first = !kind.is_empty() && root.is_asked_first(reached.len());
            let is_smallest = reached.iter().all(|other| root.cascaded_tables() <= other.cascaded_tables());
            if asked_first && !is_smallest && root.cascaded_tables() > INLINE {
                unhurt.extend(&root.leaves);
                continue;
            }
            let total = root.sets().filter_map(|(_, limits)| limits.total).min();
            let total = total.filter(|_| root.cascaded_tables() > 0);
            let total =
                total.map(|total| format!("{} {PLUS} {} {LE} {total}", sum("deleted", &root.leaves), cascaded(root)));
            let all = within.into_iter().chain(total).collect::<Vec<_>>().join(" AND ");
            let lost_none = asked_first.then(|| format!("{} {EQ} 0", sum("deleted", &root.leaves)));
            let leased = leased(root, kind).map(|leased| format!("{rows} {LE} {leased}"));
            let any = lost_none.into_iter().chain([all]).chain(leased).collect::<Vec<_>>();
            quiet.push(match any.as_slice() {
                [one] => one.clone(),
                many => format!("({})", many.join(" OR ")),
            });
        }
        if !unhurt.is_empty() {
            quiet.push(format!("{} {EQ} 0", sum("deleted", &unhurt)));
        }
        Some(quiet.join(" AND "))
    }

    fn judges_updates(&self) -> bool {
        !self.updated_for.is_empty() || self.own.iter().any(|root| root.limits_updates())
    }

    fn write_unknown(&self, body: &mut String) {
        for root in &self.own {
            let _ = writeln!(
                body,
                "    IF event {EQ} 0 AND pgrail.check_limits({}, 0, rel) THEN RETURN true; END IF;",
                root.id
            );
            if root.limits_updates() {
                let _ = writeln!(
                    body,
                    "    IF event {EQ} 1 AND pgrail.check_limits({}, 2, rel) THEN RETURN true; END IF;",
                    root.id
                );
            }
        }
        for (event, roots) in [(0, &self.deleted_for), (1, &self.updated_for)] {
            for root in roots {
                let _ = writeln!(
                    body,
                    "    IF event {EQ} {event} AND pg_catalog.pg_trigger_depth() {GT} 0 AND pgrail.check_limits({}, 1, rel) THEN RETURN true; END IF;",
                    root.id
                );
            }
        }
    }

    /// The triggers that call this gate: name and what follows it in `CREATE TRIGGER`, with `{table}` in place of the table.
    pub fn triggers(&self) -> Vec<(String, String)> {
        let mut triggers = Vec::new();
        let own_deletes: Vec<_> = self.own.iter().filter(|root| root.limits_deletes()).collect();
        if !own_deletes.is_empty() || !self.deleted_for.is_empty() {
            let checks = own_deletes.iter().map(|root| {
                let single = root.own_counter_decides() && self.known.len() <= 1;
                let least = root.sets().filter_map(|(_, limits)| limits.least_rows()).min();
                let own = "pg_catalog.pg_stat_get_xact_tuples_deleted(OLD.tableoid)";
                least.filter(|_| single).map(|rows| match leased(root, "") {
                    Some(leased) => format!("{own} {GT} greatest('{rows}'::pg_catalog.int8, {leased})"),
                    None => format!("{own} {GT} {rows}"),
                })
            });
            let when = when(checks.collect(), !self.deleted_for.is_empty());
            triggers.push((
                format!("pgrail_delete_{}", self.id),
                format!(
                    "AFTER DELETE ON {{table}} FOR EACH ROW WHEN ({FLUSH}{when} AND pgrail.gate_{}(OLD.tableoid, 0))",
                    self.id
                ),
            ));
        }
        let own_updates: Vec<_> = self.own.iter().filter(|root| root.limits_updates()).collect();
        if self.judges_updates() {
            let checks = own_updates.iter().map(|root| {
                let single = root.leaves.len() <= 1 && self.known.len() <= 1 && !root.partitioned;
                let least = root.sets().filter_map(|(_, limits)| limits.updates).min();
                let own = "pg_catalog.pg_stat_get_xact_tuples_updated(NEW.tableoid)";
                least.filter(|_| single).map(|rows| format!("{own} {GT} {rows}"))
            });
            let when = when(checks.collect(), !self.updated_for.is_empty());
            triggers.push((
                format!("pgrail_update_{}", self.id),
                format!(
                    "AFTER UPDATE ON {{table}} FOR EACH ROW WHEN ({FLUSH}{when} AND pgrail.gate_{}(NEW.tableoid, 1))",
                    self.id
                ),
            ));
        }
        triggers
    }
}

/// The cheap check before the gate: `None` among `checks` means that only the gate can decide.
fn when(checks: Vec<Option<String>>, cascades: bool) -> String {
    // A cast is one node less than a comparison, and each is parsed and planned anew whenever a statement, or a foreign
    // key's own query, first gets here.
    let depth = cascades.then(|| Some("pg_catalog.pg_trigger_depth()::pg_catalog.bool".to_owned()));
    let Some(checks) = checks.into_iter().chain(depth).collect::<Option<Vec<_>>>() else { return String::new() };
    match checks.as_slice() {
        [] => String::new(),
        [one] => format!(" AND {one}"),
        many => format!(" AND ({})", many.join(" OR ")),
    }
}

/// A guard that only warns has done so for this client statement. The setting can be forged: it costs a warning.
fn not_warned(assignment: Option<i32>) -> Option<String> {
    let id = assignment?;
    Some(format!("(pg_catalog.current_setting('pgrail.warned_{id}', true) {EQ} {STATEMENT_KEY}) IS NOT TRUE"))
}

fn current() -> String {
    format!("coalesce(pg_catalog.left(s, 16) {EQ} {STATEMENT_KEY}, false)")
}

/// Judges rows of the root: `n` of them went, and `c` of other tables.
fn write_own(body: &mut String, root: &RootChecks) {
    let id = root.id;
    let _ = writeln!(body, "    n := {};", sum("deleted", &root.leaves));
    if root.has_total() {
        let _ = writeln!(body, "    c := {};", cascaded(root));
    }
    for (assignment, limits) in root.sets() {
        let Some(least) = limits.least_rows() else { continue };
        let mut suspicious = format!("n {GT} {least}");
        let total = limits.total.map(|total| format!(" OR n {PLUS} c {GT} {total}")).unwrap_or_default();
        suspicious.push_str(&total);
        let mut decides: Vec<String> = leased(root, "").map(|rows| format!("n {GT} {rows}")).into_iter().collect();
        decides.extend(not_warned(assignment));
        let _ = writeln!(body, "    IF {suspicious} THEN");
        if root.needs_note() {
            let _ = writeln!(body, "      s := {};", note(id));
        }
        if root.partitioned {
            // Rows that an UPDATE moves between partitions: without a DELETE in this statement, as many as were inserted.
            let inserted = sum("inserted", &root.leaves);
            decides.push(format!("({} OR n {MINUS} ({inserted}) {GT} {least})", current()));
        }
        if let Some((rows, _)) = limits.per_statement {
            let transaction = limits.per_transaction.map(|(rows, _)| format!(" OR n {GT} {rows}")).unwrap_or_default();
            let of_statement = format!("CASE WHEN {} THEN n {MINUS} {} ELSE n END", current(), noted(2));
            decides.push(format!("({of_statement} {GT} {rows}{transaction}{total})"));
        }
        if !root.above.is_empty() {
            decides.push(format!("(pg_catalog.pg_trigger_depth() {EQ} 0 OR ({}) {EQ} 0)", sum("deleted", &root.above)));
        }
        decides.push(format!("pgrail.check_limits({id}, 0, rel)"));
        let _ = writeln!(body, "      IF {} THEN RETURN true; END IF;\n    END IF;", decides.join(" AND "));
    }
}

/// Judges rows of the root that were updated.
fn write_updates(body: &mut String, root: &RootChecks) {
    let id = root.id;
    let _ = writeln!(body, "    n := {};", sum("updated", &root.leaves));
    if let Some(least) = root.sets().filter_map(|(_, limits)| limits.updates).min() {
        let _ = writeln!(body, "    IF n {GT} {least} THEN n := n {MINUS} pgrail.updated_before({id}); END IF;");
    }
    for (assignment, limits) in root.sets() {
        let Some(limit) = limits.updates else { continue };
        let warned = not_warned(assignment).map(|condition| format!(" AND {condition}")).unwrap_or_default();
        let _ = writeln!(
            body,
            "    IF n {GT} {limit}{warned} AND pgrail.check_limits({id}, 2, rel) THEN RETURN true; END IF;"
        );
    }
}

/// Judges rows that went, or were nulled, as a consequence of deletes on these roots.
fn write_cascade(body: &mut String, roots: &[&RootChecks]) {
    if roots.is_empty() {
        return;
    }
    let _ = writeln!(body, "    IF pg_catalog.pg_trigger_depth() {GT} 0 THEN");
    for root in roots {
        let id = root.id;
        let own = sum("deleted", &root.leaves);
        let asked_first = root.is_asked_first(roots.len());
        if asked_first {
            let _ = writeln!(body, "      IF ({own}) {GT} 0 THEN");
        }
        let _ = writeln!(body, "      c := {};", cascaded(root));
        if root.has_total() {
            let _ = writeln!(body, "      n := {own};");
        }
        if root.per_statement() {
            let _ = writeln!(body, "      s := {};", note(id));
        }
        for (assignment, limits) in root.sets() {
            let Some(least) = limits.least_cascade_rows() else { continue };
            let total = limits.total.map(|total| format!(" OR n {PLUS} c {GT} {total}")).unwrap_or_default();
            let mut decides = vec![format!("(c {GT} {least}{total})")];
            decides.extend(leased(root, "cascade_").map(|rows| format!("c {GT} {rows}")));
            decides.extend(not_warned(assignment));
            if !asked_first {
                decides.push(format!("({own}) {GT} 0"));
            }
            if !root.above.is_empty() {
                decides.push(format!("({}) {EQ} 0", sum("deleted", &root.above)));
            }
            if let Some((_, rows)) = limits.per_statement {
                let transaction =
                    limits.per_transaction.map(|(_, rows)| format!(" OR c {GT} {rows}")).unwrap_or_default();
                let of_statement = format!("CASE WHEN {} THEN c {MINUS} {} ELSE c END", current(), noted(3));
                decides.push(format!("({of_statement} {GT} {rows}{transaction}{total})"));
            }
            decides.push(format!("pgrail.check_limits({id}, 1, rel)"));
            let _ = writeln!(body, "      IF {} THEN RETURN true; END IF;", decides.join(" AND "));
        }
        if asked_first {
            body.push_str("      END IF;\n");
        }
    }
    body.push_str("    END IF;\n");
}

/// Whether the counters contain what an earlier transaction did: a procedure has committed, so that the transaction began
/// after the client's statement; or something was counted, and the transaction has no number, so that it has changed no row.
fn follows_another(counted: &str) -> String {
    format!(
        "pg_catalog.transaction_timestamp() OPERATOR(pg_catalog.>) pg_catalog.statement_timestamp() \
         OR (pg_catalog.pg_current_xact_id_if_assigned() IS NULL AND {counted})"
    )
}

/// When `note_<id>` is called, as the condition of its trigger: at every statement, or only where it notes a baseline.
pub fn note_is_due(root: &RootChecks) -> String {
    let note = format!("pgrail.note_{}()", root.id);
    if root.needs_note() {
        return note;
    }
    format!("({}) AND {note}", follows_another(&format!("({}) {GT} 0", sum("deleted", &root.leaves))))
}

/// `CREATE OR REPLACE FUNCTION pgrail.note_<id>()`: a statement on the root begins. Notes once per client statement where
/// the counters stand, local to the transaction, as five fields: statement, rows, rows of other tables; updates before the
/// first statement; inserts. Baselines of the transaction are noted where only pgrail can write, by `note_baseline`.
pub fn create_note(root: &RootChecks) -> String {
    let id = root.id;
    let (rows, inserted) = (sum("deleted", &root.leaves), sum("inserted", &root.leaves));
    let (deleted, updated) = (sum("deleted", &root.deleted), sum("updated", &root.updated));
    let setting = format!("'pgrail.note_{id}'");
    let follows = follows_another(&format!("(r {GT} 0 OR c {GT} 0)"));
    let nulls = if root.updated.is_empty() { String::new() } else { format!(" OR (r {EQ} 0 AND u {GT} 0)") };
    format!(
        "CREATE OR REPLACE FUNCTION pgrail.note_{id}() RETURNS pg_catalog.bool
LANGUAGE plpgsql VOLATILE AS $note$
DECLARE
  s pg_catalog.text := pg_catalog.current_setting({setting}, true);
  key pg_catalog.text := {STATEMENT_KEY};
  r pg_catalog.int8 := {rows};
  c pg_catalog.int8 := {deleted};
  u pg_catalog.int8 := {updated};
  u0 pg_catalog.int8 := u;
BEGIN
  IF {follows}{nulls} THEN
    IF pgrail.note_baseline({id}) THEN RETURN true; END IF;
  END IF;
  IF pg_catalog.left(s, 16) {EQ} key THEN RETURN false; END IF;
  IF s OPERATOR(pg_catalog.~) '^[0-9a-f]{{16}}(:[0-9]{{1,18}}){{4}}$' THEN
    u0 := {};
  END IF;
  s := pg_catalog.set_config({setting}, pg_catalog.concat(key, ':', r, ':', c {PLUS} greatest(u {MINUS} u0, 0), ':', u0, ':', {inserted}), true);
  RETURN false;
END $note$",
        noted(4),
    )
}

/// `CREATE OR REPLACE FUNCTION pgrail.updating_<id>()`: notes where the updates of a root stand, for `updated_before`. The
/// note is the value of a sequence in this session, which other roles cannot set.
pub fn create_updating(root: &RootChecks) -> String {
    let id = root.id;
    let updated = sum("updated", &root.leaves);
    format!(
        "CREATE OR REPLACE FUNCTION pgrail.updating_{id}() RETURNS pg_catalog.bool
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $note$
DECLARE
  key bigint := (extract(epoch FROM statement_timestamp()) * 1000000)::bigint & 2147483647;
  note bigint;
BEGIN
  BEGIN
    note := currval('pgrail.updated_{id}');
  EXCEPTION WHEN object_not_in_prerequisite_state THEN NULL;
  END;
  IF note IS NULL OR (note >> 31) & 2147483647 <> key THEN
    note := setval('pgrail.updated_{id}', (1::bigint << 62) | (key << 31) | least({updated}, 2147483647));
  END IF;
  RETURN false;
END $note$"
    )
}
