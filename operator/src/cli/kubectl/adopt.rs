//! `kubectl pgrail adopt`: a user vouches for dumps that were found in the store, which can be restored then.

use super::cluster::{ClusterArgs, refused};
use crate::cli::CommandError;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use pgrail_crds::annotations::ADOPT;
use pgrail_crds::{BackupPhase, DatabaseBackup};
use serde_json::json;
use std::process::ExitCode;

/// Options of `kubectl pgrail adopt`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  kubectl pgrail adopt nightly-found-20261126t021500z-78f69544ce692\n\nA restore executes what the dump contains, and everybody who can write to the store can have written it. The dumps of a lost\ncluster are found after `kubectl annotate bsched NAME pgrail.dev/adopt-cluster=ID`."
)]
pub(super) struct AdoptArgs {
    /// The DatabaseBackups, whose phase is Discovered
    #[arg(value_name = "BACKUP", required = true)]
    backups: Vec<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// All or none of them are annotated, unless the apiserver fails in between.
pub(super) async fn run(args: AdoptArgs) -> Result<ExitCode, CommandError> {
    let (client, namespace) = args.cluster.connect().await?;
    let api: Api<DatabaseBackup> = Api::namespaced(client, &namespace);
    let mut found = Vec::new();
    for name in &args.backups {
        let what = format!("DatabaseBackup {namespace}/{name}");
        let backup = api.get(name).await.map_err(|error| refused(&what, error))?;
        let status = backup.status.clone().unwrap_or_default();
        if status.phase != Some(BackupPhase::Discovered) {
            let phase = status.phase.map_or_else(|| "none yet".to_owned(), |phase| format!("{phase:?}"));
            let message = format!("{what} was not found in the store: its phase is {phase}, and not Discovered");
            return Err(CommandError::Refused(message));
        }
        found.push((what, backup));
    }
    let patch = Patch::Merge(json!({"metadata": {"annotations": {ADOPT: "true"}}}));
    for (what, backup) in found {
        let name = backup.name_any();
        api.patch(&name, &PatchParams::default(), &patch).await.map_err(|error| refused(&what, error))?;
        println!("{name} adopted: {}", backup.status.unwrap_or_default().location.unwrap_or_default());
    }
    Ok(ExitCode::SUCCESS)
}
