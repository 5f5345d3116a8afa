//! An archive restored by pg_restore, straight from the store.

use std::{ffi::OsString, io::Write as _};

use futures::TryStreamExt;
use pgrail_postgres::{ConnectionSettings, Reached};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tokio::{io::AsyncWriteExt, process::ChildStdin};

use crate::{
    ClientTools, Entry, Extract, ExtractError, TableRows, ToolError,
    archive::{Merged, entries, merge},
    clients::{Ended, Running},
    connection::Environment,
    extract::{HeadBytes, archive_part},
    text::hex,
};

/// The first version with `transaction_timeout`: a pg_restore of this version or later sets it, also on older servers.
const TRANSACTION_TIMEOUT: u32 = 17;

/// Into which database an archive is restored, and how.
#[derive(Debug, Clone)]
pub struct Load {
    /// The database.
    pub connection: ConnectionSettings,
    /// Address and TLS of a session that exists: pg_restore uses the same.
    pub reached: Reached,
    /// The server's major version.
    pub server_major: u32,
    /// The entries that are restored, see [`crate::restorable`].
    pub entries: Vec<u32>,
    /// The role that SQL is run as, if it is not the login.
    pub role: Option<String>,
    /// Whether objects get the owners of the dump. Otherwise `role` owns them, or the login.
    pub owners: bool,
    /// Whether tables and indexes are created in the tablespaces of the dump.
    pub tablespaces: bool,
    /// Whose rows are restored.
    pub rows: LoadRows,
}

/// Whose rows are restored.
#[derive(Debug, Clone)]
pub enum LoadRows {
    /// Of all tables: the whole archive is read.
    All,
    /// Of these tables: only their blocks are read.
    Of(Vec<TableRows>),
    /// None: only the head of the archive is read.
    None,
}

impl Load {
    fn arguments(&self, list: &NamedTempFile, tolerance: Tolerance) -> Vec<OsString> {
        let mut use_list = OsString::from("--use-list=");
        use_list.push(list.path());
        let mut arguments: Vec<OsString> =
            vec!["--format=custom".into(), connect_to(&self.connection).into(), "--no-password".into(), use_list];
        let flags = [
            (!self.owners, "--no-owner"),
            (!self.tablespaces, "--no-tablespaces"),
            (matches!(self.rows, LoadRows::None), "--section=pre-data"),
            (matches!(self.rows, LoadRows::None), "--section=post-data"),
        ];
        arguments.extend(flags.into_iter().filter(|(wanted, _)| *wanted).map(|(_, flag)| flag.into()));
        arguments.extend(tolerance.argument().map(OsString::from));
        arguments.extend(self.role.iter().map(|role| format!("--role={role}").into()));
        arguments
    }
}

/// The argument that names a database. A plain name could be taken for a connection string.
pub(crate) fn connect_to(connection: &ConnectionSettings) -> String {
    format!("--dbname=dbname='{}'", connection.database.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Whether pg_restore sets something that the server lacks. That is the only error that is tolerated: it is the first statement of
/// all, so nothing of the archive can look like it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tolerance(bool);

impl Tolerance {
    pub(crate) fn of(tools: &ClientTools, server_major: u32) -> Self {
        Self(tools.major() >= TRANSACTION_TIMEOUT && server_major < TRANSACTION_TIMEOUT)
    }

    pub(crate) fn argument(self) -> Option<&'static str> {
        (!self.0).then_some("--exit-on-error")
    }

    /// How many errors are not the end.
    pub(crate) fn errors(self) -> usize {
        usize::from(self.0)
    }

    /// Waits for the end of pg_restore.
    pub(crate) async fn end(self, restore: &mut Running) -> Result<(), ToolError> {
        let mut ended = restore.ended().await?;
        ended.lines = without_passwords(ended.lines);
        if self.0 && ended.code() == Some(1) && only_setting_failed(&ended) {
            return Ok(());
        }
        ended.succeeded().map(|_| ())
    }
}

/// The statement that failed may be one of the archive with a password, such as CREATE USER MAPPING.
fn without_passwords(lines: Vec<String>) -> Vec<String> {
    let mut of_statement = false;
    let shown = |line: String| {
        of_statement = line.starts_with("Command was:") || (of_statement && !line.starts_with("pg_restore:"));
        let secret = of_statement && line.to_ascii_lowercase().contains("password");
        if secret { "Command was: (not shown, since it has a password)".to_owned() } else { line }
    };
    lines.into_iter().map(shown).collect()
}

fn only_setting_failed(ended: &Ended) -> bool {
    let lines = &ended.lines;
    let is_error = |line: &String| line.starts_with("pg_restore: error: ");
    let first = lines.iter().position(is_error);
    let command = first.and_then(|first| lines.get(first + 1)).map(String::as_str);
    lines.iter().filter(|line| is_error(line)).count() == 1
        && command == Some("Command was: SET transaction_timeout = 0;")
        && lines.last().is_some_and(|line| line.ends_with("errors ignored on restore: 1"))
}

impl Extract {
    /// Its table of contents; of several archives, all of them as one.
    pub async fn entries(&self) -> Result<Vec<Entry>, ExtractError> {
        Ok(self.contents().await?.entries.clone())
    }

    /// Read once.
    async fn contents(&self) -> Result<&Merged, ExtractError> {
        self.contents.get_or_try_init(|| self.read_contents()).await
    }

    async fn read_contents(&self) -> Result<Merged, ExtractError> {
        let invalid = |error: crate::archive::FramingError| ExtractError::Index(error.to_string());
        let mut archives = Vec::new();
        for archive in 0..self.manifest().archive_count() {
            archives.push(entries(&self.head(archive).await?.stored).map_err(invalid)?);
        }
        merge(archives).map_err(invalid)
    }

    /// Restores the archives, one after the other. All SQL in an archive is in its head, whose SHA-256 is known; that of the rows
    /// is known only at the end: after an error, the database is worth nothing.
    ///
    /// `progress` is called with the number of bytes that were passed to pg_restore.
    pub async fn load(
        &self,
        tools: &ClientTools,
        load: &Load,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), ExtractError> {
        let contents = self.contents().await?;
        let last = self.manifest().archive_count() - 1;
        let mut passed = 0;
        for archive in 0..=last {
            let own = load.entries.iter().map(|number| contents.place(*number)).filter(|(of, _)| *of == archive);
            let own: Vec<u32> = own.map(|(_, number)| number).collect();
            // Between the first and the last archive are rows.
            let without_rows = matches!(load.rows, LoadRows::None) && archive != 0 && archive != last;
            if own.is_empty() || without_rows {
                continue;
            }
            self.load_archive(archive, &own, tools, load, &|bytes| progress(passed + bytes)).await?;
            passed += self.manifest().archive_at(archive).map_or(0, |whole| whole.length);
        }
        Ok(())
    }

    async fn load_archive(
        &self,
        archive: u32,
        entries: &[u32],
        tools: &ClientTools,
        load: &Load,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), ExtractError> {
        let mut list = NamedTempFile::new().map_err(ExtractError::File)?;
        for entry in entries {
            writeln!(list, "{entry};").map_err(ExtractError::File)?;
        }
        list.flush().map_err(ExtractError::File)?;
        let tolerance = Tolerance::of(tools, load.server_major);
        let environment = Environment::new(&load.connection, &load.reached).map_err(ExtractError::File)?;
        let arguments = load.arguments(&list, tolerance);
        let mut restore = tools.start("pg_restore", arguments, Some(&environment), true, false)?;
        let input = restore.input.take();
        let problems = restore.problems();
        let fed = tokio::select! {
            fed = self.feed(archive, input, &load.rows, progress) => fed.map(|()| true),
            () = problems.more_than(tolerance.errors()) => Ok(false),
        };
        match fed {
            Ok(true) => tolerance.end(&mut restore).await.map_err(ExtractError::Load),
            Ok(false) => {
                if tolerance.errors() > 0 {
                    // Without --exit-on-error it would go on.
                    restore.kill().await;
                }
                restore.wait().await.map_err(ExtractError::Load)?;
                Err(ExtractError::Load(restore.unread()))
            }
            // It ended early: its own error is the cause.
            Err(error @ ExtractError::Sink(_)) => {
                tolerance.end(&mut restore).await.map_err(ExtractError::Load)?;
                Err(error)
            }
            Err(error) => {
                restore.kill().await;
                Err(error)
            }
        }
    }

    /// Writes an archive into the pipe, and compares its SHA-256. pg_restore may end before the last block, if its rows are
    /// not restored: then the rest is only read.
    async fn feed(
        &self,
        archive: u32,
        mut input: Option<ChildStdin>,
        rows: &LoadRows,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), ExtractError> {
        let HeadBytes { stored, restored } = self.head(archive).await?;
        match rows {
            LoadRows::None => return pass(&mut input, &restored).await,
            LoadRows::Of(tables) => {
                let Some(input) = &mut input else { return Ok(()) };
                // One without a block is an error.
                let is_here = |table: &&TableRows| table.block.as_ref().map_or(0, |block| block.archive) == archive;
                let tables: Vec<TableRows> = tables.iter().filter(is_here).cloned().collect();
                return self.write_part(archive, &tables, input).await;
            }
            LoadRows::All => pass(&mut input, &restored).await?,
        }
        let missing = || ExtractError::Index(format!("archive {archive}"));
        let whole = self.manifest().archive_at(archive).ok_or_else(missing)?;
        let mut digest = Sha256::new();
        digest.update(&stored);
        let mut bytes = stored.len() as u64;
        let mut parts = std::pin::pin!(archive_part(&self.store, self.manifest(), archive, bytes..whole.length)?);
        while let Some(part) = parts.try_next().await? {
            digest.update(&part);
            pass(&mut input, &part).await?;
            bytes += part.len() as u64;
            progress(bytes);
        }
        let found = hex(&digest.finalize());
        if found == whole.sha256 {
            return Ok(());
        }
        let part = self.manifest().archives.get(usize::try_from(archive).unwrap_or(usize::MAX));
        let part = part.map_or_else(|| "the archive".to_owned(), |archive| format!("the archive {}", archive.name));
        Err(ExtractError::Content { part, expected: whole.sha256, found })
    }
}

async fn pass(input: &mut Option<ChildStdin>, bytes: &[u8]) -> Result<(), ExtractError> {
    let Some(pipe) = input else { return Ok(()) };
    match pipe.write_all(bytes).await {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => *input = None,
        other => other.map_err(ExtractError::Sink)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_statement_of_the_archive_is_not_shown() {
        let lines = [
            "pg_restore: error: could not execute query: ERROR:  no",
            "Command was: CREATE USER MAPPING FOR a SERVER b OPTIONS (",
            "    PASSWORD 'hunter22'",
            ");",
            "pg_restore: password",
        ];
        let shown = without_passwords(lines.map(str::to_owned).to_vec());
        assert!(!shown.concat().contains("hunter22"), "{shown:?}");
        assert_eq!((shown.len(), shown[0].as_str(), shown[4].as_str()), (5, lines[0], lines[4]));
    }
}
