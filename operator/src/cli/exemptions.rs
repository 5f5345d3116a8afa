//! `GuardExemption`s of manifests, without a cluster: granted, shown, revoked.

use super::output;
use super::planned::Planned;
use super::{CommandError, NOT_AS_DECLARED, OWNER};
use crate::controllers::guard_exemption::apply::{Outcome, ensure};
use crate::controllers::guard_exemption::report::report;
use crate::controllers::guard_exemption::validate;
use crate::kubernetes::rejection::{Reason, Rejection};
use jiff::Timestamp;
use kube::ResourceExt;
use pgrail_crds::conditions::READY;
use pgrail_crds::{ExemptionPhase, GuardExemption};
use pgrail_guard::{ExemptionError, ExemptionSpec, Observed};
use sha2::{Digest, Sha256};
use std::process::ExitCode;
use tokio_postgres::Client;

/// The engine's specification. Without an apiserver, objects of one name are distinguished by their spec.
pub(super) fn spec(exemption: &GuardExemption) -> Result<ExemptionSpec, CommandError> {
    let mut spec = validate::validate(exemption, OWNER).map_err(|rejection| refused(exemption, &rejection.message))?;
    let text = serde_json::to_vec(&exemption.spec)?;
    spec.object = Sha256::digest(&text).iter().take(16).fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    Ok(spec)
}

fn refused(exemption: &GuardExemption, message: &str) -> CommandError {
    CommandError::Refused(format!("GuardExemption {:?}: {message}", exemption.name_any()))
}

/// What `apply` would do.
pub(super) fn plan(
    exemption: &GuardExemption,
    observed: &Observed,
    sql: bool,
    now: Timestamp,
) -> Result<Planned, CommandError> {
    let spec = spec(exemption)?;
    let planned = Planned::new("GuardExemption", spec.name.as_str());
    if let Some(rejection) = validate::too_late(exemption, now) {
        return Ok(planned.waiting(format!("rejected: {}", rejection.message)));
    }
    match pgrail_guard::plan_exemption(&spec, observed) {
        Ok(plan) => Ok(planned.with(&plan, sql)),
        Err(ExemptionError::Plan(error)) => Err(error.into()),
        Err(error) => Ok(planned.waiting(format!("{error}: planned once its guards are installed"))),
    }
}

/// Grants it, and writes its status. Returns whether it is as declared.
pub(super) async fn apply(
    client: &mut Client,
    exemption: &mut GuardExemption,
    now: Timestamp,
) -> Result<bool, CommandError> {
    let outcome = match validate::too_late(exemption, now) {
        Some(rejection) => Outcome::Rejected(rejection),
        None if exemption.spec.require_backup.is_some() => {
            let message = "spec.requireBackup needs a cluster, where DatabaseBackups are: leave it out";
            Outcome::Waiting(Rejection::new(Reason::BackupRequired, message))
        }
        None => ensure(client, &spec(exemption)?).await?,
    };
    exemption.status = Some(report(exemption, &outcome, now));
    Ok(matches!(outcome, Outcome::Active(_) | Outcome::NotYet(_)))
}

/// Prints them with their status, as a table.
pub(super) fn print(exemptions: &[GuardExemption]) -> Result<(), CommandError> {
    if exemptions.is_empty() {
        return Ok(());
    }
    let header = ["EXEMPTION", "PHASE", "ROLE", "UNTIL", "USED ROWS", "MESSAGE"];
    Ok(output::table(&header, exemptions.iter().map(row).collect())?)
}

fn row(exemption: &GuardExemption) -> Vec<String> {
    let status = exemption.status.clone().unwrap_or_default();
    let ready = status.conditions.iter().find(|condition| condition.type_ == READY);
    vec![
        format!("{}/{}", exemption.namespace().unwrap_or_default(), exemption.name_any()),
        phase(status.phase).to_owned(),
        exemption.spec.role.clone(),
        exemption.spec.not_after.0.to_string(),
        status.used_rows.map(output::thousands).unwrap_or_default(),
        ready.map(|ready| ready.message.clone()).unwrap_or_default(),
    ]
}

fn phase(phase: Option<ExemptionPhase>) -> &'static str {
    match phase {
        Some(ExemptionPhase::Active) => "Active",
        Some(ExemptionPhase::Expired) => "Expired",
        Some(ExemptionPhase::Rejected) => "Rejected",
        Some(ExemptionPhase::Pending) | None => "Pending",
    }
}

/// Revokes one.
pub(super) async fn remove(client: &mut Client, exemption: &GuardExemption) -> Result<ExitCode, CommandError> {
    let name = spec(exemption)?.name;
    let observed = pgrail_guard::observe(client).await?;
    let applied = pgrail_guard::apply(client, &pgrail_guard::plan_revocation(&name, &observed)).await?;
    let problem = applied.steps.iter().find(|(table, outcome)| {
        table.is_none() && !matches!(outcome, pgrail_guard::Outcome::Done | pgrail_guard::Outcome::Skipped)
    });
    if let Some((_, outcome)) = problem {
        let problem = outcome.problem().unwrap_or_default();
        eprintln!("pgrail: {name}: not revoked: {problem}");
        return Ok(NOT_AS_DECLARED.into());
    }
    println!("{name}: gone");
    Ok(ExitCode::SUCCESS)
}
