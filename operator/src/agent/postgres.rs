//! `pgrail agent postgres`: the temporary PostgreSQL of drills, in a container without Secrets and without a network, since it runs
//! code of the dump.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use pgrail_dump::{Throwaway, ThrowawayRequest, forbid_network};

use super::Places;
use super::config::{PROBLEM_FILE, START_FILE};
use crate::signals::stop_requested;

/// How often the file that starts the server is looked for.
const PAUSE: Duration = Duration::from_millis(200);

/// Runs until the pod ends.
pub(super) async fn run(places: &Places) -> ExitCode {
    let start = places.drill.join(START_FILE);
    let problem = tokio::select! {
        error = serve(places, &start) => error,
        () = stop_requested() => return ExitCode::SUCCESS,
    };
    tracing::error!("{problem}");
    // The container that waits for the server reports it.
    if let Err(error) = std::fs::write(places.drill.join(PROBLEM_FILE), &problem) {
        tracing::warn!(%error, "cannot report the problem");
    }
    ExitCode::FAILURE
}

async fn serve(places: &Places, start: &Path) -> String {
    // Code of the dump runs in the server, and in what it starts.
    if let Err(error) = forbid_network() {
        return error.to_string();
    }
    // Until a dump is to be drilled, a server would only use memory.
    while !start.exists() {
        tokio::time::sleep(PAUSE).await;
    }
    let request = ThrowawayRequest {
        directory: places.scratch.clone(),
        socket: places.drill.clone(),
        programs: places.client_directory.clone(),
    };
    tracing::info!("starting the temporary server");
    let error = match Throwaway::start(&request).await {
        Ok(mut server) => server.ended().await,
        Err(error) => error,
    };
    pgrail_dump::error_chain(&error)
}
