//! PostgreSQL's own programs: where they are, which version, and running them.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    io,
    os::{fd::AsFd, unix::process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::watch,
    task::JoinHandle,
};

use crate::{Reason, connection::Environment, secrets::Redactor};

/// How many of a program's last lines are kept for the message.
const LAST_LINES: usize = 20;

/// How long a kept line may be, in bytes.
const LINE_BYTES: usize = 400;

/// How much a pipe to or from a program holds, in bytes, instead of 64 KiB: neither side waits for the other at each small piece.
const PIPE_BYTES: usize = 1024 * 1024;

/// Where `pg_dump` and `pg_restore` are, and their version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTools {
    directory: Option<PathBuf>,
    version: String,
    major: u32,
}

/// A client program that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is not there, or does not start.
    #[error("{program} cannot be started")]
    Start {
        /// The program, with its directory if one was given.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// Its `--version` cannot be parsed.
    #[error("{program} --version printed {output:?}")]
    Version {
        /// The program.
        program: String,
        /// Its output.
        output: String,
    },
    /// Its pipes broke.
    #[error("the pipe to {program} broke")]
    Pipe {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It ended with an error.
    #[error("{program} failed ({}): {last_lines}", display(*status))]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// Its last lines on standard error.
        last_lines: String,
    },
    /// It ended well, but without reading its input to the end.
    #[error("{program} stopped reading before the end of the archive")]
    Unread {
        /// The program.
        program: String,
    },
}

impl ToolError {
    /// `otherwise` when the program's messages match no reason.
    pub fn reason(&self, otherwise: Reason) -> Reason {
        match self {
            Self::Start { .. } | Self::Version { .. } => Reason::ClientMissing,
            Self::Pipe { .. } => Reason::Internal,
            Self::Unread { .. } => Reason::ArchiveInvalid,
            Self::Failed { last_lines, .. } => reason_in(last_lines).unwrap_or(otherwise),
        }
    }

    /// Whether a signal ended it, which shows nothing of its input.
    pub(crate) fn was_killed(&self) -> bool {
        matches!(self, Self::Failed { status, .. } if status.signal().is_some())
    }

    /// The same of a pg_restore into a database: its messages name roles and tables of the archive.
    pub(crate) fn reason_of_restore(&self) -> Reason {
        const RIGHTS: [&str; 4] =
            ["permission denied", "must be owner", "must be superuser", "must be able to SET ROLE"];
        match self {
            Self::Failed { last_lines, .. } if RIGHTS.iter().any(|text| last_lines.contains(text)) => {
                Reason::PermissionDenied
            }
            error => match error.reason(Reason::RestoreFailed) {
                reason @ (Reason::ConnectionFailed | Reason::ClientMissing | Reason::Internal) => reason,
                _ => Reason::RestoreFailed,
            },
        }
    }
}

/// pg_dump reports no SQLSTATE, so its messages must be matched. They are English: programs run with `LC_ALL=C`;
/// a server's message in another language has no reason of its own.
fn reason_in(text: &str) -> Option<Reason> {
    const MESSAGES: &[(&str, Reason)] = &[
        ("server version mismatch", Reason::VersionMismatch),
        ("does not support compression", Reason::CompressionUnsupported),
        ("not built with", Reason::CompressionUnsupported),
        ("affected by row-level security", Reason::RowSecurity),
        ("permission denied", Reason::PermissionDenied),
        ("must be owner", Reason::PermissionDenied),
        ("due to lock timeout", Reason::LockTimeout),
        // How pg_dump limits its wait for a lock; for its other statements it lifts every timeout.
        ("due to statement timeout", Reason::LockTimeout),
        // Named with a role or a database, like other refusals.
        ("too many connections", Reason::ConnectionFailed),
        ("too many clients", Reason::ConnectionFailed),
        ("connection slots", Reason::ConnectionFailed),
        ("password authentication failed", Reason::AuthenticationFailed),
        ("no pg_hba.conf entry", Reason::AuthenticationFailed),
        ("role \"", Reason::AuthenticationFailed),
        ("server closed the connection", Reason::ConnectionFailed),
        ("terminating connection", Reason::ConnectionFailed),
        ("connection to server", Reason::ConnectionFailed),
        ("could not translate host name", Reason::ConnectionFailed),
        ("lost synchronization with server", Reason::ConnectionFailed),
        ("SSL SYSCALL error", Reason::ConnectionFailed),
        ("SSL error: unexpected eof", Reason::ConnectionFailed),
        ("SSL connection has been closed", Reason::ConnectionFailed),
        ("could not receive data from server", Reason::ConnectionFailed),
    ];
    MESSAGES.iter().find(|(message, _)| text.contains(message)).map(|(_, reason)| *reason)
}

impl ClientTools {
    /// Finds the programs in a directory, or in `PATH` without one, and reads their version.
    pub async fn find(directory: Option<&Path>) -> Result<Self, ToolError> {
        let mut tools = Self { directory: directory.map(Path::to_owned), version: String::new(), major: 0 };
        for name in ["pg_restore", "pg_dump"] {
            let program = tools.program(name);
            let shown = program.display().to_string();
            let mut command = Command::new(&program);
            command.arg("--version");
            let output = plain(&mut command, None)
                .stdin(Stdio::null())
                .output()
                .await
                .map_err(|source| ToolError::Start { program: shown.clone(), source })?;
            let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            // `pg_dump (PostgreSQL) 18.6 (Debian 18.6-3)`, `… 19beta1`
            let version =
                text.split(") ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default().to_owned();
            let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
            tools.major = digits.parse().map_err(|_| ToolError::Version { program: shown, output: text.clone() })?;
            tools.version = version;
        }
        Ok(tools)
    }

    /// The version, as `18.6`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The major version.
    pub fn major(&self) -> u32 {
        self.major
    }

    fn program(&self, name: &str) -> PathBuf {
        self.directory.as_ref().map_or_else(|| PathBuf::from(name), |directory| directory.join(name))
    }

    /// Starts a program with its output as a pipe, or to nowhere.
    pub(crate) fn start<S: AsRef<OsStr>>(
        &self,
        name: &'static str,
        arguments: impl IntoIterator<Item = S>,
        environment: Option<&Environment>,
        input: bool,
        output: bool,
    ) -> Result<Running, ToolError> {
        let program = self.program(name);
        let mut command = Command::new(&program);
        command.args(arguments);
        let piped = |wanted| if wanted { Stdio::piped() } else { Stdio::null() };
        let mut child = plain(&mut command, environment)
            .stdin(piped(input))
            .stdout(piped(output))
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| ToolError::Start { program: program.display().to_string(), source })?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let pipes = [input.as_ref().map(AsFd::as_fd), output.as_ref().map(AsFd::as_fd)];
        for pipe in pipes.into_iter().flatten() {
            // A pipe that stays small is slower, and nothing else.
            let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES);
        }
        let (count, problems) = watch::channel(0);
        let errors = child.stderr.take().map(|stderr| tokio::spawn(last_lines(stderr, count)));
        let secrets = environment.map(|environment| environment.secrets.clone()).unwrap_or_default();
        Ok(Running { program: name, child, errors, problems: Problems(problems), secrets, input, output })
    }
}

/// An environment of its own: nothing of the agent's (its store's credentials, stray `PG…` variables) reaches the program.
fn plain<'a>(command: &'a mut Command, environment: Option<&Environment>) -> &'a mut Command {
    let variables = environment.iter().flat_map(|environment| &environment.variables);
    command.env_clear().env("LC_ALL", "C").env("HOME", "/nonexistent").envs(variables.map(|(key, value)| (key, value)));
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// A program that was started.
pub(crate) struct Running {
    program: &'static str,
    child: Child,
    errors: Option<JoinHandle<Vec<String>>>,
    problems: Problems,
    secrets: Redactor,
    pub(crate) input: Option<ChildStdin>,
    pub(crate) output: Option<ChildStdout>,
}

impl Running {
    pub(crate) fn pipe_error(&self, source: io::Error) -> ToolError {
        ToolError::Pipe { program: self.program.to_owned(), source }
    }

    pub(crate) fn unread(&self) -> ToolError {
        ToolError::Unread { program: self.program.to_owned() }
    }

    /// Waits for its end. Anything but exit status 0 is an error with its last lines; after a success they are warnings. Its
    /// output must be read elsewhere.
    pub(crate) async fn wait(&mut self) -> Result<Vec<String>, ToolError> {
        self.ended().await?.succeeded()
    }

    /// Waits for its end, whatever it is.
    pub(crate) async fn ended(&mut self) -> Result<Ended, ToolError> {
        drop(self.input.take());
        let status = self.child.wait().await.map_err(|source| self.pipe_error(source))?;
        let lines = match self.errors.take() {
            Some(errors) => errors.await.unwrap_or_default(),
            None => Vec::new(),
        };
        let lines = lines.iter().map(|line| self.secrets.clean(line)).collect();
        Ok(Ended { program: self.program, status, lines })
    }

    /// The errors that it reports while it runs.
    pub(crate) fn problems(&self) -> Problems {
        self.problems.clone()
    }

    /// Ends it at once.
    pub(crate) async fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill().await;
    }
}

/// A program that has ended.
pub(crate) struct Ended {
    program: &'static str,
    status: ExitStatus,
    /// Its last lines on standard error.
    pub(crate) lines: Vec<String>,
}

impl Ended {
    /// Its exit status, unless it was killed.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Its lines, which are warnings, or the error.
    pub(crate) fn succeeded(self) -> Result<Vec<String>, ToolError> {
        if self.status.success() {
            for line in &self.lines {
                tracing::warn!(program = self.program, "{line}");
            }
            return Ok(self.lines);
        }
        let last_lines = self.lines.join(" | ");
        Err(ToolError::Failed { program: self.program.to_owned(), status: self.status, last_lines })
    }
}

/// How many errors pg_restore has reported.
#[derive(Clone)]
pub(crate) struct Problems(watch::Receiver<usize>);

impl Problems {
    /// Completes when there are more than so many; never, if the program ends without them.
    pub(crate) async fn more_than(mut self, count: usize) {
        if self.0.wait_for(|found| *found > count).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn display(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// Reads to the end and keeps the last lines, each cut to [`LINE_BYTES`]. Counts the errors of pg_restore.
async fn last_lines(mut stderr: impl AsyncRead + Unpin, errors: watch::Sender<usize>) -> Vec<String> {
    let mut lines: VecDeque<Vec<u8>> = VecDeque::from([Vec::new()]);
    let mut piece = [0; 4096];
    while let Ok(size @ 1..) = stderr.read(&mut piece).await {
        for &byte in &piece[..size] {
            if byte == b'\n' {
                if lines.back().is_some_and(|line| line.starts_with(b"pg_restore: error: ")) {
                    errors.send_modify(|count| *count += 1);
                }
                if lines.len() > LAST_LINES {
                    lines.pop_front();
                }
                lines.push_back(Vec::new());
            } else if let Some(line) = lines.back_mut().filter(|line| line.len() < LINE_BYTES) {
                line.push(byte);
            }
        }
    }
    lines.iter().filter(|line| !line.is_empty()).map(|line| String::from_utf8_lossy(line).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_connection_is_distinguished_from_a_failed_dump() {
        for text in [
            "pg_dump: error: Dumping the contents of table \"t\" failed: PQgetCopyData() failed. | pg_dump: detail: Error message from server: SSL error: unexpected eof while reading",
            "pg_dump: error: SSL SYSCALL error: EOF detected",
            "pg_dump: error: server closed the connection unexpectedly",
            "FATAL:  terminating connection due to administrator command | SSL connection has been closed unexpectedly",
        ] {
            assert_eq!(reason_in(text), Some(Reason::ConnectionFailed), "{text}");
        }
        assert_eq!(reason_in("pg_dump: error: query failed: ERROR:  could not open relation with OID 1"), None);
    }

    #[tokio::test]
    async fn last_lines_are_kept_and_cut() {
        let mut lines: Vec<_> = (0..100).map(|number| format!("line {number}")).collect();
        lines.push("x".repeat(1000));
        let text = lines.join("\n");
        let kept = last_lines(text.as_bytes(), watch::channel(0).0).await.join(" | ");
        assert!(kept.contains("line 99 | xxx") && !kept.contains("line 79"), "{kept}");
        assert!(kept.len() < 1000);
    }

    #[tokio::test]
    async fn a_missing_program_is_reported() {
        let error = ClientTools::find(Some(Path::new("/does/not/exist"))).await.unwrap_err();
        assert_eq!(error.reason(Reason::DumpFailed), Reason::ClientMissing);
        assert!(error.to_string().contains("/does/not/exist/pg_"));
    }
}
