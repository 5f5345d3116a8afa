//! `pgrail crds`

use super::CommandError;
use std::io::Write;
use std::process::ExitCode;

/// Options of `pgrail crds`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgrail crds | kubectl apply --server-side -f -")]
pub(super) struct CrdsArgs {}

/// Prints the CRDs as one YAML stream.
pub(super) fn run(_: &CrdsArgs) -> Result<ExitCode, CommandError> {
    let mut out = std::io::stdout().lock();
    for crd in pgrail_crds::custom_resource_definitions() {
        write!(out, "---\n{}", pgrail_crds::to_yaml(&crd)?)?;
    }
    Ok(ExitCode::SUCCESS)
}
