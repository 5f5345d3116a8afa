//! Creates the database and missing roles, and removes them after an error.

use pgrail_dump::Manifest;
use pgrail_dump::create_database::{self, LocaleError};
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::DatabaseRequest;
use super::check::Plan;
use super::target::{Ownership, mark_of};
use crate::outcome::RestoreError;
use crate::session;

/// What was created.
pub(super) struct Created {
    pub(super) database: String,
    pub(super) owner: String,
    pub(super) roles: Vec<String>,
}

pub(super) async fn create(
    request: &DatabaseRequest,
    plan: &Plan,
    manifest: &Manifest,
    session: &Client,
) -> Result<Created, RestoreError> {
    let mut created = Created { database: String::new(), owner: plan.owner.clone(), roles: Vec::new() };
    let attempted = attempt(request, plan, manifest, session, &mut created).await;
    let Err(error) = attempted else { return Ok(created) };
    let left = remove(session, &created).await;
    Err(if left.is_empty() { error } else { RestoreError::Left { error: Box::new(error), left: left.join("; ") } })
}

async fn attempt(
    request: &DatabaseRequest,
    plan: &Plan,
    manifest: &Manifest,
    session: &Client,
    created: &mut Created,
) -> Result<(), RestoreError> {
    if plan.replaces {
        run(session, "DROP DATABASE %I WITH (FORCE)", &[&request.name]).await?;
    }
    for role in &plan.missing_roles {
        // Without LOGIN and a password: it owns objects, or has privileges on them.
        run(session, "CREATE ROLE %I NOLOGIN", &[role]).await?;
        created.roles.push(role.clone());
        if !plan.target.superuser && plan.ownership == Ownership::Single(role.clone()) {
            run(session, "GRANT %I TO CURRENT_USER", &[role]).await?;
        }
    }
    let (name, owner, encoding) = (&request.name, &plan.owner, &manifest.encoding);
    let source = manifest.source.clone().unwrap_or_default();
    let statement = create_database::statement(session, name, owner, encoding, &source, plan.major).await;
    let statement = statement.map_err(|error| match error {
        LocaleError::TooOld(problem) => RestoreError::Request(problem),
        LocaleError::Query(error) => RestoreError::of_database(error),
    })?;
    session.batch_execute(&statement).await.map_err(RestoreError::of_database)?;
    created.database.clone_from(&request.name);
    // Of the database's owner: the login may be a member that does not inherit its privileges.
    let as_owner = plan.ownership.role();
    if let Some(role) = as_owner {
        set_role(session, role).await?;
    }
    run(session, "COMMENT ON DATABASE %I IS %L", &[&request.name, &mark_of(&request.id)]).await?;
    // It holds everything that the source holds, whose own privileges on the database are not in the dump.
    run(session, "REVOKE CONNECT ON DATABASE %I FROM PUBLIC", &[&request.name]).await?;
    run(session, "GRANT CONNECT ON DATABASE %I TO %I", &[&request.name, &plan.target.login]).await?;
    if as_owner.is_some() {
        session.batch_execute("RESET ROLE").await.map_err(RestoreError::of_database)?;
    }
    Ok(())
}

/// Runs a statement whose names and texts the server quotes.
pub(crate) async fn run(session: &Client, format: &str, arguments: &[&String]) -> Result<(), RestoreError> {
    let places = (1..=arguments.len()).map(|place| format!("${place}::text")).collect::<Vec<_>>().join(", ");
    let parameters: Vec<&(dyn ToSql + Sync)> = arguments.iter().map(|it| *it as &(dyn ToSql + Sync)).collect();
    let quote = format!("SELECT pg_catalog.format('{format}', {places})");
    let row = session.query_one(&quote, &parameters).await.map_err(RestoreError::of_database)?;
    let statement: String = row.try_get(0).map_err(RestoreError::of_database)?;
    session.batch_execute(&statement).await.map_err(RestoreError::of_database)
}

pub(super) async fn set_role(session: &Client, role: &str) -> Result<(), RestoreError> {
    run(session, "SET ROLE %I", &[&role.to_owned()]).await
}

/// Drops the database and the roles. Returns what is left, and why.
pub(super) async fn remove(session: &Client, created: &Created) -> Vec<String> {
    let mut left = Vec::new();
    // The role of the owner may still be set.
    let _ = session.batch_execute("RESET ROLE").await;
    if !created.database.is_empty() {
        let database = &created.database;
        let dropped = run(session, "DROP DATABASE IF EXISTS %I WITH (FORCE)", &[database]).await;
        if let Err(error) = dropped {
            left.push(format!("the database {database} ({error})"));
        }
    }
    for role in &created.roles {
        if let Err(error) = run(session, "DROP ROLE IF EXISTS %I", &[role]).await {
            left.push(format!("the role {role} ({error})"));
        }
    }
    left
}

/// What is left if there is no session to remove it.
pub(super) fn everything(created: &Created, problem: &RestoreError) -> Vec<String> {
    let database = std::iter::once(format!("the database {} ({problem})", created.database));
    database.chain(created.roles.iter().map(|role| format!("the role {role}"))).collect()
}

/// Replaces the comment of the unfinished database.
pub(super) async fn finish(
    request: &DatabaseRequest,
    created: &Created,
    manifest: &Manifest,
) -> Result<(), RestoreError> {
    let session = session::open(&request.connection, &request.addresses).await?;
    if created.owner != request.connection.user {
        // A superuser needs no role, and any other login is a member of the owner.
        set_role(&session, &created.owner).await?;
    }
    let comment = format!("restored by pgrail from {} of {}", manifest.location, manifest.snapshot_time);
    run(&session, "COMMENT ON DATABASE %I IS %L", &[&created.database, &comment]).await
}

/// Sets what `ALTER DATABASE … SET` had set in the source, if every role could set it. The others are named.
pub(crate) async fn apply_settings(
    session: &Client,
    database: &str,
    manifest: &Manifest,
) -> Result<Vec<String>, RestoreError> {
    let mut others = Vec::new();
    for setting in manifest.source.iter().flat_map(|source| &source.settings) {
        let Some(value) = &setting.value else {
            others.push(setting.name.clone());
            continue;
        };
        let of_users =
            "SELECT pg_catalog.count(*) FROM pg_catalog.pg_settings s WHERE s.name = $1 AND s.context = 'user'";
        let row = session.query_one(of_users, &[&setting.name]).await.map_err(RestoreError::of_database)?;
        if row.try_get::<_, i64>(0).map_err(RestoreError::of_database)? == 0
            || set(session, database, &setting.name, value).await.is_err()
        {
            others.push(setting.name.clone());
        }
    }
    if others.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![format!("settings of the database that are not restored: {}", others.join(", "))])
}

/// `FROM CURRENT`: lists like that of search_path need no quoting of ours.
async fn set(session: &Client, database: &str, name: &str, value: &str) -> Result<(), RestoreError> {
    let quote = "SELECT pg_catalog.format('BEGIN; SELECT pg_catalog.set_config(%L, %L, true); ALTER DATABASE %I SET %I FROM CURRENT; COMMIT', \
         $1::text, $2::text, $3::text, $1::text)";
    let row = session.query_one(quote, &[&name, &value, &database]).await.map_err(RestoreError::of_database)?;
    let statements: String = row.try_get(0).map_err(RestoreError::of_database)?;
    let done = session.batch_execute(&statements).await.map_err(RestoreError::of_database);
    if done.is_err() {
        session.batch_execute("ROLLBACK").await.map_err(RestoreError::of_database)?;
    }
    done
}
