//! libpq's own programs with the environment we make for them.

use std::process::Output;

use pgrail_postgres::{ConnectionSettings, LIBPQ_VARIABLES, Reached, TlsMode, connect};
use pgrail_testing::{Server, authority_file, for_each_server, other_authority_file, plain_server, programs, server};
use tokio::process::Command;

use crate::{of_uri, with_mode};

async fn psql(major: u32, settings: &ConnectionSettings, authority: bool, reached: Option<&Reached>) -> Output {
    let mut command = Command::new(programs(major).join("psql"));
    command.args(["-XAtc", "SELECT current_database() || ' ' || ssl || ' ' || application_name FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE pid = pg_backend_pid()"]);
    // What the account may have set must not matter.
    command.env("PGOPTIONS", "-c search_path=nowhere").env("PGSERVICE", "none").env("PGHOST", "nowhere.invalid");
    for variable in LIBPQ_VARIABLES {
        command.env_remove(variable);
    }
    let file = authority_file();
    command.envs(settings.libpq_environment(authority.then_some(file.as_path()), reached)).output().await.unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn complained(output: &Output) -> String {
    assert!(!output.status.success(), "it succeeded: {}", said(output));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn psql_gets_to_where_we_got() {
    for_each_server(async |server| {
        let database = server.database("connect").await;
        for mode in [TlsMode::Disable, TlsMode::Prefer, TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull] {
            let mut settings = of_uri(&database.uri);
            settings.tls = mode;
            settings.ca_pem = (mode >= TlsMode::VerifyCa).then(|| std::fs::read(authority_file()).unwrap());
            let reached = connect(&settings).await.unwrap().reached();
            let output = psql(server.major, &settings, settings.ca_pem.is_some(), Some(&reached)).await;
            let expected = format!("{} {} pgrail", database.name, mode != TlsMode::Disable);
            assert_eq!(said(&output), expected, "{mode}: {}", String::from_utf8_lossy(&output.stderr));
        }
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn psql_checks_the_name_though_it_is_given_the_address() {
    for_each_server(async |server| {
        let mut settings = with_mode(&server, TlsMode::VerifyFull, Some(&authority_file()));
        settings.host = "elsewhere.example".into();
        let reached = Reached { address: Some("127.0.0.1".parse().unwrap()), local_port: None, encrypted: true };
        let complaint = complained(&psql(server.major, &settings, true, Some(&reached)).await);
        assert!(complaint.contains("does not match host name"), "{complaint}");
    })
    .await;
}

#[tokio::test]
async fn psql_does_not_fall_back_where_we_had_tls() {
    let settings = with_mode(&plain_server(), TlsMode::Prefer, None);
    let reached = Reached { address: Some("127.0.0.1".parse().unwrap()), local_port: None, encrypted: true };
    let major = plain_server().major;
    let complaint = complained(&psql(major, &settings, false, Some(&reached)).await);
    assert!(complaint.contains("server does not support SSL"), "{complaint}");
    assert!(psql(major, &settings, false, None).await.status.success());
}

#[tokio::test]
async fn psql_18_sends_no_password_in_clear() {
    let newest: Server = server(18);
    let mut settings = with_mode(&newest, TlsMode::Require, None);
    settings.user = "hba_cleartext".into();
    let complaint = complained(&psql(18, &settings, false, None).await);
    assert!(complaint.contains("requested") || complaint.contains("requirement"), "{complaint}");
    let mut settings = with_mode(&newest, TlsMode::VerifyFull, Some(&authority_file()));
    settings.user = "hba_cleartext".into();
    assert!(psql(18, &settings, true, None).await.status.success());
    // The helper itself can fail on the authority.
    settings.ca_pem = Some(std::fs::read(other_authority_file()).unwrap());
    assert!(connect(&settings).await.is_err());
}
