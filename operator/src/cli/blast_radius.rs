//! `pgrail blast-radius`: what deletes on a table can take with them.

use super::CommandError;
use super::connect::DatabaseArgs;
use super::output;
use crate::operator::page::standalone;
use pgrail_guard::catalog::{Catalog, Oid};
use pgrail_guard::closure::{self, Closure, Effect};
use pgrail_guard::{BlastRadius, Graph, Observed, blast_radius};
use pgrail_postgres::ConnectionSettings;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write;
use std::process::ExitCode;

/// Tables of one page: those with most rows at risk.
const MOST_TABLES: usize = 2000;

/// Options of `pgrail blast-radius`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pgrail blast-radius public.users -o dot --database-url \"$URL\" | dot -Tsvg > users.svg"
)]
pub(super) struct BlastRadiusArgs {
    /// Tables, schema.table or table; none: every table that others hang on
    tables: Vec<String>,
    #[command(flatten)]
    database: DatabaseArgs,
    /// How to print it
    #[arg(short = 'o', long, value_enum, default_value_t)]
    output: BlastFormat,
}

impl BlastRadiusArgs {
    /// For this database, whatever the options say.
    pub(super) fn of(mut self, settings: ConnectionSettings) -> Self {
        self.database.set(settings);
        self
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum BlastFormat {
    /// Columns
    #[default]
    Table,
    /// The cascade graph with rows
    Json,
    /// Graphviz
    Dot,
    /// One self-contained page
    Html,
}

/// One table and what hangs on it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    table: String,
    rows: u64,
    cascade_tables: usize,
    rows_at_risk: u64,
    per_row: u64,
    guarded: bool,
    reaches: Vec<Reached>,
}

/// A table that deletes reach.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Reached {
    table: String,
    rows: u64,
    effect: &'static str,
    path: Vec<String>,
}

/// Reads the catalog and prints the graph.
pub(super) async fn run(args: BlastRadiusArgs) -> Result<ExitCode, CommandError> {
    let client = args.database.connect().await?;
    let observed = pgrail_guard::observe(&client).await?;
    let chosen = choose(&observed, &args.tables)?;
    let rows: Vec<Row> = chosen.iter().map(|it| row(&observed.catalog, it)).collect();
    let mut out = std::io::stdout().lock();
    match args.output {
        BlastFormat::Table => {
            drop(out);
            print_table(&rows)?;
        }
        BlastFormat::Json => writeln!(out, "{}", serde_json::to_string_pretty(&rows)?)?,
        BlastFormat::Dot => out.write_all(dot(&rows).as_bytes())?,
        BlastFormat::Html => out.write_all(page(&observed, &chosen, !args.tables.is_empty())?.as_bytes())?,
    }
    Ok(ExitCode::SUCCESS)
}

impl BlastRadiusArgs {
    /// Prints what the status of a database lists, without its graph.
    pub(super) fn print_listed(&self, listed: &[pgrail_crds::BlastRadius]) -> Result<ExitCode, CommandError> {
        let unsigned = |number: i64| u64::try_from(number).unwrap_or_default();
        let wanted = |it: &&pgrail_crds::BlastRadius| self.tables.is_empty() || self.tables.contains(&it.table);
        let rows = listed.iter().filter(wanted).map(|it| Row {
            table: it.table.clone(),
            rows: unsigned(it.rows),
            cascade_tables: usize::try_from(it.cascade_tables).unwrap_or_default(),
            rows_at_risk: unsigned(it.rows_at_risk),
            per_row: unsigned(it.per_row),
            guarded: it.guarded,
            reaches: Vec::new(),
        });
        let rows: Vec<Row> = rows.collect();
        match self.output {
            BlastFormat::Table => print_table(&rows)?,
            BlastFormat::Json => writeln!(std::io::stdout().lock(), "{}", serde_json::to_string_pretty(&rows)?)?,
            BlastFormat::Dot | BlastFormat::Html => {
                return Err(CommandError::Refused(
                    "the status has no graph: leave out --from-status, which needs the right to read the Secret"
                        .to_owned(),
                ));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The blast radius of each table that is asked for, or of every table with a cascade.
fn choose(observed: &Observed, wanted: &[String]) -> Result<Vec<BlastRadius>, CommandError> {
    let (catalog, guarded) = (&observed.catalog, observed.guarded_tables());
    if wanted.is_empty() {
        return Ok(blast_radius::compute(catalog, &guarded));
    }
    let named = |name: &String| {
        let mut matches = catalog.tables().filter(|it| it.label() == *name || it.name == *name);
        match (matches.next(), matches.next()) {
            (Some(one), None) => {
                Ok(blast_radius::of(catalog, &closure::of(catalog, one.oid), guarded.contains(&one.oid)))
            }
            (Some(one), Some(other)) => Err(CommandError::Refused(format!(
                "{name:?} is ambiguous: {} and {}; write schema.table",
                one.label(),
                other.label()
            ))),
            (None, _) => Err(CommandError::Refused(format!("no such table: {name:?}"))),
        }
    };
    wanted.iter().map(named).collect()
}

/// The graph as one page: of the whole database, or of what deletes on the chosen tables reach.
fn page(observed: &Observed, chosen: &[BlastRadius], is_narrowed: bool) -> Result<String, serde_json::Error> {
    let roots: Vec<Oid> = chosen.iter().map(|it| it.oid).collect();
    let guarded = observed.guarded_tables();
    let graph = Graph::of(&observed.catalog, chosen, &guarded, is_narrowed.then_some(&*roots), MOST_TABLES);
    let names: Vec<String> = chosen.iter().map(|it| it.table.clone()).take(usize::from(is_narrowed)).collect();
    standalone(&graph, &names)
}

fn row(catalog: &Catalog, it: &BlastRadius) -> Row {
    let closure: Closure = closure::of(catalog, it.oid);
    let reaches = closure.members.iter().map(|member| Reached {
        table: catalog.label(member.table),
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate, never negative")]
        rows: catalog.rows(member.table).max(0.0) as u64,
        effect: match member.effect {
            Effect::Deleted => "deleted",
            Effect::Nulled => "set to NULL or DEFAULT",
        },
        path: member.path.iter().map(|oid| catalog.label(*oid)).collect(),
    });
    Row {
        table: it.table.clone(),
        rows: it.rows,
        cascade_tables: it.cascade_tables,
        rows_at_risk: it.rows_at_risk,
        per_row: it.per_row,
        guarded: it.guarded,
        reaches: reaches.collect(),
    }
}

fn number(rows: u64) -> String {
    output::thousands(i64::try_from(rows).unwrap_or(i64::MAX))
}

fn print_table(rows: &[Row]) -> std::io::Result<()> {
    let header = ["TABLE", "ROWS", "TABLES BELOW", "ROWS AT RISK", "PER ROW", "GUARDED"];
    let lines = rows.iter().map(|it| {
        vec![
            it.table.clone(),
            number(it.rows),
            it.cascade_tables.to_string(),
            number(it.rows_at_risk),
            number(it.per_row),
            if it.guarded { "yes" } else { "no" }.to_owned(),
        ]
    });
    output::table(&header, lines.collect())
}

/// Every edge of the graph once: table, table below it, effect.
fn edges(rows: &[Row]) -> BTreeSet<(&str, &str, &'static str)> {
    let steps = rows.iter().flat_map(|it| &it.reaches).filter_map(|it| match it.path.as_slice() {
        [.., above, _] => Some((above.as_str(), it.table.as_str(), it.effect)),
        _ => None,
    });
    steps.collect()
}

fn dot(rows: &[Row]) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut text =
        String::from("digraph blast_radius {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n");
    for it in rows {
        let style =
            if it.guarded { ", style=filled, fillcolor=\"#d6f5d6\"" } else { ", style=filled, fillcolor=\"#f9d6d5\"" };
        let label = format!("{}\\n{} rows, {} at risk", it.table, number(it.rows), number(it.rows_at_risk));
        let _ = writeln!(text, "  {} [label=\"{}\"{style}];", quoted(&it.table), label.replace('"', "\\\""));
    }
    for it in rows.iter().flat_map(|it| &it.reaches) {
        if !rows.iter().any(|row| row.table == it.table) {
            let label = format!("{}\\n{} rows", it.table, number(it.rows)).replace('"', "\\\"");
            let _ = writeln!(text, "  {} [label=\"{label}\"];", quoted(&it.table));
        }
    }
    for (above, below, effect) in edges(rows) {
        let style = if effect == "deleted" { "" } else { " [style=dashed]" };
        let _ = writeln!(text, "  {} -> {}{style};", quoted(above), quoted(below));
    }
    text.push_str("}\n");
    text
}
