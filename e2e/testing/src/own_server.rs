//! A server of one test's own, for settings that the shared ones do not have.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{Server, connect, programs};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A running server, stopped and removed when dropped.
pub struct OwnServer {
    /// How to reach it.
    pub server: Server,
    process: Child,
    directory: PathBuf,
}

impl OwnServer {
    /// Starts one with settings such as `max_connections=50`. Its superuser is `postgres`, the password `postgres`.
    pub async fn start(major: u32, settings: &[&str]) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("pgrail-own-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        run(Command::new("chmod").arg("1777").arg(&directory));
        let bin = reachable_programs(&directory, major);
        let (data, password) = (directory.join("data"), directory.join("password"));
        std::fs::write(&password, "postgres").expect("a file");
        run(as_server_user(&bin.join("initdb"))
            .args(["--no-sync", "--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"])
            .arg(format!("--pwfile={}", password.display()))
            .arg("-D")
            .arg(&data));
        let port =
            std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port();
        let mut command = as_server_user(&bin.join("postgres"));
        command.arg("-D").arg(&data).arg(format!("--port={port}"));
        command.arg(format!("--unix_socket_directories={}", directory.display()));
        command.args(["--listen_addresses=127.0.0.1", "--ssl=off", "--fsync=off", "--jit=off"]);
        command.args(settings.iter().map(|setting| format!("--{setting}")));
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the server starts");
        let server = Server { major, uri: format!("postgres://postgres:postgres@127.0.0.1:{port}/postgres") };
        let own = Self { server, process, directory };
        own.until_it_answers().await;
        own
    }

    async fn until_it_answers(&self) {
        for _ in 0..600 {
            if tokio::spawn(ask(self.server.uri.clone())).await.is_ok() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("PostgreSQL {} with settings of its own does not start", self.server.major);
    }
}

async fn ask(uri: String) {
    connect(&uri).await.batch_execute("SELECT 1").await.expect("an answer");
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        // A fast shutdown, so that its children do not outlive it.
        let _ = Command::new("kill").args(["-INT", &self.process.id().to_string()]).status();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn run(command: &mut Command) {
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A program to be run as a user that PostgreSQL accepts: it refuses to run as root.
pub fn as_server_user(program: &Path) -> Command {
    let id = |arguments: &[&str]| {
        let output = Command::new("id").args(arguments).output().expect("the program id");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    if id(&["-u"]) != "0" {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={}", id(&["-u", "nobody"]))).arg(format!("--regid={}", id(&["-g", "nobody"])));
    command.arg("--clear-groups").arg("--").arg(program);
    command
}

/// The programs of a major version where the other user can read them: root's cache is closed to it. Copies them into
/// `directory` where that is needed.
pub fn reachable_programs(directory: &Path, major: u32) -> PathBuf {
    let bin = programs(major);
    let below = format!("usr/lib/postgresql/{major}/bin");
    let text = bin.to_string_lossy().into_owned();
    let Some(root) = text.strip_suffix(&below).filter(|root| *root != "/") else { return bin };
    run(Command::new("cp").arg("-a").arg(root).arg(directory.join("software")));
    directory.join("software").join(below)
}
