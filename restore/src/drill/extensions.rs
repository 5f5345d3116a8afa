//! The extensions of a backup, created by the superuser of the throwaway server: only the names are the backup's, the code is
//! that of the server.

use pgrail_dump::{DrillProblem, Entry, Source};
use tokio_postgres::Client;

use crate::database::run;
use crate::outcome::RestoreError;

/// Creates the extensions in the order of the backup, and lets the role use what they need for its rows. Returns the schemas that
/// were created for them.
pub(super) async fn create(
    session: &Client,
    source: &Source,
    entries: &[Entry],
    role: &str,
) -> Result<Vec<String>, DrillProblem> {
    let failed = |name: &str, error: RestoreError| {
        let cause = pgrail_dump::error_chain(&error);
        DrillProblem::NotRun(format!("the drill's server cannot create the extension {name}: {cause}"))
    };
    let mut schemas = Vec::new();
    let of_source = |name: &str| source.extensions.iter().find(|extension| extension.name == name);
    let dumped = entries.iter().filter(|entry| entry.kind == "EXTENSION" && entry.name != "pg_cron");
    for extension in dumped.filter_map(|entry| of_source(&entry.name)) {
        let (name, schema) = (&extension.name, &extension.schema);
        if !exists(session, schema).await.map_err(|error| failed(name, error))? {
            let created = run(session, "CREATE SCHEMA %I AUTHORIZATION %I", &[schema, &role.to_owned()]).await;
            created.map_err(|error| failed(name, error))?;
            schemas.push(schema.clone());
        }
        let created = run(session, "CREATE EXTENSION IF NOT EXISTS %I WITH SCHEMA %I", &[name, schema]).await;
        created.map_err(|error| failed(name, error))?;
    }
    grant(session, role).await.map_err(|error| failed("of the backup", error))?;
    Ok(schemas)
}

async fn exists(session: &Client, schema: &str) -> Result<bool, RestoreError> {
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname = $1::text)";
    let row = session.query_one(sql, &[&schema]).await.map_err(RestoreError::of_database)?;
    row.try_get(0).map_err(RestoreError::of_database)
}

/// The rows of an extension's tables are in the backup, and foreign tables are of its wrappers.
async fn grant(session: &Client, role: &str) -> Result<(), RestoreError> {
    let sql = "SELECT pg_catalog.format('GRANT ALL ON TABLE %I.%I TO %I', n.nspname, c.relname, $1::text) \
         FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class c ON c.oid = d.objid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype = 'e' AND c.relkind IN ('r', 'p', 'S') \
         UNION ALL SELECT pg_catalog.format('GRANT USAGE ON FOREIGN DATA WRAPPER %I TO %I', f.fdwname, $1::text) \
         FROM pg_catalog.pg_foreign_data_wrapper f";
    for row in session.query(sql, &[&role]).await.map_err(RestoreError::of_database)? {
        session.batch_execute(row.get(0)).await.map_err(RestoreError::of_database)?;
    }
    Ok(())
}
