//! The database of a command, said in every way that PostgreSQL's own clients know.

use super::{Shop, err, out, pgrail};
use pgrail_testing::server;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

fn status(folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = pgrail(folder, &["status"]);
    command.args(args).envs(variables.iter().copied()).output().unwrap()
}

#[tokio::test]
async fn variables_keywords_and_password_files_lead_to_the_database() {
    let server = server(18);
    let shop = Shop::new(server.database("cli").await).await;
    let role = server.role_name("client");
    let admin = shop.database.connect().await;
    admin.batch_execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'it''s: secret'")).await.unwrap();
    let url = url::Url::parse(&shop.database.uri).unwrap();
    let (host, port) = (url.host_str().unwrap().to_owned(), url.port().unwrap().to_string());
    let name = shop.database.name.clone();
    let reached = |output: &Output| {
        assert_eq!(output.status.code(), Some(0), "{}", err(output));
        assert!(out(output).contains("nothing of pgrail"), "{}", out(output));
        assert!(!err(output).contains("secret"), "{}", err(output));
    };
    let variables = [("PGHOST", host.as_str()), ("PGPORT", &port), ("PGDATABASE", &name), ("PGUSER", &role)];
    let with = |more: &[(&'static str, &str)]| -> Vec<(String, String)> {
        variables.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let given = |variables: Vec<(String, String)>, args: &[&str]| {
        let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        status(shop.path(), args, &variables)
    };
    reached(&given(with(&[("PGPASSWORD", "it's: secret")]), &[]));
    let keywords = format!("host={host} port={port} dbname={name} user={role} password='it\\'s: secret'");
    let argument = status(shop.path(), &["--database-url", &keywords], &[]);
    reached(&argument);
    assert!(err(&argument).contains("shows in the list of processes"), "{}", err(&argument));
    let variable = status(shop.path(), &[], &[("DATABASE_URL", &keywords)]);
    reached(&variable);
    assert_eq!(err(&variable), "");

    // A password file, which counts only where nobody else can read it.
    let file = shop.path().join("passwords");
    std::fs::write(&file, format!("# comment\n{host}:{port}:{name}:{role}:it's\\: secret\n")).unwrap();
    let path = file.to_str().unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let open = given(with(&[("PGPASSFILE", path)]), &[]);
    assert_eq!(open.status.code(), Some(1));
    assert!(err(&open).contains("ignored, since others can read it"), "{}", err(&open));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    reached(&given(with(&[("PGPASSFILE", path)]), &[]));
    std::fs::rename(&file, shop.path().join(".pgpass")).unwrap();
    reached(&given(with(&[("HOME", shop.path().to_str().unwrap())]), &[]));

    // A file with the URL that others can read is said.
    let file = shop.path().join("url");
    std::fs::write(&file, &keywords).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    let readable = status(shop.path(), &["--database-url-file", "url"], &[]);
    reached(&readable);
    assert!(err(&readable).contains("others can read the password"), "{}", err(&readable));

    let none = status(shop.path(), &[], &[]);
    assert!(none.status.code() == Some(1) && err(&none).contains("PGHOST"), "{}", err(&none));
    let wrong = given(with(&[("PGSSLMODE", "sometimes")]), &[]);
    assert!(wrong.status.code() == Some(1) && err(&wrong).contains("PGSSLMODE"), "{}", err(&wrong));

    // A missing privilege names its grant.
    admin.batch_execute(&format!("REVOKE CONNECT ON DATABASE {name} FROM PUBLIC")).await.unwrap();
    let refused = given(with(&[("PGPASSWORD", "it's: secret")]), &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(err(&refused).contains("GRANT CONNECT ON DATABASE"), "{}", err(&refused));
    admin.batch_execute(&format!("DROP ROLE {role}")).await.unwrap();
    shop.database.finish().await;
}
