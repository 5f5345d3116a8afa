//! The least privileges of pgrail's role, as SQL for a database's administrator to run.

use serde_json::json;

/// Where the server runs: what an administrator may do differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Platform {
    /// A server of one's own, with a superuser.
    Plain,
    /// CloudNativePG: a superuser by `kubectl cnpg psql`.
    CloudNativePg,
    /// Amazon RDS and Aurora: `rds_superuser`, no superuser.
    Rds,
    /// Google Cloud SQL: `cloudsqlsuperuser`, no superuser.
    CloudSql,
    /// Supabase: `postgres` owns the tables and is no superuser.
    Supabase,
}

impl Platform {
    /// Every platform, by the name the command line knows it by.
    pub const ALL: [(&'static str, Self); 5] = [
        ("plain", Self::Plain),
        ("cloudnative-pg", Self::CloudNativePg),
        ("rds", Self::Rds),
        ("cloud-sql", Self::CloudSql),
        ("supabase", Self::Supabase),
    ];

    /// The platform with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, platform)| *platform)
    }
}

/// Whom to grant what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantsFor {
    /// Where the server runs.
    pub platform: Platform,
    /// pgrail's login role.
    pub role: String,
    /// The database.
    pub database: String,
    /// The roles that own the tables to be guarded. None: `TRIGGER` alone is granted, and guards are `Degraded`.
    pub table_owners: Vec<String>,
    /// The schemas of the tables to be guarded.
    pub schemas: Vec<String>,
    /// Whether the role also takes backups, which read everything.
    pub backups: bool,
}

/// The SQL, in one transaction, with a comment that says why for each grant. Without a password: set one, or let the
/// platform. What an administrator without superuser may not be able to grant is tried, and replaced by what is next best,
/// with a warning that says what it means.
pub fn sql(grants: &GrantsFor) -> String {
    let role = identifier(&grants.role);
    let database = identifier(&grants.database);
    let managed = matches!(grants.platform, Platform::Rds | Platform::CloudSql | Platform::Supabase);
    let mut lines = vec![
        "-- Run in the database itself, as its administrator: psql -v ON_ERROR_STOP=1 -f FILE. One transaction: after an error,".to_owned(),
        "-- nothing was changed.".to_owned(),
        "BEGIN;".to_owned(),
        format!("-- pgrail's login role. Never the role of an application. Set its password afterwards with: \\password {role}"),
        format!(
            "DO $pgrail$ BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {name}) THEN CREATE ROLE {role} LOGIN; END IF; END $pgrail$;",
            name = literal(&grants.role)
        ),
        format!("GRANT CONNECT ON DATABASE {database} TO {role};"),
        "-- To create the schema pgrail, in which everything of pgrail's lives.".to_owned(),
        format!("GRANT CREATE ON DATABASE {database} TO {role};"),
    ];
    if grants.platform == Platform::CloudNativePg {
        lines.push("-- CloudNativePG resets attributes and memberships that spec.managed.roles of the Cluster does not contain:".to_owned());
        lines.push(format!("-- {}", managed_role(grants)));
    }
    for schema in &grants.schemas {
        lines.push(format!("GRANT USAGE ON SCHEMA {} TO {role};", identifier(schema)));
    }
    let triggers: Vec<String> = grants
        .schemas
        .iter()
        .map(|schema| format!("GRANT TRIGGER ON ALL TABLES IN SCHEMA {} TO {role};", identifier(schema)))
        .collect();
    if grants.table_owners.is_empty() {
        lines.push(
            "-- Enough to stop deletes; not to make the triggers fire always, nor to drop them again.".to_owned(),
        );
        lines.extend(triggers.iter().cloned());
    } else {
        lines.push("-- To install triggers that fire whatever session_replication_role says, pgrail must be able to act as the owner.".to_owned());
        for owner in &grants.table_owners {
            let grant = format!("GRANT {} TO {role};", identifier(owner));
            if managed {
                let warning = format!(
                    "membership in {owner} could not be granted (since PostgreSQL 16, that needs ADMIN OPTION on it, which no role has on \
                     itself). TRIGGER was granted instead: guards are Degraded, and a session that may set \
                     session_replication_role passes them. Give the tables to a role of their own (CREATE ROLE app_owner; ALTER \
                     TABLE ... OWNER TO app_owner), and run this again with --table-owner app_owner"
                );
                lines.push(otherwise(&grant, &triggers, &warning));
            } else {
                lines.push(grant);
            }
        }
    }
    if grants.backups {
        lines.extend(backups(grants, &role, managed));
    }
    lines.push(event_triggers(grants.platform, &role));
    lines.push("COMMIT;".to_owned());
    lines.push(String::new());
    lines.join("\n")
}

/// The entry of `spec.managed.roles` in a Cluster of CloudNativePG, with what the script gives to the role. In one line, whatever
/// the names contain.
fn managed_role(grants: &GrantsFor) -> String {
    let mut roles = grants.table_owners.clone();
    let mut role = json!({"name": grants.role, "login": true});
    if grants.backups {
        role["bypassrls"] = true.into();
        roles.push("pg_read_all_data".to_owned());
    }
    role["inRoles"] = roles.into();
    role.to_string()
}

/// What only backups need: to read every table, whatever its policies.
fn backups(grants: &GrantsFor, role: &str, managed: bool) -> Vec<String> {
    let (read, bypass) = (format!("GRANT pg_read_all_data TO {role};"), format!("ALTER ROLE {role} BYPASSRLS;"));
    let mut lines = vec!["-- Backups read every table, whatever its policies.".to_owned()];
    if !managed {
        lines.extend([read, bypass]);
        return lines;
    }
    let select = |schema: &String| {
        let schema = identifier(schema);
        format!(
            "GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}; GRANT SELECT ON ALL SEQUENCES IN SCHEMA {schema} TO {role};"
        )
    };
    let warning = "pg_read_all_data could not be granted. SELECT on the existing tables of the schemas was granted instead: \
                   run this again for new tables and other schemas, or exclude them from the backups";
    lines.push(otherwise(&read, &grants.schemas.iter().map(select).collect::<Vec<_>>(), warning));
    let warning = "BYPASSRLS could not be given: tables with row level security are refused by backups until they are excluded, \
                   or another login reads them (spec.connection of the BackupSchedule)";
    lines.push(otherwise(&bypass, &[], warning));
    lines
}

/// Tries a statement. Where the administrator may not run it, others are run instead, with a warning.
fn otherwise(statement: &str, instead: &[String], warning: &str) -> String {
    let instead = instead.join("\n  ");
    format!(
        "DO $pgrail$ BEGIN\n  {statement}\nEXCEPTION WHEN insufficient_privilege OR invalid_grant_operation THEN\n  {instead}\n  RAISE WARNING USING MESSAGE = {};\nEND $pgrail$;",
        literal(warning)
    )
}

fn event_triggers(platform: Platform, role: &str) -> String {
    match platform {
        Platform::Plain | Platform::CloudNativePg => {
            "-- Only a superuser may create event triggers: without one, DROP TABLE is held by a view (condition DropProtected: Pinned).".to_owned()
        }
        Platform::Rds => {
            format!("-- Optional: event triggers (against DROP TABLE) need rds_superuser, which may do much more: GRANT rds_superuser TO {role};")
        }
        Platform::CloudSql => {
            "-- Event triggers are not to be had: DROP TABLE is held by a view (condition DropProtected: Pinned).".to_owned()
        }
        Platform::Supabase => {
            "-- Event triggers only as the role postgres itself; as a role of its own, DROP TABLE is held by a view (condition DropProtected: Pinned)."
                .to_owned()
        }
    }
}

/// Always quoted: the text is for any server to read, so it cannot be left to one to quote it.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
