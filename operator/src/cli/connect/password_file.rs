//! The password file, as libpq reads it: lines of `host:port:database:user:password`, where `*` stands for anything.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The connection that a password is wanted for.
pub(super) struct Wanted<'a> {
    /// `localhost` for the default Unix socket.
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

/// The password in the given file, in the one that `PGPASSFILE` names, or in `~/.pgpass`. As in libpq, a file that others
/// can read is ignored, and that is said.
pub(super) fn find(given: Option<PathBuf>, wanted: &Wanted<'_>) -> Option<String> {
    let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let file = given.or_else(|| path("PGPASSFILE")).or_else(|| Some(path("HOME")?.join(".pgpass")))?;
    let metadata = std::fs::metadata(&file).ok().filter(std::fs::Metadata::is_file)?;
    if metadata.permissions().mode() & 0o077 != 0 {
        eprintln!("pgrail: {}: ignored, since others can read it: chmod 600 {0}", file.display());
        return None;
    }
    read(&file, wanted)
}

fn read(file: &Path, wanted: &Wanted<'_>) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| password(line, wanted))
}

/// The password of a line, where it is for the connection.
fn password(line: &str, wanted: &Wanted<'_>) -> Option<String> {
    let port = wanted.port.to_string();
    let mut rest = line;
    for value in [wanted.host, &port, wanted.database, wanted.user] {
        let (field, after) = field(rest);
        rest = after?;
        if field != "*" && unescaped(field) != value {
            return None;
        }
    }
    Some(unescaped(field(rest).0))
}

/// Up to the next colon that no backslash escapes, and what follows that.
fn field(text: &str) -> (&str, Option<&str>) {
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            ':' if !escaped => return (&text[..at], Some(&text[at + 1..])),
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    (text, None)
}

fn unescaped(field: &str) -> String {
    let mut text = String::new();
    let mut characters = field.chars();
    while let Some(character) = characters.next() {
        text.push(if character == '\\' { characters.next().unwrap_or('\\') } else { character });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_for_connections() {
        let wanted = Wanted { host: "db", port: 5432, database: "shop", user: "a:b" };
        for (line, found) in [
            (r"db:5432:shop:a\:b:secret", Some("secret")),
            (r"*:*:*:*:p\:q\\", Some(r"p:q\")),
            (r"db:5433:shop:a\:b:secret", None),
            (r"db:5432:other:a\:b:secret", None),
            (r"db:5432:shop:a:b:secret", None),
            ("db:5432", None),
        ] {
            assert_eq!(password(line, &wanted).as_deref(), found, "{line}");
        }
    }
}
