//! `pgrail rehearse`: what a statement would do, without doing it.

use super::connect::DatabaseArgs;
use super::output::thousands;
use super::{CommandError, NOT_AS_DECLARED};
use crate::signals::stop_requested;
use pgrail_guard::rehearse::{Rows, Stop, TableRows, Verdict};
use pgrail_guard::{Rehearsal, Request};
use pgrail_postgres::ConnectionSettings;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// How long a statement may take to end once it is cancelled.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// Options of `pgrail rehearse`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit status: 0 it would pass, 2 a guard would stop it, 1 it was refused or failed.\n\n\
    Example:\n  pgrail rehearse \"DELETE FROM users WHERE id = 42\" --as app --set app.tenant=7 --database-url \"$URL\"")]
pub(super) struct RehearseArgs {
    /// One DELETE, UPDATE, MERGE, INSERT … ON CONFLICT DO UPDATE, or these after WITH
    statement: String,
    /// The longest that a run takes and holds locks: 1s to 10m; a statement that a guard stops is run twice
    #[arg(long, default_value = "5s", value_parser = timeout)]
    timeout: Duration,
    /// Abort after so many rows (in tables without a guard: refuse by estimate)
    #[arg(long, value_name = "ROWS", default_value_t = 1_000_000, value_parser = clap::value_parser!(i64).range(1..))]
    max_rows: i64,
    /// Run it although the server estimates more rows than --max-rows
    #[arg(long)]
    force: bool,
    /// Run it as this role, with its rights and row level security
    #[arg(long = "as", value_name = "ROLE")]
    role: Option<String>,
    /// A setting of the session, such as app.user_id (may be repeated)
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
    #[command(flatten)]
    database: DatabaseArgs,
    /// How to print it
    #[arg(short = 'o', long, value_enum, default_value_t)]
    output: RehearseFormat,
}

impl RehearseArgs {
    /// For this database, whatever the options say.
    pub(super) fn of(mut self, settings: ConnectionSettings) -> Self {
        self.database.set(settings);
        self
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum RehearseFormat {
    /// A tree of tables
    #[default]
    Table,
    /// Everything
    Json,
    /// Everything
    Yaml,
}

fn timeout(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().map_err(|error| error.to_string())?;
    let duration = Duration::try_from(parsed).map_err(|error| error.to_string())?;
    if (Request::SHORTEST..=Request::LONGEST).contains(&duration) {
        Ok(duration)
    } else {
        Err("must be between 1s and 10m".to_owned())
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

/// Rehearses the statement and prints what it would have done.
pub(super) async fn run(args: RehearseArgs) -> Result<ExitCode, CommandError> {
    let RehearseArgs { statement, timeout, max_rows, force, role, settings, database, output } = args;
    let request = Request { statement, timeout, max_rows, force, role, settings };
    let connection = database.connect().await?;
    let cancel = async || {
        if let Err(error) = connection.cancel().await {
            tracing::debug!(%error, "cannot cancel");
        }
    };
    let rehearsal = tokio::select! {
        rehearsal = pgrail_guard::rehearse(&connection, &request, cancel) => rehearsal?,
        () = stop_requested() => {
            cancel().await;
            // Reported only if it happened. The end of the session does the same, as soon as the server notices it.
            let rolled_back = tokio::time::timeout(CANCEL_TIMEOUT, connection.batch_execute("ROLLBACK")).await;
            let how = if matches!(rolled_back, Ok(Ok(()))) { "rolled back" } else { "the server rolls it back when it notices that the client disconnected" };
            return Err(CommandError::Refused(format!("interrupted: {how}")));
        }
    };
    drop(connection);
    let mut out = std::io::stdout().lock();
    match output {
        RehearseFormat::Table => print(&mut out, &rehearsal, &request)?,
        RehearseFormat::Json => writeln!(out, "{}", serde_json::to_string_pretty(&rehearsal)?)?,
        RehearseFormat::Yaml => write!(out, "{}", serde_norway::to_string(&rehearsal)?)?,
    }
    Ok(match rehearsal.verdict {
        Verdict::Passes => ExitCode::SUCCESS,
        Verdict::Stopped(_) => NOT_AS_DECLARED.into(),
    })
}

fn print(out: &mut impl Write, rehearsal: &Rehearsal, request: &Request) -> std::io::Result<()> {
    let tables: usize = rehearsal.tables.iter().map(TableRows::tables).sum();
    let took = milliseconds(rehearsal.took);
    match &rehearsal.verdict {
        Verdict::Stopped(Stop { code, message, detail, hint, after }) => {
            writeln!(out, "STOPPED by a guard after {}: {code}: {message}", milliseconds(*after))?;
            writeln!(out, "  {detail}\n  {hint}\n")?;
            match &rehearsal.incomplete {
                None => writeln!(out, "Without the guards, in {took}:\n")?,
                Some(why) => writeln!(out, "NOT COUNTED TO THE END: {why}\n")?,
            }
        }
        Verdict::Passes => {
            writeln!(out, "PASSES, in {took}")?;
            for guard in &rehearsal.warned {
                writeln!(out, "  warned of by {guard}, which does not stop it")?;
            }
            writeln!(out)?;
        }
    }
    for table in &rehearsal.tables {
        print_tree(out, table, "", "")?;
    }
    if tables > 1 {
        writeln!(out, "\nTotal: {}", counts(rehearsal.total))?;
    }
    if !rehearsal.other_tables.is_empty() {
        writeln!(out, "\nChanged otherwise, by triggers or ON UPDATE:")?;
        for table in &rehearsal.other_tables {
            print_tree(out, table, "  ", "  ")?;
        }
    }
    if !rehearsal.triggers.is_empty() {
        writeln!(out, "\nTriggers; what they did outside the database was not rolled back:")?;
        for trigger in &rehearsal.triggers {
            writeln!(out, "  {}: {} runs {}", trigger.table, trigger.name, trigger.function)?;
        }
    }
    for window in &rehearsal.windows {
        let left = |(removed, limit): (i64, i64), what: &str| format!("{} of {limit} {what}", (limit - removed).max(0));
        let of = [
            window.rows.map(|rows| left(rows, "rows")),
            window.cascade_rows.map(|rows| left(rows, "rows of other tables")),
        ];
        let left = of.into_iter().flatten().collect::<Vec<_>>().join(", ");
        writeln!(out, "\nLeft of the window of {} on {} ({} s): {left}", window.guard, window.table, window.seconds)?;
    }
    writeln!(out, "\nRolled back. Values taken from sequences stay used.")?;
    if rehearsal.counted_as_attempt {
        writeln!(out, "The guard counted it as an attempt: {} has no right to prevent that.", rehearsal.login)?;
    }
    if let Some(role) = request.role.as_ref().filter(|_| !rehearsal.rights_of_role) {
        writeln!(
            out,
            "Exemptions are for the login role, here {}: whether {role} has one was not checked.",
            rehearsal.login
        )?;
    }
    Ok(())
}

fn print_tree(out: &mut impl Write, table: &TableRows, first: &str, rest: &str) -> std::io::Result<()> {
    writeln!(out, "{first}{}  {}", table.table, counts(table.rows))?;
    let last = table.below.len().saturating_sub(1);
    for (at, below) in table.below.iter().enumerate() {
        let (branch, trunk) = if at == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        print_tree(out, below, &format!("{rest}{branch}"), &format!("{rest}{trunk}"))?;
    }
    Ok(())
}

fn counts(rows: Rows) -> String {
    let Rows { deleted, nulled, updated, inserted, moved } = rows;
    let all = [
        (deleted, "deleted"),
        (nulled, "set to NULL or DEFAULT"),
        (updated, "updated"),
        (inserted, "inserted"),
        (moved, "moved to another partition"),
    ];
    let some: Vec<String> =
        all.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", thousands(*n))).collect();
    if some.is_empty() { "nothing".to_owned() } else { some.join(", ") }
}

fn milliseconds(duration: Duration) -> String {
    if duration >= Duration::from_secs(1) {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_drawn_and_bounds_are_kept() {
        let node = |table: &str, deleted: i64, below: Vec<TableRows>| TableRows {
            table: table.to_owned(),
            rows: Rows { deleted, ..Rows::default() },
            below,
        };
        let tree =
            node("a", 1000, vec![node("b", 2, vec![node("c", 3, vec![])]), node("d", 0, vec![node("e", 4, vec![])])]);
        let mut out = Vec::new();
        print_tree(&mut out, &tree, "", "").unwrap();
        let expected = "a  1,000 deleted\n├─ b  2 deleted\n│  └─ c  3 deleted\n└─ d  nothing\n   └─ e  4 deleted\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        for (text, seconds) in [("1s", 1), ("5s", 5), ("10m", 600), ("1m30s", 90)] {
            assert_eq!(timeout(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["0s", "999ms", "11m", "-5s", "5", ""] {
            assert!(timeout(text).is_err(), "{text}");
        }
        assert_eq!(
            setting("request.jwt.claims={\"a\":\"=\"}"),
            Ok(("request.jwt.claims".to_owned(), "{\"a\":\"=\"}".to_owned()))
        );
        assert!(setting("nothing").is_err());
    }
}
