//! The least privileges of pgrail's role, as SQL for a database's administrator to run.

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

/// The SQL, with a comment that says why for each grant. Without a password: set one, or let the platform.
pub fn sql(grants: &GrantsFor) -> String {
    let role = identifier(&grants.role);
    let database = identifier(&grants.database);
    let mut lines = vec![
        "-- Run in the database itself, as its administrator.".to_owned(),
        format!("-- pgrail's login role. Never the role of an application. Set its password with: \\password {role}"),
        format!(
            "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {name}) THEN CREATE ROLE {role} LOGIN; END IF; END $$;",
            name = literal(&grants.role)
        ),
        format!("GRANT CONNECT ON DATABASE {database} TO {role};"),
        "-- To create the schema pgrail, in which everything of pgrail's lives.".to_owned(),
        format!("GRANT CREATE ON DATABASE {database} TO {role};"),
    ];
    for schema in &grants.schemas {
        lines.push(format!("GRANT USAGE ON SCHEMA {} TO {role};", identifier(schema)));
    }
    if grants.table_owners.is_empty() {
        lines.push(
            "-- Enough to stop deletes; not to make the triggers fire always, nor to drop them again.".to_owned(),
        );
        for schema in &grants.schemas {
            lines.push(format!("GRANT TRIGGER ON ALL TABLES IN SCHEMA {} TO {role};", identifier(schema)));
        }
    } else {
        lines.push("-- To install triggers that fire whatever session_replication_role says, pgrail must be able to act as the owner.".to_owned());
        for owner in &grants.table_owners {
            lines.push(format!("GRANT {} TO {role};", identifier(owner)));
        }
    }
    if grants.backups {
        lines.push("-- Backups read every table, whatever its policies.".to_owned());
        lines.push(format!("GRANT pg_read_all_data TO {role};"));
        lines.push(match grants.platform {
            Platform::Plain | Platform::CloudNativePg => format!("ALTER ROLE {role} BYPASSRLS;"),
            Platform::Rds | Platform::CloudSql | Platform::Supabase => {
                format!("ALTER ROLE {role} BYPASSRLS;  -- where the platform allows it; tables with row level security are refused otherwise")
            }
        });
    }
    lines.push(event_triggers(grants.platform, &role));
    lines.push(String::new());
    lines.join("\n")
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
