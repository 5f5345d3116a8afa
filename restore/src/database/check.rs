//! Checks before anything is created.

use std::collections::BTreeSet;

use pgrail_dump::{ClientTools, Entry, Extract, Manifest, Rights, Source, restorable};
use pgrail_rows::READING;
use tokio_postgres::Client;

use super::DatabaseRequest;
use super::target::{Ownership, Target, mark_of, owners, ownership};
use crate::outcome::RestoreError;

/// Extensions whose own procedure a restore must follow, and what that is.
const WITH_PROCEDURE: [(&str, &str); 1] =
    [("timescaledb", "it needs timescaledb_pre_restore() and timescaledb_post_restore(), and starts its jobs")];
/// Left out: its jobs would run, and it can be created in one database of a server only.
const PG_CRON: &str = "pg_cron";

/// What is created, and how it is filled.
pub(super) struct Plan {
    pub(super) target: Target,
    pub(super) major: u32,
    pub(super) ownership: Ownership,
    /// The owner of the database.
    pub(super) owner: String,
    /// Roles to be created.
    pub(super) missing_roles: Vec<String>,
    /// Whether an unfinished database of the same restore is replaced.
    pub(super) replaces: bool,
    pub(super) entries: Vec<u32>,
    /// `schema.table` of tables whose rows are not restored.
    pub(super) left_out: Vec<String>,
    pub(super) tablespaces: bool,
    pub(super) notes: Vec<String>,
}

/// What is restored into the new database.
#[derive(Clone, Copy)]
pub(super) enum Scope<'a> {
    /// Everything, with the owners and privileges of the source.
    Whole,
    /// These entries. Roles of the source are not needed.
    Entries(&'a [Entry]),
}

pub(super) async fn check(
    request: &DatabaseRequest,
    extract: &Extract,
    scope: Scope<'_>,
    tools: &ClientTools,
    session: &Client,
) -> Result<Plan, RestoreError> {
    let manifest = extract.manifest();
    let Some(source) = &manifest.source else {
        return refuse("the backup does not describe its database, since an earlier version made it: use pg_restore");
    };
    let (made_by, reader) = (major_of(&manifest.client_version), tools.major());
    if made_by > reader {
        return refuse(format!("the backup was made by pg_dump {made_by}, and pg_restore {reader} cannot read it"));
    }
    if request.name.is_empty() || request.name.len() > 63 || request.name.contains('\0') {
        return refuse(format!("{:?} cannot be the name of a database: it must have 1 to 63 bytes", request.name));
    }
    let entries = match scope {
        Scope::Whole => extract.entries().await?,
        Scope::Entries(entries) => entries.to_vec(),
    };
    let whole = matches!(scope, Scope::Whole);
    let roles = roles(source, &entries);
    let target = observe(request, source, &roles, session).await?;
    let replaces = check_target(request, manifest, &target)?;
    let mut notes = check_extensions(source, &entries, &target)?;
    let missing_roles = if whole { missing_roles(&roles, &target)? } else { Vec::new() };
    let missing_spaces: Vec<_> =
        source.tablespaces.iter().filter(|space| !target.tablespaces.contains(space)).cloned().collect();
    if !missing_spaces.is_empty() {
        let which = missing_spaces.join(", ");
        notes.push(format!("everything is in the default tablespace, since these cannot be used: {which}"));
    }
    let ownership = match ownership(&entries, &target, &missing_roles) {
        Ownership::AsDumped if !whole => Ownership::Login,
        ownership => ownership,
    };
    let rights = match &ownership {
        Ownership::Single(role) => Rights { superuser: false, owner: Some(role.clone()) },
        Ownership::Login => Rights { superuser: target.superuser, owner: Some(target.login.clone()) },
        Ownership::AsDumped => Rights { superuser: true, owner: None },
    };
    let mut restorable = restorable(&entries, &rights);
    notes.append(&mut restorable.notes);
    let owner = match &ownership {
        Ownership::Single(role) => role.clone(),
        Ownership::AsDumped if target.roles.iter().any(|role| role.name == source.owner) => source.owner.clone(),
        Ownership::AsDumped | Ownership::Login => target.login.clone(),
    };
    let others: Vec<_> = owners(&entries).into_iter().filter(|name| *name != owner).map(str::to_owned).collect();
    if ownership == Ownership::Login && !others.is_empty() {
        notes.push(format!(
            "{owner} owns everything, since only a superuser can restore several owners: {}",
            others.join(", ")
        ));
    }
    if ownership == Ownership::AsDumped {
        let login = &target.login;
        notes.push(format!("functions of the backup that the restore had to call ran as the superuser {login}"));
    }
    let data = entries.iter().filter(|entry| entry.kind == "TABLE DATA" && !restorable.entries.contains(&entry.number));
    let left_out = data.map(|entry| format!("{}.{}", entry.schema, entry.name)).collect();
    Ok(Plan {
        major: target.major,
        ownership,
        owner,
        missing_roles,
        replaces,
        entries: restorable.entries,
        left_out,
        tablespaces: missing_spaces.is_empty(),
        notes,
        target,
    })
}

fn refuse<T>(problem: impl Into<String>) -> Result<T, RestoreError> {
    Err(RestoreError::Request(problem.into()))
}

/// The roles that the backup refers to. Predefined roles exist everywhere.
fn roles(source: &Source, entries: &[Entry]) -> Vec<String> {
    let named = source.roles.iter().map(String::as_str).chain(owners(entries));
    let roles: BTreeSet<&str> = named.filter(|name| !name.starts_with("pg_")).collect();
    roles.into_iter().map(str::to_owned).collect()
}

async fn observe(
    request: &DatabaseRequest,
    source: &Source,
    roles: &[String],
    session: &Client,
) -> Result<Target, RestoreError> {
    session.batch_execute(&READING.replace("SET LOCAL", "SET")).await.map_err(RestoreError::of_database)?;
    let extensions: Vec<_> = source.extensions.iter().map(|extension| &extension.name).collect();
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&request.name, &roles, &extensions, &source.tablespaces];
    let row = session.query_one(include_str!("../sql/target.sql"), &parameters).await;
    let described: String = row.and_then(|row| row.try_get(0)).map_err(RestoreError::of_database)?;
    Ok(serde_json::from_str(&described)?)
}

/// Whether an unfinished database of the same restore exists.
fn check_target(request: &DatabaseRequest, manifest: &Manifest, target: &Target) -> Result<bool, RestoreError> {
    let login = &target.login;
    if target.standby {
        return refuse("the server is a standby: connect to the primary");
    }
    if !target.create_db {
        return Err(RestoreError::Rights(format!("{login} cannot create a database: ALTER ROLE {login} CREATEDB")));
    }
    let made_on = major_of(&manifest.server_version);
    if made_on > target.major {
        return refuse(format!(
            "the backup is of PostgreSQL {made_on}, and the server is {}: restore it on {made_on} or later",
            target.version
        ));
    }
    match &target.mark {
        None => Ok(false),
        Some(mark) if *mark == mark_of(&request.id) => Ok(true),
        Some(mark) => {
            let name = &request.name;
            let unfinished = if mark.starts_with(&mark_of("")) { ", left by an unfinished restore" } else { "" };
            refuse(format!("the database {name} exists{unfinished}: drop it, or choose another name"))
        }
    }
}

/// Notes on versions.
fn check_extensions(source: &Source, entries: &[Entry], target: &Target) -> Result<Vec<String>, RestoreError> {
    let (mut notes, mut missing) = (Vec::new(), Vec::new());
    for extension in &source.extensions {
        let name = &extension.name;
        if name == PG_CRON || !entries.iter().any(|entry| entry.kind == "EXTENSION" && entry.name == *name) {
            continue;
        }
        if let Some((_, procedure)) = WITH_PROCEDURE.iter().find(|(known, _)| known == name) {
            return refuse(format!("the database has the extension {name}, which pgrail cannot restore: {procedure}"));
        }
        match target.extensions.iter().find(|it| it.name == *name) {
            None => missing.push(format!("{name} {}", extension.version)),
            Some(there) if there.version != extension.version => {
                notes.push(format!(
                    "the extension {name} has version {} instead of {}",
                    there.version, extension.version
                ));
            }
            Some(_) => {}
        }
    }
    if missing.is_empty() {
        return Ok(notes);
    }
    refuse(format!("the server lacks extensions of the backup: install {}", missing.join(", ")))
}

/// Roles of the backup that do not exist, if the login can create them.
fn missing_roles(roles: &[String], target: &Target) -> Result<Vec<String>, RestoreError> {
    let exists = |name: &String| target.roles.iter().any(|role| role.name == *name);
    let missing: Vec<String> = roles.iter().filter(|name| !exists(name)).cloned().collect();
    if missing.is_empty() || target.create_role {
        return Ok(missing);
    }
    let login = &target.login;
    Err(RestoreError::Rights(format!(
        "roles of the backup do not exist, and {login} cannot create them: create {}, or ALTER ROLE {login} CREATEROLE",
        missing.join(", ")
    )))
}

fn major_of(version: &str) -> u32 {
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_default()
}
