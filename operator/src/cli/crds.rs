//! `pgrail crds`

use std::io::Write;
use std::process::ExitCode;

/// Options of `pgrail crds`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgrail crds | kubectl apply --server-side -f -")]
pub(super) struct CrdsArgs {}

/// Prints the CRDs as one YAML stream.
pub(super) fn run(_: &CrdsArgs) -> ExitCode {
    let mut out = std::io::stdout().lock();
    for crd in pgrail_crds::custom_resource_definitions() {
        let printed = match pgrail_crds::to_yaml(&crd) {
            Ok(text) => write!(out, "---\n{text}"),
            Err(error) => Err(std::io::Error::other(error)),
        };
        if let Err(error) = printed {
            eprintln!("pgrail: could not print the CRDs: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
