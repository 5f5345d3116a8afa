//! The rules `guards.*`.

use super::{Evaluation, Facts, Rule, find, is_current, names};
use kube::ResourceExt;
use pgrail_crds::conditions::{ENFORCED, READY, TAMPER_RESISTANT, reasons};
use pgrail_crds::{BlastRadius, GuardMode, GuardRules, LimitOverrides, MaxLimits, TableGuard};
use pgrail_guard::{PartialLimits, TableSelector};

pub(super) fn evaluate(rules: &GuardRules, facts: &Facts<'_>, is_known: bool, evaluation: &mut Evaluation) {
    let guards: Vec<&TableGuard> = in_force(facts).collect();
    for guard in &guards {
        evaluate_spec(rules, guard, evaluation);
        if is_known {
            evaluate_state(rules, guard, evaluation);
        }
    }
    // The blast radius that was last known counts also while the database cannot be reached.
    for table in at_risk(rules, facts) {
        if let Some(message) = uncovered(rules, table, &guards) {
            evaluation.find(Rule::MinRowsAtRisk, &table.table, message);
        }
    }
    not_listed(rules, facts, evaluation);
}

/// Whether the guards of the users leave something that a guard of the policy must stop. State does not count, only what is
/// declared: a guard that is being installed needs no second one.
pub(crate) fn needs_guard(rules: &GuardRules, facts: &Facts<'_>, of_policy: impl Fn(&TableGuard) -> bool) -> bool {
    let own: Vec<&TableGuard> = in_force(facts).filter(|guard| !of_policy(guard)).collect();
    let mut declared = Evaluation::default();
    for guard in &own {
        evaluate_spec(rules, guard, &mut declared);
    }
    own.is_empty()
        || !declared.findings.is_empty()
        || at_risk(rules, facts).any(|table| !own.iter().any(|guard| covers(guard, &table.table)))
}

fn in_force<'a>(facts: &'a Facts<'a>) -> impl Iterator<Item = &'a TableGuard> {
    facts.guards.iter().copied().filter(|guard| guard.metadata.deletion_timestamp.is_none())
}

/// Tables that require a guard.
fn at_risk<'a>(rules: &'a GuardRules, facts: &'a Facts<'a>) -> impl Iterator<Item = &'a BlastRadius> {
    let tables = facts.database.status.iter().flat_map(|status| &status.blast_radius);
    tables.filter(|table| table.cascade_tables > 0 && table.rows_at_risk > rules.min_rows_at_risk)
}

/// Why a table does not have the guard that it requires.
fn uncovered(rules: &GuardRules, table: &BlastRadius, guards: &[&TableGuard]) -> Option<String> {
    let rows = table.rows_at_risk;
    let covering: Vec<&TableGuard> = guards.iter().copied().filter(|guard| covers(guard, &table.table)).collect();
    if covering.is_empty() {
        let message = format!("{rows} rows at risk, and no TableGuard selects the table: add it to spec.tables of one");
        return Some(message);
    }
    if !table.guarded {
        let message = format!("{rows} rows at risk: {} selects the table, but is not installed on it", names(covering));
        return Some(message);
    }
    let enforcing = covering.iter().any(|guard| guard.spec.mode == GuardMode::Enforce);
    (rules.required_mode == GuardMode::Enforce && !enforcing).then(|| {
        format!("{rows} rows at risk, and only guards in mode Warn: set spec.mode of {} to Enforce", names(covering))
    })
}

/// The status of a database lists 20 tables, among them its worst unguarded ones: the others are known by number.
fn not_listed(rules: &GuardRules, facts: &Facts<'_>, evaluation: &mut Evaluation) {
    let Some(status) = &facts.database.status else { return };
    let unguarded = status.blast_radius.iter().filter(|table| table.cascade_tables > 0 && !table.guarded);
    let listed: Vec<i64> = unguarded.map(|table| table.rows_at_risk).collect();
    let all = status.unguarded_at_risk.unwrap_or_default();
    let more = all - i64::try_from(listed.len()).unwrap_or(i64::MAX);
    let beyond = listed.iter().min().is_none_or(|least| *least > rules.min_rows_at_risk);
    if more > 0 && beyond {
        let message =
            format!("{more} more tables have no guard and can have as many rows at risk: see unguardedAtRisk");
        evaluation.find(Rule::MinRowsAtRisk, "", message);
    }
}

fn evaluate_spec(rules: &GuardRules, guard: &TableGuard, evaluation: &mut Evaluation) {
    let name = guard.name_any();
    if rules.required_mode == GuardMode::Enforce && guard.spec.mode == GuardMode::Warn {
        evaluation.find(Rule::RequiredMode, &name, "mode Warn stops nothing: set spec.mode to Enforce");
    }
    if let Some((field, limit, allowed)) = looser(&rules.max_limits, guard) {
        let message = format!("{field} is {limit}, and the policy allows {allowed}: set it to {allowed} or less");
        evaluation.find(Rule::MaxLimits, &name, message);
    }
    if !rules.allow_allowances && !guard.spec.allowances.is_empty() {
        let roles: Vec<&str> = guard.spec.allowances.iter().map(|it| it.role.as_str()).collect();
        let message = format!(
            "spec.allowances ({}) are not allowed: remove them, and use a GuardExemption",
            crate::kubernetes::text::listed(&roles.iter().map(ToString::to_string).collect::<Vec<_>>())
        );
        evaluation.find(Rule::AllowAllowances, &name, message);
    }
}

fn evaluate_state(rules: &GuardRules, guard: &TableGuard, evaluation: &mut Evaluation) {
    let name = guard.name_any();
    let conditions = guard.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let current = |kind| find(conditions, kind).filter(|condition| is_current(guard, condition));
    match current(ENFORCED) {
        None => evaluation.find(Rule::NotChecked, &name, "the operator has not checked this TableGuard yet"),
        Some(enforced) if enforced.status == "True" => {}
        Some(enforced) if enforced.reason == reasons::guard::WARN => {
            // Whether that is enough is a matter of the spec; it must at least be installed.
            let ready = current(READY).is_some_and(|ready| ready.status == "True");
            if !ready {
                evaluation.find(Rule::RequiredMode, &name, "the guard is not installed: see its condition Ready");
            }
        }
        Some(enforced) => {
            let message = format!("not enforced ({}): {}", enforced.reason, enforced.message);
            evaluation.find(Rule::RequiredMode, &name, message);
        }
    }
    if rules.require_tamper_resistant {
        match current(TAMPER_RESISTANT) {
            Some(resistant) if resistant.status == "True" => {}
            Some(not) => {
                evaluation.find(Rule::RequireTamperResistant, &name, format!("{}: {}", not.reason, not.message));
            }
            None => evaluation.find(Rule::RequireTamperResistant, &name, "not known yet"),
        }
    }
}

/// The first limit that is higher than the policy allows: its field, and both values.
fn looser(max: &MaxLimits, guard: &TableGuard) -> Option<(String, i64, i64)> {
    let limits = &guard.spec.limits;
    let of_all = [
        ("spec.limits.maxRows".to_owned(), Some(limits.max_rows), max.max_rows),
        ("spec.limits.maxCascadeRows".to_owned(), Some(limits.max_cascade_rows), max.max_cascade_rows),
        ("spec.limits.maxTransactionRows".to_owned(), limits.max_transaction_rows, max.max_transaction_rows),
    ];
    let of_tables = guard.spec.tables.iter().enumerate().filter_map(|(index, table)| {
        let LimitOverrides { max_rows, max_cascade_rows, max_transaction_rows, .. } = table.limits.as_ref()?;
        let field = |name| format!("spec.tables[{index}].limits.{name}");
        Some([
            (field("maxRows"), *max_rows, max.max_rows),
            (field("maxCascadeRows"), *max_cascade_rows, max.max_cascade_rows),
            (field("maxTransactionRows"), *max_transaction_rows, max.max_transaction_rows),
        ])
    });
    let mut all = of_all.into_iter().chain(of_tables.flatten());
    all.find_map(|(field, limit, allowed)| limit.filter(|limit| *limit > allowed).map(|limit| (field, limit, allowed)))
}

/// Whether a guard is for a table, given as `schema.table`.
fn covers(guard: &TableGuard, table: &str) -> bool {
    let listed = guard.status.iter().flat_map(|status| &status.tables).any(|it| it.table == table);
    listed || guard.spec.tables.iter().any(|selector| selects(selector, table))
}

/// Names can contain dots: each place where the label can be divided is tried. That the guard is installed on the table is
/// known from the database.
fn selects(selector: &pgrail_crds::TableSelector, table: &str) -> bool {
    let limits = PartialLimits::default();
    let Ok(selector) = TableSelector::new(&selector.schema, &selector.name, selector.exclude.clone(), limits) else {
        return false;
    };
    let mut parts =
        table.match_indices('.').filter_map(|(at, dot)| Some((table.get(..at)?, table.get(at + dot.len()..)?)));
    parts.any(|(schema, name)| selector.matches(schema, name))
}
