//! A server of one test's own, for settings that the shared ones do not have.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{Server, connect, free_port, programs};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A running server, stopped and removed when dropped.
pub struct OwnServer {
    /// How to reach it.
    pub server: Server,
    start: Command,
    process: Option<Child>,
    directories: [PathBuf; 2],
}

impl OwnServer {
    /// Starts one with settings such as `max_connections=50`. Its superuser is `postgres`, the password `postgres`.
    pub async fn start(major: u32, settings: &[&str]) -> Self {
        Self::start_on(&std::env::temp_dir(), major, settings).await
    }

    /// The same, with its data on the file system of this directory.
    pub async fn start_on(file_system: &Path, major: u32, settings: &[&str]) -> Self {
        let name = format!("pgrail-own-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(&name);
        let data_directory = file_system.join(format!("{name}-data"));
        for directory in [&directory, &data_directory] {
            std::fs::create_dir_all(directory).expect("a directory");
            run(Command::new("chmod").arg("1777").arg(directory));
        }
        let bin = reachable_programs(&directory, major);
        let (data, password) = (data_directory.join("data"), directory.join("password"));
        std::fs::write(&password, "postgres").expect("a file");
        run(as_server_user(&bin.join("initdb"))
            .args(["--no-sync", "--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"])
            .arg(format!("--pwfile={}", password.display()))
            // A full disk is an error of statements; without room for the log, the server ends.
            .arg(format!("--waldir={}", directory.join("wal").display()))
            .arg("-D")
            .arg(&data));
        let port = free_port();
        let mut start = as_server_user(&bin.join("postgres"));
        start.arg("-D").arg(&data).arg(format!("--port={port}"));
        start.arg(format!("--unix_socket_directories={}", directory.display()));
        start.args(["--listen_addresses=127.0.0.1", "--ssl=off", "--fsync=off", "--jit=off"]);
        start.args(settings.iter().map(|setting| format!("--{setting}")));
        start.stdout(Stdio::null()).stderr(Stdio::null());
        let server = Server { major, uri: format!("postgres://postgres:postgres@127.0.0.1:{port}/postgres") };
        let mut own = Self { server, start, process: None, directories: [directory, data_directory] };
        own.begin().await;
        own
    }

    /// Ends it immediately, as a crash does, and waits until it has ended.
    pub fn crash(&mut self) {
        self.end("-QUIT");
    }

    /// Starts it again.
    pub async fn begin(&mut self) {
        self.process = Some(self.start.spawn().expect("the server starts"));
        self.until_it_answers().await;
    }

    fn end(&mut self, signal: &str) {
        let Some(mut process) = self.process.take() else { return };
        let _ = Command::new("kill").args([signal, &process.id().to_string()]).status();
        let _ = process.wait();
    }

    /// It may be recovering from a crash.
    pub async fn until_it_answers(&self) {
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
        self.end("-INT");
        for directory in &self.directories {
            let _ = std::fs::remove_dir_all(directory);
        }
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
