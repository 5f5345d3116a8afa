//! The server that a database is created on, and who owns what is restored. Pure.

use std::collections::BTreeSet;

use pgrail_dump::Entry;
use serde::Deserialize;

/// The role that owns `public` in every database: its owner.
const DATABASE_OWNER: &str = "pg_database_owner";
/// What only a superuser can create, whoever owns it afterwards.
const OF_SUPERUSERS: [&str; 10] = [
    "ACCESS METHOD",
    "EVENT TRIGGER",
    "FOREIGN DATA WRAPPER",
    "OPERATOR CLASS",
    "OPERATOR FAMILY",
    "PROCEDURAL LANGUAGE",
    "PUBLICATION TABLES IN SCHEMA",
    "TEXT SEARCH PARSER",
    "TEXT SEARCH TEMPLATE",
    "TRANSFORM",
];
/// Languages in which every role can write functions.
const TRUSTED_LANGUAGES: [&str; 5] = ["sql", "plpgsql", "plperl", "pltcl", "plv8"];

/// The comment of an unfinished database.
pub(crate) fn mark_of(id: &str) -> String {
    format!("pgrail: unfinished restore {id}")
}

/// The server.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_excessive_bools, reason = "attributes of a role")]
pub(super) struct Target {
    pub(super) version: String,
    pub(super) major: u32,
    pub(super) standby: bool,
    pub(super) login: String,
    pub(super) superuser: bool,
    pub(super) create_db: bool,
    pub(super) create_role: bool,
    /// The comment of the database with the new one's name; `None` if there is none.
    pub(super) mark: Option<String>,
    pub(super) roles: Vec<Role>,
    pub(super) extensions: Vec<Available>,
    pub(super) tablespaces: Vec<String>,
}

/// A role that exists.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Role {
    pub(super) name: String,
    pub(super) superuser: bool,
    /// Whether the login can use SET ROLE.
    pub(super) settable: bool,
}

/// An extension that can be created.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Available {
    pub(super) name: String,
    pub(super) version: String,
    /// Whether the owner of a database can create it.
    pub(super) trusted: bool,
}

/// Who owns what is restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ownership {
    /// As in the source. Only a superuser can do that.
    AsDumped,
    /// One role, which owns everything in the source, too. SQL of the archive runs as it.
    Single(String),
    /// The login.
    Login,
}

impl Ownership {
    /// The role that SQL of the archive runs as, if it is not the login.
    pub(super) fn role(&self) -> Option<&str> {
        match self {
            Self::Single(role) => Some(role),
            Self::AsDumped | Self::Login => None,
        }
    }

    pub(super) fn as_dumped(&self) -> bool {
        *self == Self::AsDumped
    }
}

/// The roles that own something. The source database itself is not restored.
pub(super) fn owners(entries: &[Entry]) -> BTreeSet<&str> {
    let of_database = |entry: &&Entry| entry.kind.starts_with("DATABASE") || entry.name.starts_with("DATABASE ");
    let owners = entries.iter().filter(|entry| !of_database(entry)).map(|entry| entry.owner.as_str());
    owners.filter(|owner| !owner.is_empty() && *owner != DATABASE_OWNER).collect()
}

/// `created` are roles that do not exist and will be created.
pub(super) fn ownership(entries: &[Entry], target: &Target, created: &[String]) -> Ownership {
    let owners = owners(entries);
    let single = match owners.iter().next() {
        Some(single) if owners.len() == 1 => *single,
        _ => "",
    };
    let exists = target.roles.iter().any(|role| role.name == single && !role.superuser && role.settable);
    let usable = exists || created.iter().any(|role| role == single);
    // A role that is no superuser can do less harm: it runs functions of the dump.
    if usable && !(target.superuser && needs_superuser(entries, target)) {
        return if single == target.login { Ownership::Login } else { Ownership::Single(single.to_owned()) };
    }
    if target.superuser { Ownership::AsDumped } else { Ownership::Login }
}

fn needs_superuser(entries: &[Entry], target: &Target) -> bool {
    let is_trusted = |extension: &Entry| target.extensions.iter().any(|it| it.name == extension.name && it.trusted);
    entries.iter().any(|entry| match entry.kind.as_str() {
        "EXTENSION" => !is_trusted(entry),
        _ => only_superuser(entry),
    })
}

/// Whether only a superuser can create it, extensions aside.
pub(crate) fn only_superuser(entry: &Entry) -> bool {
    match entry.kind.as_str() {
        "FUNCTION" | "PROCEDURE" => !is_trusted(&entry.create),
        "AGGREGATE" => entry.create.contains("STYPE = internal"),
        "CAST" => entry.create.contains(" WITHOUT FUNCTION"),
        "TYPE" => entry.create.contains("INTERNALLENGTH"),
        "PUBLICATION" => entry.create.contains(" FOR ALL "),
        "ACL" | "DEFAULT ACL" => entry.create.contains("SET SESSION AUTHORIZATION"),
        "FOREIGN TABLE" => reads_the_server(&entry.create),
        kind => OF_SUPERUSERS.contains(&kind),
    }
}

/// Options of `file_fdw`, which reads a file of the server or runs a program there.
fn reads_the_server(create: &str) -> bool {
    let options = ["filename", "program"].map(|option| [format!(" {option} '"), format!(" \"{option}\" '")]);
    options.iter().flatten().any(|option| create.contains(option))
}

fn is_trusted(create: &str) -> bool {
    let language = create.split("LANGUAGE ").nth(1).unwrap_or_default();
    let language = language.split([' ', '\n', ';']).next().unwrap_or_default();
    TRUSTED_LANGUAGES.contains(&language)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &str, name: &str, owner: &str, create: &str) -> Entry {
        let [kind, name, owner, create] = [kind, name, owner, create].map(str::to_owned);
        Entry { kind, name, owner, create, ..Entry::default() }
    }

    fn target(login: &str, superuser: bool) -> Target {
        let role = |name: &str, superuser, settable| Role { name: name.to_owned(), superuser, settable };
        Target {
            login: login.to_owned(),
            superuser,
            roles: vec![role("app", false, superuser || login != "other"), role("postgres", true, superuser)],
            extensions: vec![Available { name: "pg_trgm".into(), version: "1.6".into(), trusted: true }],
            ..Target::default()
        }
    }

    #[test]
    fn sql_of_the_archive_runs_without_superuser_where_that_is_possible() {
        let plain = vec![
            entry("TABLE", "t", "app", ""),
            entry("SCHEMA", "public", DATABASE_OWNER, ""),
            entry("EXTENSION", "pg_trgm", "", ""),
            entry("DATABASE", "shop", "postgres", ""),
            entry("ACL", "DATABASE shop", "postgres", ""),
        ];
        let single = Ownership::Single("app".to_owned());
        assert_eq!(ownership(&plain, &target("rail", false), &[]), single);
        assert_eq!(ownership(&plain, &target("postgres", true), &[]), single);
        assert_eq!(ownership(&plain, &target("app", false), &[]), Ownership::Login);
        assert_eq!(ownership(&plain, &target("other", false), &[]), Ownership::Login, "it cannot become the owner");
        for more in [
            entry("TABLE", "u", "another", ""),
            entry("EXTENSION", "postgis", "", ""),
            entry("FUNCTION", "f()", "app", "CREATE FUNCTION f() RETURNS int\n    LANGUAGE c\n AS 'x';"),
            entry("OPERATOR CLASS", "o", "app", ""),
        ] {
            let entries = [plain.clone(), vec![more]].concat();
            assert_eq!(ownership(&entries, &target("postgres", true), &[]), Ownership::AsDumped);
        }
        let created = vec!["new".to_owned()];
        let of_new = vec![entry("TABLE", "t", "new", "")];
        assert_eq!(ownership(&of_new, &target("rail", false), &created), Ownership::Single("new".to_owned()));
        let of_superuser = vec![entry("TABLE", "t", "postgres", "")];
        assert_eq!(ownership(&of_superuser, &target("postgres", true), &[]), Ownership::AsDumped);
        assert_eq!(ownership(&of_superuser, &target("rail", false), &[]), Ownership::Login);
    }
}
