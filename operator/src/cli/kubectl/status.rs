//! `kubectl pgrail status`: which databases are compliant. Judged here, by the rules of the operator, from what the user may
//! read; what only the operator knows is taken from the status of the policies.

use super::cluster::{ClusterArgs, refused};
use crate::cli::output::{self, Format};
use crate::cli::{CommandError, NOT_AS_DECLARED};
use crate::controllers::guardrail_policy::fleet::Index;
use crate::controllers::guardrail_policy::judge::{Facts, Rule, judge};
use crate::controllers::guardrail_policy::select::Selection;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use pgrail_crds::conditions::ENFORCED;
use pgrail_crds::{
    BackupSchedule, DatabaseBackup, GuardrailPolicy, GuardrailPolicySpec, ProtectedDatabase, TableGuard, Violation,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io::Write;
use std::process::ExitCode;

/// Objects of one page of a list.
const PAGE: u32 = 500;

/// Options of `kubectl pgrail status`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit status: 0 every database is compliant; 2 one is not, or there is none; 1 it could not be judged.\n\n\
    Example:\n  kubectl pgrail status -A -o wide"
)]
pub(super) struct StatusArgs {
    /// All namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// How to print it
    #[arg(short = 'o', long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// One database.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    compliant: bool,
    /// Excluded by every policy that selects its namespace.
    excluded: bool,
    guards: usize,
    guards_enforced: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    unguarded_at_risk: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_verified_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_drill_time: Option<Timestamp>,
    /// The policies that it was judged by; empty: the default rules.
    policies: Vec<String>,
    violations: Vec<Violation>,
    #[serde(skip)]
    worst: Option<Rule>,
}

#[derive(Debug, Serialize)]
struct Metadata {
    namespace: String,
    name: String,
}

/// Prints the report.
pub(super) async fn run(args: StatusArgs) -> Result<ExitCode, CommandError> {
    let (client, namespace) = args.cluster.connect().await?;
    let namespace = (!args.all_namespaces).then_some(namespace);
    let scope = namespace.as_deref();
    let databases: Vec<ProtectedDatabase> = list(&client, scope).await?;
    let guards: Vec<TableGuard> = list(&client, scope).await?;
    let schedules: Vec<BackupSchedule> = list(&client, scope).await?;
    let backups: Vec<DatabaseBackup> = list(&client, scope).await?;
    let policies = Policies::read(&client, databases.iter().filter_map(ResourceExt::namespace).collect()).await?;
    let index = Index::new(guards.iter(), schedules.iter(), backups.iter());
    let now = Timestamp::now();
    let mut rows: Vec<Row> = databases.iter().map(|it| row(&index.facts(it, None, now), &policies, now)).collect();
    rows.extend(policies.undeclared(scope));
    // The worst first.
    rows.sort_by(|a, b| {
        let rank = |row: &Row| (row.worst.is_none(), row.worst, std::cmp::Reverse(row.violations.len()));
        rank(a)
            .cmp(&rank(b))
            .then_with(|| (&a.metadata.namespace, &a.metadata.name).cmp(&(&b.metadata.namespace, &b.metadata.name)))
    });
    let values = rows.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
    if !output::objects(&values, args.output)? {
        print(&rows, args.output == Format::Wide, now)?;
    }
    let judged: Vec<&Row> = rows.iter().filter(|row| !row.excluded).collect();
    if judged.is_empty() {
        eprintln!("no database was judged{}", scope.map(|it| format!(" in the namespace {it}")).unwrap_or_default());
    }
    let compliant = !judged.is_empty() && judged.iter().all(|row| row.compliant);
    Ok(if compliant { ExitCode::SUCCESS } else { NOT_AS_DECLARED.into() })
}

async fn list<K>(client: &Client, namespace: Option<&str>) -> Result<Vec<K>, CommandError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let mut all = Vec::new();
    let mut parameters = ListParams::default().limit(PAGE);
    loop {
        let page =
            api.list(&parameters).await.map_err(|error| refused(&format!("cannot list {}", K::plural(&())), error))?;
        let next = page.metadata.continue_.clone().filter(|next| !next.is_empty());
        all.extend(page.items);
        match next {
            Some(next) => parameters = ListParams::default().limit(PAGE).continue_token(&next),
            None => return Ok(all),
        }
    }
}

/// The policies, and the labels of the namespaces.
struct Policies {
    policies: Vec<(GuardrailPolicy, Selection)>,
    /// Absent: not known, so that every policy could be for it.
    labels: BTreeMap<String, BTreeMap<String, String>>,
}

impl Policies {
    async fn read(client: &Client, namespaces: BTreeSet<String>) -> Result<Self, CommandError> {
        let api: Api<GuardrailPolicy> = Api::all(client.clone());
        let policies = match api.list(&ListParams::default()).await {
            Ok(policies) => policies.items,
            Err(kube::Error::Api(status)) if status.is_forbidden() => {
                eprintln!("no right to list GuardrailPolicies: judged by the default rules");
                Vec::new()
            }
            Err(error) => return Err(refused("cannot list guardrailpolicies", error)),
        };
        let mut labels = BTreeMap::new();
        if !policies.is_empty() {
            let api: Api<Namespace> = Api::all(client.clone());
            for namespace in namespaces {
                match api.get_opt(&namespace).await {
                    Ok(found) => {
                        labels.insert(namespace, found.map(|it| it.labels().clone()).unwrap_or_default());
                    }
                    Err(kube::Error::Api(status)) if status.is_forbidden() => {}
                    Err(error) => return Err(refused(&format!("namespace {namespace}"), error)),
                }
            }
        }
        let policies = policies.into_iter().map(|policy| {
            let selection = Selection::of(&policy.spec);
            (policy, selection)
        });
        Ok(Self { policies: policies.collect(), labels })
    }

    fn of(&self, namespace: &str) -> impl Iterator<Item = &(GuardrailPolicy, Selection)> {
        let labels = self.labels.get(namespace);
        self.policies.iter().filter(move |(_, selection)| labels.is_none_or(|labels| selection.selects(labels)))
    }

    /// Clusters of other operators without a `ProtectedDatabase`, as the operator found them.
    fn undeclared(&self, scope: Option<&str>) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for (policy, _) in &self.policies {
            for violation in policy.status.iter().flat_map(|status| &status.violations) {
                let Some((namespace, name)) = violation.database.split_once('/') else { continue };
                if violation.rule != Rule::Undeclared.as_str() || scope.is_some_and(|scope| scope != namespace) {
                    continue;
                }
                let known = rows.iter_mut().find(|row| {
                    row.violations.iter().any(|it| it.object == violation.object && it.database == violation.database)
                });
                match known {
                    Some(row) => row.policies.push(policy.name_any()),
                    None => rows.push(undeclared(namespace, name, policy.name_any(), violation.clone())),
                }
            }
        }
        rows
    }
}

fn undeclared(namespace: &str, name: &str, policy: String, violation: Violation) -> Row {
    Row {
        api_version: "pgrail.dev/v1alpha1",
        kind: "ProtectedDatabase",
        metadata: Metadata { namespace: namespace.to_owned(), name: name.to_owned() },
        compliant: false,
        excluded: false,
        guards: 0,
        guards_enforced: 0,
        unguarded_at_risk: None,
        last_verified_time: None,
        last_drill_time: None,
        policies: vec![policy],
        violations: vec![violation],
        worst: Some(Rule::Undeclared),
    }
}

fn row(facts: &Facts<'_>, policies: &Policies, now: Timestamp) -> Row {
    let database = facts.database;
    let (namespace, name) = (database.namespace().unwrap_or_default(), database.name_any());
    let label = format!("{namespace}/{name}");
    let selecting: Vec<_> = policies.of(&namespace).collect();
    let (excluding, judging): (Vec<_>, Vec<_>) =
        selecting.iter().copied().partition(|(_, selection)| selection.excludes(database.labels()));
    let default = GuardrailPolicy::new("", GuardrailPolicySpec::default());
    let excluded = judging.is_empty() && !excluding.is_empty();
    let by: Vec<&GuardrailPolicy> = match (excluded, judging.is_empty()) {
        (true, _) => Vec::new(),
        (false, true) => vec![&default],
        (false, false) => judging.iter().map(|(policy, _)| policy).collect(),
    };
    let mut findings: Vec<_> = by.iter().flat_map(|policy| judge(&policy.spec, facts, now).findings).collect();
    findings.sort();
    findings.dedup();
    let mut violations: Vec<Violation> = findings.iter().map(|finding| finding.violation(&label)).collect();
    let mut worst = findings.first().map(|finding| finding.rule);
    // What only the operator knows.
    for rule in [Rule::NotChecked, Rule::GuardTemplate, Rule::ScheduleTemplate] {
        let reported = by.iter().filter_map(|policy| policy.status.as_ref()).flat_map(|status| &status.violations);
        for violation in reported.filter(|it| it.database == label && it.rule == rule.as_str()) {
            if !violations.iter().any(|it| it.rule == violation.rule && it.object == violation.object) {
                violations.push(violation.clone());
                worst = Some(worst.map_or(rule, |worst| worst.min(rule)));
            }
        }
    }
    let enforced = |guard: &&&TableGuard| {
        let conditions = guard.status.iter().flat_map(|status| &status.conditions);
        conditions.into_iter().any(|it| {
            it.type_ == ENFORCED && it.status == "True" && it.observed_generation == guard.metadata.generation
        })
    };
    let statuses = || facts.schedules.iter().filter_map(|schedule| schedule.status.as_ref());
    Row {
        api_version: "pgrail.dev/v1alpha1",
        kind: "ProtectedDatabase",
        metadata: Metadata { namespace, name },
        compliant: violations.is_empty() && !excluded,
        excluded,
        guards: facts.guards.len(),
        guards_enforced: facts.guards.iter().filter(enforced).count(),
        unguarded_at_risk: database.status.as_ref().and_then(|status| status.unguarded_at_risk),
        last_verified_time: statuses().filter_map(|it| it.last_verified_time.as_ref()).map(|it| it.0).max(),
        last_drill_time: statuses().filter_map(|it| it.last_drill_time.as_ref()).map(|it| it.0).max(),
        policies: judging.iter().map(|(policy, _)| policy.name_any()).collect(),
        violations,
        worst,
    }
}

fn print(rows: &[Row], wide: bool, now: Timestamp) -> Result<(), CommandError> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut header = vec!["DATABASE", "COMPLIANT", "GUARDS", "UNGUARDED", "VERIFIED BACKUP", "DRILL", "VIOLATIONS"];
    header.push(if wide { "POLICIES" } else { "WORST" });
    let lines = rows.iter().map(|row| {
        let compliant = match (row.compliant, row.excluded) {
            (_, true) => "excluded",
            (true, false) => "yes",
            (false, false) => "no",
        };
        let mut line = vec![
            format!("{}/{}", row.metadata.namespace, row.metadata.name),
            compliant.to_owned(),
            format!("{}/{}", row.guards_enforced, row.guards),
            row.unguarded_at_risk.map_or_else(|| "?".to_owned(), |count| count.to_string()),
            row.last_verified_time.map_or_else(|| "never".to_owned(), |time| age(time, now)),
            row.last_drill_time.map_or_else(|| "never".to_owned(), |time| age(time, now)),
            row.violations.len().to_string(),
        ];
        line.push(match (wide, row.policies.is_empty()) {
            (true, false) => row.policies.join(","),
            (true, true) => "(default rules)".to_owned(),
            (false, _) => row.worst.map_or("", Rule::as_str).to_owned(),
        });
        line
    });
    output::table(&header, lines.collect())?;
    if wide {
        let mut out = std::io::stdout().lock();
        for violation in rows.iter().flat_map(|row| &row.violations) {
            let Violation { database, rule, object, message } = violation;
            let object = if object.is_empty() { String::new() } else { format!(" {object}") };
            writeln!(out, "\n{database}: {rule}{object}\n  {message}")?;
        }
    }
    Ok(())
}

/// How long ago, as kubectl writes it.
fn age(time: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(time).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_rules_are_those_of_an_empty_policy() {
        let empty: GuardrailPolicySpec = serde_json::from_str("{}").unwrap();
        assert_eq!(GuardrailPolicySpec::default(), empty);
    }

    #[test]
    fn an_age_has_one_unit() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let of = |seconds: i64| age(at(1_000_000 - seconds), at(1_000_000));
        assert_eq!([of(5), of(600), of(7200), of(200_000), of(-5)], ["5s", "10m", "2h", "2d", "0s"]);
    }
}
