//! How results are printed: a table for people, JSON and YAML for programs.

use super::CommandError;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
use std::io::{IsTerminal, Write};

/// `-o`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Columns
    #[default]
    Table,
    /// More columns
    Wide,
    /// Whole objects
    Json,
    /// Whole objects
    Yaml,
    /// Names only
    Name,
}

/// Prints objects of any kind whole, or their names, where that is asked for; answers whether it was.
pub(super) fn objects(objects: &[Value], format: Format) -> Result<bool, CommandError> {
    let mut out = std::io::stdout().lock();
    match format {
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(objects)?)?,
        Format::Yaml => {
            for object in objects {
                write!(out, "---\n{}", serde_norway::to_string(object)?)?;
            }
        }
        Format::Name => {
            for object in objects {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let kind = text(&object["kind"]).to_lowercase();
                writeln!(out, "{kind}.pgrail.dev/{}", text(&object["metadata"]["name"]))?;
            }
        }
        Format::Table | Format::Wide => return Ok(false),
    }
    Ok(true)
}

/// Prints rows under a header, as `kubectl get` does: no lines, two spaces between columns.
pub(super) fn table(header: &[&str], rows: Vec<Vec<String>>) -> std::io::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    // A pipe gets whole lines, a terminal gets what fits.
    if !std::io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut out = std::io::stdout().lock();
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Prints a number of rows with thousands apart.
pub(super) fn thousands(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

/// The same of a number that is never negative.
pub(super) fn number(number: u64) -> String {
    thousands(i64::try_from(number).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::thousands;

    #[test]
    fn thousands_are_apart() {
        assert_eq!([0, 999, 1000, 1_300_001, -12_345].map(thousands), ["0", "999", "1,000", "1,300,001", "-12,345"]);
    }
}
