//! A schema copied from one database into another: pg_dump into pg_restore, without a file in between.

use pgrail_postgres::{ConnectionSettings, Reached};
use tokio::io::AsyncWriteExt;

use crate::{
    ClientTools, ExtractError,
    connection::Environment,
    load::{Tolerance, connect_to},
};

/// One end of a copy.
#[derive(Debug, Clone)]
pub struct CopyEnd {
    /// The database.
    pub connection: ConnectionSettings,
    /// Address and TLS of a session that exists.
    pub reached: Reached,
    /// The role that is set, if it is not the login.
    pub role: Option<String>,
}

/// Copies everything in a schema into a schema of the same name that exists and is empty. The login of the target owns it.
///
/// # Errors
/// What was copied until then is in the target.
pub async fn copy_schema(
    tools: &ClientTools,
    source: &CopyEnd,
    target: &CopyEnd,
    target_major: u32,
    schema: &str,
) -> Result<(), ExtractError> {
    let tolerance = Tolerance::of(tools, target_major);
    let from = Environment::new(&source.connection, &source.reached).map_err(ExtractError::File)?;
    let to = Environment::new(&target.connection, &target.reached).map_err(ExtractError::File)?;
    let role = |end: &CopyEnd| end.role.iter().map(|role| format!("--role={role}")).collect::<Vec<_>>();
    let mut arguments: Vec<String> =
        ["--format=custom", "--compress=0", "--no-password", "--no-owner", "--no-acl"].map(str::to_owned).into();
    arguments.extend(["--no-publications", "--no-subscriptions", "--no-security-labels"].map(str::to_owned));
    // A pattern in quotes is a name.
    arguments.push(format!("--schema=\"{}\"", schema.replace('"', "\"\"")));
    arguments.extend(role(source));
    let mut dump = tools.start("pg_dump", arguments, Some(&from), false, true)?;
    let mut arguments = vec![
        "--format=custom".to_owned(),
        connect_to(&target.connection),
        "--no-password".to_owned(),
        "--no-owner".to_owned(),
    ];
    // Its entries only, not CREATE SCHEMA.
    arguments.push(format!("--schema={schema}"));
    arguments.extend(tolerance.argument().map(str::to_owned));
    arguments.extend(role(target));
    let mut restore = tools.start("pg_restore", arguments, Some(&to), true, false)?;
    let (output, input) = (dump.output.take(), restore.input.take());
    let passed = async {
        let (Some(mut output), Some(mut input)) = (output, input) else { return Ok(()) };
        tokio::io::copy(&mut output, &mut input).await?;
        input.shutdown().await
    };
    let problems = restore.problems();
    let passed = tokio::select! {
        passed = passed => passed,
        () = problems.more_than(tolerance.errors()) => {
            restore.kill().await;
            Ok(())
        }
    };
    // The first that failed is the cause: the other one's pipe breaks.
    let restored = tolerance.end(&mut restore).await;
    if restored.is_err() {
        dump.kill().await;
    }
    restored.map_err(ExtractError::Load)?;
    dump.wait().await.map_err(ExtractError::Load)?;
    passed.map_err(ExtractError::Sink)
}
