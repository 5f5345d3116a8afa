//! `pgrail agent postgres`: the temporary PostgreSQL of drills, in a container without Secrets, since it runs code of the dump.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use pgrail_dump::{ServerError, Throwaway, ThrowawayRequest};

use super::Places;
use super::config::START_FILE;
use crate::signals::stop_requested;

/// How often the file that starts the server is looked for.
const PAUSE: Duration = Duration::from_millis(200);

/// Runs until the pod ends.
pub(super) async fn run(places: &Places) -> ExitCode {
    let start = places.drill.join(START_FILE);
    tokio::select! {
        error = serve(places, &start) => {
            tracing::error!("{}", pgrail_dump::error_chain(&error));
            ExitCode::FAILURE
        }
        () = stop_requested() => ExitCode::SUCCESS,
    }
}

async fn serve(places: &Places, start: &Path) -> ServerError {
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
    match Throwaway::start(&request).await {
        Ok(mut server) => server.ended().await,
        Err(error) => error,
    }
}
