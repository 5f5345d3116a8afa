//! `kubectl pgrail status`: which databases are compliant. Evaluated here, by the rules of the operator, from what the user may
//! read; what only the operator knows is taken from the status of the policies.

use super::cluster::{ClusterArgs, refused};
use crate::cli::output::{self, Format};
use crate::cli::{CommandError, NOT_AS_DECLARED};
use crate::controllers::guardrail_policy::compliance::{self, DEFAULT_RULES, Policies, Row};
use crate::controllers::guardrail_policy::evaluate::Rule;
use crate::controllers::guardrail_policy::fleet::Index;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use pgrail_crds::{BackupSchedule, DatabaseBackup, GuardrailPolicy, ProtectedDatabase, TableGuard, Violation};
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
    after_help = "Exit status: 0 every database is compliant; 2 one is not, or there is none; 1 it could not be evaluated.\n\n\
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

/// Prints the report.
pub(super) async fn run(args: StatusArgs) -> Result<ExitCode, CommandError> {
    let (client, namespace) = args.cluster.connect().await?;
    let namespace = (!args.all_namespaces).then_some(namespace);
    let scope = namespace.as_deref();
    let databases: Vec<ProtectedDatabase> = list(&client, scope).await?;
    let guards: Vec<TableGuard> = list(&client, scope).await?;
    let schedules: Vec<BackupSchedule> = list(&client, scope).await?;
    let backups: Vec<DatabaseBackup> = list(&client, scope).await?;
    let policies = policies(&client, databases.iter().filter_map(ResourceExt::namespace).collect()).await?;
    let index = Index::new(guards.iter(), schedules.iter(), backups.iter());
    let now = Timestamp::now();
    let mut rows = compliance::rows(&databases, &index, &policies, None, now);
    rows.extend(policies.undeclared(scope));
    compliance::worst_first(&mut rows);
    let values = rows.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
    if !output::objects(&values, args.output)? {
        print(&rows, args.output == Format::Wide, now)?;
    }
    let evaluated: Vec<&Row> = rows.iter().filter(|row| !row.excluded).collect();
    if evaluated.is_empty() {
        eprintln!("no database was evaluated{}", scope.map(|it| format!(" in the namespace {it}")).unwrap_or_default());
    }
    let compliant = !evaluated.is_empty() && evaluated.iter().all(|row| row.compliant);
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

/// The policies, as far as the user may read them.
async fn policies(client: &Client, namespaces: BTreeSet<String>) -> Result<Policies, CommandError> {
    let api: Api<GuardrailPolicy> = Api::all(client.clone());
    let policies = match api.list(&ListParams::default()).await {
        Ok(policies) => policies.items,
        Err(kube::Error::Api(status)) if status.is_forbidden() => {
            eprintln!("no right to list GuardrailPolicies: evaluated by the default rules");
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
    Ok(Policies::new(policies, labels))
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
            (true, true) => DEFAULT_RULES.to_owned(),
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
    fn an_age_has_one_unit() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let of = |seconds: i64| age(at(1_000_000 - seconds), at(1_000_000));
        assert_eq!([of(5), of(600), of(7200), of(200_000), of(-5)], ["5s", "10m", "2h", "2d", "0s"]);
    }
}
