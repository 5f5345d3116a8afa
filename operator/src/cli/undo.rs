//! `pgrail undo`: lists the transactions with captured rows, or restores the rows of one.

use super::connect::DatabaseArgs;
use super::output::{self, Format};
use super::{CommandError, NOT_AS_DECLARED};
use pgrail_guard::{CapturedTransaction, Conflicts, Undo};
use pgrail_postgres::ConnectionSettings;
use serde::Serialize;
use std::io::Write;
use std::process::ExitCode;

/// Options of `pgrail undo`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pgrail undo                            lists the transactions, newest first\n  pgrail undo 48213 --dry-run            lists the rows, the triggers that would fire, and the conflicts\n  pgrail undo 48213                      restores all of its rows, or none\n\nGuards whose spec has `capture` capture rows. Rows are restored as the owner of their table."
)]
pub(super) struct UndoArgs {
    /// The transaction's number; none: list them
    transaction: Option<u64>,
    /// Only report what would be restored; exit status 2 if there are conflicts
    #[arg(long, requires = "transaction")]
    dry_run: bool,
    /// Leave rows that exist already, and links that were changed since, as they are
    #[arg(long, requires = "transaction")]
    skip_existing: bool,
    #[command(flatten)]
    database: DatabaseArgs,
    /// How to print it
    #[arg(short = 'o', long, value_enum, default_value_t)]
    output: Format,
}

impl UndoArgs {
    /// For this database, whatever the options say.
    pub(super) fn of(mut self, settings: ConnectionSettings) -> Self {
        self.database.set(settings);
        self
    }
}

/// Lists transactions, or undoes one.
pub(super) async fn run(args: UndoArgs) -> Result<ExitCode, CommandError> {
    let mut client = args.database.connect().await?;
    let Some(transaction) = args.transaction else {
        list(&pgrail_guard::captured(&client).await?, args.output)?;
        return Ok(ExitCode::SUCCESS);
    };
    let conflicts = if args.skip_existing { Conflicts::SkipExisting } else { Conflicts::Refuse };
    let outcome = pgrail_guard::undo(&mut client, transaction, conflicts, args.dry_run).await?;
    print(&outcome, args.output)?;
    Ok(match (outcome.problems.is_empty(), args.dry_run) {
        (true, _) => ExitCode::SUCCESS,
        (false, true) => NOT_AS_DECLARED.into(),
        (false, false) => ExitCode::FAILURE,
    })
}

fn list(transactions: &[CapturedTransaction], format: Format) -> Result<(), CommandError> {
    let wide = match format {
        Format::Json | Format::Yaml => return whole(transactions, format),
        Format::Name => {
            let mut out = std::io::stdout().lock();
            for it in transactions {
                writeln!(out, "{}", it.transaction)?;
            }
            return Ok(());
        }
        Format::Table => false,
        Format::Wide => true,
    };
    if transactions.is_empty() {
        eprintln!("pgrail: no deleted rows are captured in this database");
        return Ok(());
    }
    let mut header = vec!["TRANSACTION", "BEGAN", "LOGIN", "APPLICATION", "STATE", "ROWS"];
    if wide {
        header.extend(["ROLE", "CLIENT", "GUARDS"]);
    }
    let rows = transactions.iter().map(|it| {
        let state = match (&it.undone, &it.incomplete) {
            (Some(at), _) => format!("undone {at} by {}", it.undone_by.as_deref().unwrap_or_default()),
            (None, Some(why)) => format!("incomplete: {why}"),
            (None, None) => "complete".to_owned(),
        };
        let mut row = vec![
            it.transaction.to_string(),
            it.began.clone(),
            it.login.clone(),
            it.application.clone(),
            state,
            rows_by_table(it),
        ];
        if wide {
            row.extend([it.role.clone(), it.client.clone(), it.guards.join(", ")]);
        }
        row
    });
    Ok(output::table(&header, rows.collect())?)
}

/// The rows of each table, in words.
fn rows_by_table(transaction: &CapturedTransaction) -> String {
    let tables = transaction.tables.iter().map(|it| {
        let deleted = (it.deleted > 0).then(|| output::thousands(it.deleted));
        let nulled = (it.nulled > 0).then(|| format!("{} links", output::thousands(it.nulled)));
        format!("{} {}", it.table, deleted.into_iter().chain(nulled).collect::<Vec<_>>().join(" and "))
    });
    tables.collect::<Vec<_>>().join(", ")
}

fn print(outcome: &Undo, format: Format) -> Result<(), CommandError> {
    match format {
        Format::Json | Format::Yaml => return whole(outcome, format),
        Format::Name => println!("{}", outcome.transaction),
        Format::Table | Format::Wide => {
            let header = [
                "TABLE",
                "CAPTURED",
                "RESTORED",
                "EXISTING",
                "PARENT MISSING",
                "LINKS",
                "LINKS RESTORED",
                "NEW COLUMNS",
            ];
            // What was not done is not reported as if it were.
            let back = |count: i64| if outcome.problems.is_empty() { output::thousands(count) } else { "-".to_owned() };
            let rows = outcome.tables.iter().map(|it| {
                vec![
                    it.table.clone(),
                    output::thousands(it.rows),
                    back(it.inserted),
                    output::thousands(it.existing),
                    output::thousands(it.parents_missing),
                    output::thousands(it.links),
                    back(it.links_restored),
                    it.columns_added.to_string(),
                ]
            });
            output::table(&header, rows.collect())?;
        }
    }
    for trigger in &outcome.triggers {
        let fires = if outcome.done { "fired" } else { "would fire" };
        eprintln!("pgrail: trigger {} of {} {fires} ({})", trigger.name, trigger.table, trigger.function);
    }
    for problem in &outcome.problems {
        eprintln!("pgrail: {problem}");
    }
    let Undo { transaction, began, login, done, problems, .. } = outcome;
    eprintln!(
        "pgrail: transaction {transaction} of {began} by {login}: {}",
        match (done, problems.is_empty()) {
            (true, _) => "undone",
            (false, true) => "can be undone; nothing was changed",
            (false, false) => "cannot be undone; nothing was changed",
        }
    );
    Ok(())
}

fn whole<T: Serialize + ?Sized>(value: &T, format: Format) -> Result<(), CommandError> {
    let mut out = std::io::stdout().lock();
    if format == Format::Yaml {
        write!(out, "{}", serde_norway::to_string(value)?)?;
    } else {
        writeln!(out, "{}", serde_json::to_string_pretty(value)?)?;
    }
    Ok(())
}
