//! libpq programs with the environment of `libpq_environment`.

use std::process::Output;

use pgrail_postgres::{ConnectionSettings, LIBPQ_VARIABLES, Reached, TlsMode, connect};
use pgrail_testing::{Server, authority_file, for_each_server, other_authority_file, plain_server, programs, server};
use tokio::process::Command;

use crate::{of_uri, with_mode};

async fn psql(major: u32, settings: &ConnectionSettings, authority: bool, reached: Option<&Reached>) -> Output {
    let mut command = Command::new(programs(major).join("psql"));
    command.args(["-XAtc", "SELECT current_database() || ' ' || ssl || ' ' || application_name FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE pid = pg_backend_pid()"]);
    // Settings of the operating system user must have no effect.
    command.env("PGOPTIONS", "-c search_path=nowhere").env("PGSERVICE", "none").env("PGHOST", "nowhere.invalid");
    for variable in LIBPQ_VARIABLES {
        command.env_remove(variable);
    }
    let file = authority_file();
    command.envs(settings.libpq_environment(authority.then_some(file.as_path()), reached)).output().await.unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn stderr(output: &Output) -> String {
    assert!(!output.status.success(), "it succeeded: {}", stdout(output));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn psql_connects_with_the_same_settings() {
    for_each_server(async |server| {
        let database = server.database("connect").await;
        for mode in [TlsMode::Disable, TlsMode::Prefer, TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull] {
            let mut settings = of_uri(&database.uri);
            settings.tls = mode;
            settings.ca_pem = (mode >= TlsMode::VerifyCa).then(|| std::fs::read(authority_file()).unwrap());
            let reached = connect(&settings).await.unwrap().reached();
            let output = psql(server.major, &settings, settings.ca_pem.is_some(), Some(&reached)).await;
            let expected = format!("{} {} pgrail", database.name, mode != TlsMode::Disable);
            assert_eq!(stdout(&output), expected, "{mode}: {}", String::from_utf8_lossy(&output.stderr));
        }
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn psql_verifies_the_host_name_with_a_given_address() {
    for_each_server(async |server| {
        let mut settings = with_mode(&server, TlsMode::VerifyFull, Some(&authority_file()));
        settings.host = "elsewhere.example".into();
        let reached = Reached { address: Some("127.0.0.1".parse().unwrap()), local_port: None, encrypted: true };
        let errors = stderr(&psql(server.major, &settings, true, Some(&reached)).await);
        assert!(errors.contains("does not match host name"), "{errors}");
    })
    .await;
}

#[tokio::test]
async fn psql_does_not_fall_back_to_clear_text() {
    let settings = with_mode(&plain_server(), TlsMode::Prefer, None);
    let reached = Reached { address: Some("127.0.0.1".parse().unwrap()), local_port: None, encrypted: true };
    let major = plain_server().major;
    let errors = stderr(&psql(major, &settings, false, Some(&reached)).await);
    assert!(errors.contains("server does not support SSL"), "{errors}");
    assert!(psql(major, &settings, false, None).await.status.success());
}

#[tokio::test]
async fn psql_18_sends_no_password_in_clear() {
    let newest: Server = server(18);
    let mut settings = with_mode(&newest, TlsMode::Require, None);
    settings.user = "hba_cleartext".into();
    let errors = stderr(&psql(18, &settings, false, None).await);
    assert!(errors.contains("requested") || errors.contains("requirement"), "{errors}");
    let mut settings = with_mode(&newest, TlsMode::VerifyFull, Some(&authority_file()));
    settings.user = "hba_cleartext".into();
    assert!(psql(18, &settings, true, None).await.status.success());
    // The test helper can also fail because of the CA.
    settings.ca_pem = Some(std::fs::read(other_authority_file()).unwrap());
    assert!(connect(&settings).await.is_err());
}
