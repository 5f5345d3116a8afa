//! `pgrail grants`

use super::CommandError;
use pgrail_guard::grants::{GrantsFor, Platform, sql};
use std::io::Write;
use std::process::ExitCode;

/// Options of `pgrail grants`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pgrail grants --platform supabase --table-owner postgres | psql -v ON_ERROR_STOP=1 \"$ADMIN_URL\""
)]
pub(super) struct GrantsArgs {
    /// Where the server runs
    #[arg(long, default_value = "plain", value_parser = Platform::ALL.map(|(name, _)| name))]
    platform: String,
    /// pgrail's login role
    #[arg(long, default_value = "pgrail")]
    role: String,
    /// The database
    #[arg(long, default_value = "postgres")]
    database: String,
    /// A role that owns tables to be guarded (may be repeated); without one guards are weaker
    #[arg(long = "table-owner", value_name = "ROLE")]
    table_owners: Vec<String>,
    /// A schema of tables to be guarded (may be repeated)
    #[arg(long = "schema", default_value = "public")]
    schemas: Vec<String>,
    /// Leave out what only backups need
    #[arg(long)]
    no_backups: bool,
}

/// Prints the SQL.
pub(super) fn run(args: &GrantsArgs) -> Result<ExitCode, CommandError> {
    let platform = Platform::named(&args.platform)
        .ok_or_else(|| CommandError::Refused(format!("no such platform: {}", args.platform)))?;
    let text = sql(&GrantsFor {
        platform,
        role: args.role.clone(),
        database: args.database.clone(),
        table_owners: args.table_owners.clone(),
        schemas: args.schemas.clone(),
        backups: !args.no_backups,
    });
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
