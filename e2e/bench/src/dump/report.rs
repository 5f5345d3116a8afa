//! The figures of dumps and restores against their bars.

use pgrail_testing::Server;

use super::agent::Rounds;
use super::data::{MANY, WANTED_TABLE};
use super::{ROUNDS, Size};
use crate::graph::{Panel, panels};
use crate::page::Row;

/// MiB of the agent, at most.
const MEMORY: f64 = 64.0;
/// Of a bare pg_dump: the dump, and the dump with its proof.
const DUMP: f64 = 1.15;
const PROOF: f64 = 1.5;
/// How much less time it takes than `pg_dump | gzip`, and with two jobs than with one.
const GZIP: f64 = 2.0;
const JOBS: f64 = 1.2;
/// Of pg_restore: one table, and everything.
const TABLE: f64 = 1.2;
const WHOLE: f64 = 1.15;
/// Beside the block of the table, bytes.
const READ: f64 = 1_048_576.0;
/// Seconds.
const STRUCTURE: f64 = 30.0;
/// What the agent's memory is measured of.
const PEAKS: [&str; 5] = ["dump", "dump of 2 jobs", "verification", "restore", "restore of a table"];

pub(super) fn row(server: &Server, sizes: &[Size], structure: &Rounds) -> Row {
    let how = format!(
        "The agent of backup pods (`pgrail agent dump`, `verify` and `restore`) as a process, with the environment of the image and the \
         defaults of a BackupSchedule: zstd at level 3, row counts by the server (`rowCounts: Exact`), every byte read back. The store is an S3 server (versitygw) over HTTP on the \
         same machine, and the programs are those of PostgreSQL {major}. Everything shares the cores: the PostgreSQL server, the S3 server, the \
         agent and what it starts. The time of a step is that of its process, from start to end. {ROUNDS} rounds in alternation, medians of \
         times, and of the ratios of each round. *Bare pg_dump*: `pg_dump -Fc -Z zstd:3` to /dev/null. *gzip*: `pg_dump | gzip` into a local file; the \
         time of an upload is not counted. *With its proof*: the dump, and its verification and publication. *Bare pg_restore*: from an archive \
         in a local file, which was written with offsets, into an empty database; the agent also creates the database, counts all rows and \
         collects statistics. `pg_restore -t` creates a table without its indexes and constraints; the restore of a table into a new schema has \
         them. CPU time is that of all processes of the machine, those of the servers included. Memory is the most that the agent's process had resident (VmHWM), in any round; that of pg_dump and pg_restore is not included. The \
         database: four tables of the same size with seven columns, a primary key and an index, and the table `{WANTED_TABLE}` of 20 MB.",
        major = server.major
    );
    let mut row = Row::new("dump", "Dumps and restores", server.major.to_string(), how);
    for size in sizes {
        numbers(&mut row, size);
    }
    if let Some(last) = sizes.last() {
        dump_lines(&mut row, last);
        restore_lines(&mut row, last);
    }
    let seconds = structure.median("structure");
    row.number("structure_s", seconds);
    row.line(
        format!("verification of a backup of {MANY} tables with a structural drill, the start of the server included"),
        format!("{seconds:.1} s"),
        &format!("≤ {STRUCTURE:.0} s"),
        seconds <= STRUCTURE,
    );
    for size in sizes {
        for name in PEAKS {
            let most = size.peaks.most(name);
            let what = format!("{}: memory, {name}", text(size.megabytes));
            row.line(what, format!("{most:.1} MiB"), &format!("≤ {MEMORY:.0} MiB"), most <= MEMORY);
        }
    }
    row
}

fn numbers(row: &mut Row, size: &Size) {
    let name = size.megabytes;
    let mut number = |what: &str, value: f64| row.number(format!("{name}_{what}"), value);
    #[allow(clippy::cast_precision_loss, reason = "megabytes")]
    number("megabytes", name as f64);
    number("database_bytes", size.database_bytes);
    number("archive_bytes", size.archive_bytes);
    number("block_bytes", size.block_bytes);
    number("read_bytes", size.read_bytes[0]);
    number("in_place_read_bytes", size.read_bytes[1]);
    for what in size.times.names() {
        number(&format!("{}_s", what.replace(' ', "_")), size.times.median(what));
    }
    for what in PEAKS {
        number(&format!("{}_mib", what.replace(' ', "_")), size.peaks.most(what));
    }
    number("most_mib", PEAKS.map(|what| size.peaks.most(what)).into_iter().fold(f64::NAN, f64::max));
    for (what, (one, other)) in [
        ("dump_ratio", ("dump", "bare")),
        ("proof_ratio", ("proof", "bare")),
        ("gzip_ratio", ("gzip", "dump")),
        ("jobs_ratio", ("dump", "dump of 2 jobs")),
        ("restore_ratio", ("restore", "pg_restore")),
        ("beside_ratio", ("table beside", "pg_restore of a table")),
        ("in_place_ratio", ("table in place", "pg_restore of a table")),
    ] {
        number(what, size.times.ratio(one, other));
    }
}

fn dump_lines(row: &mut Row, size: &Size) {
    let (many, times) = (text(size.megabytes), &size.times);
    let bytes =
        format!("{:.0} MB on the disk, {:.0} MB in the store", size.database_bytes / 1e6, size.archive_bytes / 1e6);
    row.note(format!("{many}: size of the database"), bytes);
    let mut compared = |what: &str, name: &str, most: f64| {
        let (bare, ratio) = (times.median("bare"), times.ratio(name, "bare"));
        let measured = format!("{bare:.1} s × {ratio:.2}");
        row.line(format!("{many}: {what}"), measured, &format!("≤ × {most:.2}"), ratio <= most);
    };
    compared("dump to a completed upload, against a bare pg_dump", "dump", DUMP);
    compared("dump with its proof, against a bare pg_dump", "proof", PROOF);
    let cpu = |name: &str| format!("{:.1} s in {:.1} s", size.cpu.median(name), times.median(name));
    row.note(format!("{many}: CPU time, bare pg_dump"), cpu("bare"));
    row.note(format!("{many}: CPU time, dump to a completed upload"), cpu("dump"));
    let (gzip, ratio) = (times.median("gzip"), times.ratio("gzip", "dump"));
    let dump = times.median("dump");
    row.line(
        format!("{many}: pg_dump and gzip, against the dump to a completed upload"),
        format!("{gzip:.1} s: {ratio:.1} × the {dump:.1} s of the dump"),
        &format!("≥ {GZIP:.0} ×"),
        ratio >= GZIP,
    );
    let ratio = times.ratio("dump", "dump of 2 jobs");
    row.line(
        format!("{many}: dump with `jobs: 1` against `jobs: 2`"),
        format!("{dump:.1} s against {:.1} s: × {ratio:.2}", times.median("dump of 2 jobs")),
        &format!("≥ × {JOBS:.1}"),
        ratio >= JOBS,
    );
}

fn restore_lines(row: &mut Row, size: &Size) {
    let (many, times) = (text(size.megabytes), &size.times);
    for (what, name, read) in [
        ("into a new schema", "table beside", size.read_bytes[0]),
        ("into the live table", "table in place", size.read_bytes[1]),
    ] {
        let (bare, ratio) = (times.median("pg_restore of a table"), times.ratio(name, "pg_restore of a table"));
        row.line(
            format!("{many}: one table of 20 MB {what}, against `pg_restore -t`"),
            format!("{bare:.2} s × {ratio:.2}"),
            &format!("≤ × {TABLE:.1}"),
            ratio <= TABLE,
        );
        let more = read - size.block_bytes;
        row.line(
            format!("{many}: the same, bytes read of the backup"),
            format!("{:.1} MB and {:.0} KiB", size.block_bytes / 1e6, more / 1024.0),
            "≤ the block of the table and 1 MiB",
            more <= READ,
        );
    }
    let (bare, ratio) = (times.median("pg_restore"), times.ratio("restore", "pg_restore"));
    row.line(
        format!("{many}: whole restore, against a bare pg_restore"),
        format!("{bare:.1} s × {ratio:.2}"),
        &format!("≤ × {WHOLE:.2}"),
        ratio <= WHOLE,
    );
}

fn text(megabytes: u64) -> String {
    if megabytes.is_multiple_of(1000) { format!("{} GB", megabytes / 1000) } else { format!("{megabytes} MB") }
}

/// Every figure against the size of the database.
pub(crate) fn graph(row: &Row) -> String {
    let steps = row.steps("_megabytes");
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "megabytes")]
    let labels: Vec<String> = steps.iter().map(|megabytes| text(*megabytes as u64)).collect();
    let panel = |title, unit, bar, what: &str| Panel { title, unit, bar, values: row.of_steps(&steps, what) };
    let all = [
        panel("Dump, of a bare pg_dump", "×", Some(DUMP), "dump_ratio"),
        panel("Dump with its proof, of a bare pg_dump", "×", Some(PROOF), "proof_ratio"),
        panel("Whole restore, of a bare pg_restore", "×", Some(WHOLE), "restore_ratio"),
        panel("pg_dump and gzip, of the dump", "×", Some(GZIP), "gzip_ratio"),
        panel("One job, of two", "×", Some(JOBS), "jobs_ratio"),
        panel("Memory of the agent", "MiB", Some(MEMORY), "most_mib"),
    ];
    panels("Dumps and restores by size of the database", "tables", &labels, &all)
}
