//! A PostgreSQL server that lives as long as a drill. It listens on a Unix socket only, and its directory is thrown away.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::{Child, Command};

/// Its superuser.
pub const SUPERUSER: &str = "postgres";

/// Where the server keeps its data and its socket.
#[derive(Debug, Clone)]
pub struct ThrowawayRequest {
    /// An empty directory, or one that an earlier server left.
    pub directory: PathBuf,
    /// The directory of the socket.
    pub socket: PathBuf,
    /// The directory of `initdb` and `postgres`; none means `PATH`.
    pub programs: Option<PathBuf>,
}

/// The server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A program is missing.
    #[error("{program} cannot be started")]
    Start {
        /// Which.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The directory cannot be used.
    #[error("the directory of the server cannot be used")]
    Directory(#[source] io::Error),
    /// initdb failed.
    #[error("initdb failed: {0}")]
    Initdb(String),
    /// It ended.
    #[error("the server ended: {0}")]
    Ended(String),
}

/// A running server. It is killed when this is dropped.
#[derive(Debug)]
pub struct Throwaway {
    child: Child,
}

impl Throwaway {
    /// Creates a cluster and starts the server. It may not answer yet.
    pub async fn start(request: &ThrowawayRequest) -> Result<Self, ServerError> {
        let data = request.directory.join("data");
        // Left by a container that was killed.
        let _ = std::fs::remove_dir_all(&data);
        let user = user_names(&request.directory).map_err(ServerError::Directory)?;
        let mut initdb = program(request, "initdb", &user);
        initdb.args([
            "--no-sync",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--username",
            SUPERUSER,
            "--pgdata",
        ]);
        let output = initdb.arg(&data).output().await;
        let output = output.map_err(|source| ServerError::Start { program: "initdb", source })?;
        if !output.status.success() {
            return Err(ServerError::Initdb(String::from_utf8_lossy(&output.stderr).trim().replace('\n', " | ")));
        }
        let mut server = program(request, "postgres", &user);
        server.arg("-D").arg(&data).arg(format!("--unix_socket_directories={}", request.socket.display()));
        // No rows are worth a disk access, nothing replicates, and nothing of the dump gets into the log.
        server.args([
            "--listen_addresses=",
            "--unix_socket_permissions=0777",
            "--fsync=off",
            "--full_page_writes=off",
            "--synchronous_commit=off",
            "--wal_level=minimal",
            "--max_wal_senders=0",
            "--max_logical_replication_workers=0",
            "--autovacuum=off",
            "--jit=off",
            "--max_connections=20",
            "--shared_buffers=32MB",
            "--lc_messages=C",
            "--log_min_messages=fatal",
            "--log_min_error_statement=panic",
        ]);
        let child = server.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn();
        Ok(Self { child: child.map_err(|source| ServerError::Start { program: "postgres", source })? })
    }

    /// Completes if the server ends by itself.
    pub async fn ended(&mut self) -> ServerError {
        match self.child.wait().await {
            Ok(status) => ServerError::Ended(status.to_string()),
            Err(source) => ServerError::Start { program: "postgres", source },
        }
    }

    /// Ends it at once: its data is of no use.
    pub async fn stop(mut self) {
        // It may have ended by itself.
        let _ = self.child.kill().await;
    }
}

fn program(request: &ThrowawayRequest, name: &str, variables: &[(&'static str, PathBuf)]) -> Command {
    let path = request.programs.as_ref().map_or_else(|| PathBuf::from(name), |directory| directory.join(name));
    let mut command = Command::new(path);
    command.env_clear().env("LC_ALL", "C").env("HOME", "/nonexistent").stdin(Stdio::null()).kill_on_drop(true);
    command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.envs(variables.iter().map(|(name, value)| (*name, value)));
    command
}

/// initdb needs a name for its user. A cluster may run the container as a user that has none: `libnss_wrapper` of the image
/// gives it one.
fn user_names(directory: &Path) -> io::Result<Vec<(&'static str, PathBuf)>> {
    let own = std::fs::metadata("/proc/self")?;
    let is_own = |line: &str| line.split(':').nth(2) == Some(own.uid().to_string().as_str());
    if std::fs::read_to_string("/etc/passwd").unwrap_or_default().lines().any(is_own) {
        return Ok(Vec::new());
    }
    let (passwd, group) = (directory.join("passwd"), directory.join("group"));
    std::fs::write(&passwd, format!("pgrail:x:{}:{}:pgrail:/tmp:/usr/sbin/nologin\n", own.uid(), own.gid()))?;
    std::fs::write(&group, format!("pgrail:x:{}:\n", own.gid()))?;
    let library = PathBuf::from("libnss_wrapper.so");
    Ok(vec![("LD_PRELOAD", library), ("NSS_WRAPPER_PASSWD", passwd), ("NSS_WRAPPER_GROUP", group)])
}
