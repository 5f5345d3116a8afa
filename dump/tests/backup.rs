//! A dump from a real server into real stores, read back and published.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use pgrail_dump::{
    Compression, CompressionMethod, Manifest, Message, PartialCause, Reason, RowCounts, Rows, Store, VerificationLevel,
    dump, verify,
};
use pgrail_testing::{OwnServer, for_each_server, server};
use support::{BLOB, SHOP, SHOP_ROWS, SHOP_TABLES, clients_with, in_parts, quiet, request, stores, verify_request};

#[tokio::test]
async fn a_dump_is_verified_and_published() {
    for_each_server(async |server| {
        let database = server.database("backup").await;
        database.connect().await.batch_execute(SHOP).await.unwrap();
        for store in stores() {
            let request = request(&database);
            let result = dump(&request, &store.store, &quiet).await.unwrap();
            let details = result.details.as_ref().unwrap();
            assert_eq!((result.tables, result.rows, result.large_objects), (SHOP_TABLES, SHOP_ROWS, 2), "{details:#?}");
            assert!(result.size_bytes > 10_000 && result.database_bytes > result.size_bytes);
            assert_eq!(details.contents.table_data, SHOP_TABLES);
            assert!(details.table_rows.iter().all(|table| matches!(table.rows, Rows::Counted(_))));
            assert!(
                !store.list_files().iter().any(|file| file.ends_with("manifest.json")),
                "a dump is not published before it was read back"
            );

            let verified = verify(&verify_request(&result), &store.store, &quiet).await.unwrap();
            assert_eq!(verified.level, VerificationLevel::ReadBack);
            let location = &result.location;
            assert_eq!(location, &request.identity.location().unwrap());
            let mut expected: Vec<_> = ["dump.pgc.000", "globals.sql", "manifest.json"]
                .iter()
                .map(|name| format!("{location}/{name}"))
                .collect();
            expected.sort();
            assert_eq!(store.list_files(), expected, "{}", store.kind);

            let manifest = Manifest::read(&store.store, location).await.unwrap();
            assert_eq!(manifest.identity, request.identity);
            assert_eq!(manifest.sha256, result.sha256);
            assert_eq!(manifest.tables, details.table_rows);
            assert_eq!(manifest.database_name, database.name);
            assert!(!manifest.is_partial() && manifest.remarks.warnings.is_empty());

            // The file is what pg_dump made, and its digest is the one that sha256sum computes.
            let output =
                std::process::Command::new("sha256sum").arg(store.files.join(location).join("dump.pgc.000")).output();
            assert!(String::from_utf8(output.unwrap().stdout).unwrap().starts_with(&result.sha256));

            for message in [Message::Dump(result), Message::Verify(verified)] {
                let text = message.to_json();
                assert!(text.len() <= pgrail_dump::MESSAGE_BYTES);
                assert!(!text.contains(&support::password_of(&server)));
                assert_eq!(Message::parse(&text).unwrap().to_json(), text);
            }
        }
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn counts_from_the_archive_agree_with_the_servers() {
    for_each_server(async |server| {
        let database = server.database("archive").await;
        database.connect().await.batch_execute(SHOP).await.unwrap();
        let store = support::file_store();
        let mut request = request(&database);
        request.row_counts = RowCounts::Archive;
        let result = dump(&request, &store.store, &quiet).await.unwrap();
        assert_eq!((result.tables, result.rows), (SHOP_TABLES, SHOP_ROWS));
        verify(&verify_request(&result), &store.store, &quiet).await.unwrap();
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn an_empty_database_is_a_backup_too() {
    for_each_server(async |server| {
        let database = server.database("empty").await;
        for store in stores() {
            let result = dump(&request(&database), &store.store, &quiet).await.unwrap();
            assert_eq!((result.tables, result.rows), (0, 0));
            verify(&verify_request(&result), &store.store, &quiet).await.unwrap();
        }
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn large_streams_are_cut_into_segments() {
    let server = pgrail_testing::server(18);
    let database = server.database("segments").await;
    let client = database.connect().await;
    client
        .batch_execute(
            "CREATE TABLE blob AS SELECT n, repeat(md5(n::text), 40) AS text FROM generate_series(1, 40000) n",
        )
        .await
        .unwrap();
    for store in stores() {
        let request = in_parts(request(&database), 3);
        let result = dump(&request, &store.store, &quiet).await.unwrap();
        let segments = &result.details.as_ref().unwrap().segments;
        let names: Vec<_> = segments.iter().map(|segment| segment.name.as_str()).collect();
        assert_eq!(names, ["dump.pgc.000", "dump.pgc.001", "dump.pgc.002", "dump.pgc.003"], "{}", store.kind);
        assert!(segments[..3].iter().all(|segment| segment.size_bytes == 15 * 1024 * 1024));
        assert_eq!(segments.iter().map(|segment| segment.size_bytes).sum::<u64>(), result.size_bytes);
        verify(&verify_request(&result), &store.store, &quiet).await.unwrap();
    }
    database.finish().await;
}

#[tokio::test]
async fn every_compression_that_the_client_has() {
    let database = pgrail_testing::server(18).database("compression").await;
    database.connect().await.batch_execute(SHOP).await.unwrap();
    let store = support::file_store();
    for (method, level) in [
        (CompressionMethod::Zstd, Some(3)),
        (CompressionMethod::Zstd, None),
        (CompressionMethod::Gzip, Some(6)),
        (CompressionMethod::Lz4, Some(1)),
        (CompressionMethod::None, None),
    ] {
        let mut request = request(&database);
        request.compression = Compression { method, level };
        let result = dump(&request, &store.store, &quiet).await.unwrap();
        verify(&verify_request(&result), &store.store, &quiet).await.unwrap();
    }
    database.finish().await;
}

#[tokio::test]
async fn counts_are_those_of_the_snapshot_under_concurrent_writes() {
    let server = pgrail_testing::server(18);
    let database = server.database("moving").await;
    let client = database.connect().await;
    client
        .batch_execute("CREATE TABLE a AS SELECT n FROM generate_series(1, 200000) n; CREATE TABLE b (n int)")
        .await
        .unwrap();
    let store = support::file_store();
    let writer = async {
        loop {
            client
                .batch_execute("DELETE FROM a WHERE n % 7 = 0; INSERT INTO b SELECT n FROM a LIMIT 1000")
                .await
                .unwrap();
        }
    };
    let request = request(&database);
    let result = tokio::select! {
        result = dump(&request, &store.store, &quiet) => result.unwrap(),
        () = writer => unreachable!("the writer goes on for ever"),
    };
    verify(&verify_request(&result), &store.store, &quiet).await.unwrap();
    database.finish().await;
}

#[tokio::test]
async fn a_part_of_the_database_is_marked_as_such() {
    for_each_server(async |server| {
        let database = server.database("partial").await;
        database.connect().await.batch_execute(SHOP).await.unwrap();
        let store = support::file_store();
        let mut request = request(&database);
        request.filter.exclude_tables = vec!["public.events_*".into()];
        request.filter.exclude_table_data = vec!["orders".into(), "public.ca?he".into()];
        let result = dump(&request, &store.store, &quiet).await.unwrap();
        assert!(result.partial);
        assert_eq!(result.remarks.partial_because, [PartialCause::ExcludeTables, PartialCause::ExcludeTableData]);
        assert_eq!((result.tables, result.rows), (SHOP_TABLES - 4, SHOP_ROWS - 5000 - 400 - 1));
        verify(&verify_request(&result), &store.store, &quiet).await.unwrap();

        let mut request = support::request(&database);
        request.filter.schemas = vec!["Odd \"*".into()];
        let result = dump(&request, &store.store, &quiet).await.unwrap();
        assert_eq!((result.tables, result.rows, result.large_objects), (1, 2, 0));
        verify(&verify_request(&result), &store.store, &quiet).await.unwrap();
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn configuration_of_extensions_is_dumped_and_not_compared() {
    let database = pgrail_testing::server(18).database("extension").await;
    let client = database.connect().await;
    // A member table whose rows are user data as far as a filter says: a part of it is dumped.
    client
        .batch_execute(
            "CREATE EXTENSION citext; CREATE TABLE settings (name text, own bool);
             INSERT INTO settings VALUES ('a', true), ('b', false);
             ALTER EXTENSION citext ADD TABLE settings;
             CREATE TABLE member (id int); ALTER EXTENSION citext ADD TABLE member; INSERT INTO member VALUES (1);
             UPDATE pg_extension SET extconfig = ARRAY['settings'::regclass::oid], extcondition = ARRAY['WHERE own']
             WHERE extname = 'citext'",
        )
        .await
        .unwrap();
    let store = support::file_store();
    let result = dump(&request(&database), &store.store, &quiet).await.unwrap();
    assert_eq!((result.tables, result.rows), (1, 0));
    assert_eq!(result.details.as_ref().unwrap().table_rows[0].rows, Rows::NotCompared);
    verify(&verify_request(&result), &store.store, &quiet).await.unwrap();
    database.finish().await;
}

#[tokio::test]
async fn names_in_another_encoding() {
    for_each_server(async |server| {
        let database = server.database("latin").await;
        let client = database.connect().await;
        let name = format!("{}_latin", database.name);
        client
            .batch_execute(&format!("CREATE DATABASE \"{name}\" ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"))
            .await
            .unwrap();
        let uri = server.uri_of(&name);
        {
            let latin = pgrail_testing::connect(&uri).await;
            latin.batch_execute("CREATE TABLE \"Übung\" (id int); INSERT INTO \"Übung\" VALUES (1)").await.unwrap();
        }
        let store = support::file_store();
        let result = dump(&support::request_for(&uri, server.major), &store.store, &quiet).await;
        client.batch_execute(&format!("DROP DATABASE \"{name}\" WITH (FORCE)")).await.unwrap();
        let result = result.unwrap();
        let details = result.details.as_ref().unwrap();
        assert_eq!((details.encoding.as_str(), details.table_rows[0].name.as_str()), ("LATIN1", "Übung"));
        verify(&verify_request(&result), &store.store, &quiet).await.unwrap();
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn globals_hold_roles_and_memberships_but_no_secret() {
    for_each_server(async |server| {
        let database = server.database("globals").await;
        let client = database.connect().await;
        let role = server.role_name("globals");
        let group = format!("{role} group's");
        client
            .batch_execute(&format!(
                "CREATE ROLE \"{group}\"; CREATE ROLE {role} LOGIN PASSWORD 'hidden-word' CONNECTION LIMIT 7;
                 GRANT \"{group}\" TO {role}; ALTER ROLE {role} SET app.token = 'hidden-token';
                 CREATE ROLE {role}_other; CREATE TABLE t (id int); GRANT SELECT ON t TO {role}"
            ))
            .await
            .unwrap();
        let store = support::file_store();
        let result = dump(&request(&database), &store.store, &quiet).await.unwrap();
        let file = store.files.join(&result.location).join("globals.sql");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(!text.contains(&format!("{role}_other")), "the database does not refer to it: {text}");
        client.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}, {role}_other")).await.unwrap();
        // It runs, brings back what is missing and leaves alone what is there.
        client.batch_execute(&format!("ALTER ROLE \"{group}\" CONNECTION LIMIT 3")).await.unwrap();
        for statement in text.lines().filter(|line| line.contains(&role)) {
            client.batch_execute(statement).await.unwrap();
        }
        let row = client
            .query_one(
                "SELECT r.rolconnlimit, r.rolcanlogin, g.rolconnlimit FROM pg_roles r JOIN pg_auth_members m ON m.member = r.oid
                 JOIN pg_roles g ON g.oid = m.roleid WHERE r.rolname = $1",
                &[&role],
            )
            .await
            .unwrap();
        assert_eq!((row.get::<_, i32>(0), row.get::<_, bool>(1), row.get::<_, i32>(2)), (7, true, 3));
        client.batch_execute(&format!("DROP ROLE {role}; DROP ROLE \"{group}\"")).await.unwrap();
        assert!(!text.contains("hidden") && !text.contains("SCRAM"), "{text}");
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn globals_leave_the_roles_of_another_server_as_they_are() {
    let server = pgrail_testing::server(18);
    let database = server.database("roles").await;
    let client = database.connect().await;
    let role = |name: &str| server.role_name(&format!("roles_{name}"));
    let (owner, reader, group, top, login) = (role("owner"), role("reader"), role("group"), role("top"), role("login"));
    client
        .batch_execute(&format!(
            "CREATE ROLE {top} CREATEDB; CREATE ROLE {group} IN ROLE {top}; CREATE ROLE {owner} LOGIN PASSWORD 'of-the-source' IN ROLE {group}, pg_monitor;
             CREATE ROLE {reader} LOGIN PASSWORD 'of-the-source'; GRANT {owner} TO {reader} WITH ADMIN OPTION, INHERIT FALSE;
             CREATE ROLE {login} LOGIN IN ROLE {owner}; CREATE TABLE t (id int); ALTER TABLE t OWNER TO {owner}; GRANT SELECT ON t TO {reader}"
        ))
        .await
        .unwrap();
    let store = support::file_store();
    let result = dump(&request(&database), &store.store, &quiet).await.unwrap();
    let text = std::fs::read_to_string(store.files.join(&result.location).join("globals.sql")).unwrap();
    client.batch_execute(&format!("DROP TABLE t; DROP ROLE {login}, {reader}, {owner}, {group}, {top}")).await.unwrap();

    let other = OwnServer::start(18, &[]).await;
    let target = pgrail_testing::connect(&other.server.uri).await;
    target
        .batch_execute(&format!("CREATE ROLE {reader} LOGIN NOINHERIT PASSWORD 'of-the-target' CONNECTION LIMIT 5"))
        .await
        .unwrap();
    let password = async |role: &str| -> Option<String> {
        target.query_one("SELECT rolpassword FROM pg_authid WHERE rolname = $1", &[&role]).await.unwrap().get(0)
    };
    let before = password(&reader).await.unwrap();
    // Twice: what is there is no obstacle.
    for _ in 0..2 {
        target.batch_execute(&text).await.unwrap();
    }
    assert_eq!(password(&reader).await.unwrap(), before);
    assert_eq!(password(&owner).await, None);
    let attributes = "SELECT rolinherit, rolconnlimit FROM pg_roles WHERE rolname = $1";
    let row = target.query_one(attributes, &[&reader]).await.unwrap();
    assert_eq!((row.get::<_, bool>(0), row.get::<_, i32>(1)), (false, 5));
    let memberships = "SELECT m.roleid::regrole::text, m.member::regrole::text, m.admin_option, m.inherit_option FROM pg_auth_members m
        WHERE m.member >= 16384 ORDER BY 1, 2";
    let found: Vec<(String, String, bool, bool)> = target
        .query(memberships, &[])
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3)))
        .collect();
    let mut expected = [
        (top.clone(), group.clone(), false, true),
        (group.clone(), owner.clone(), false, true),
        ("pg_monitor".to_owned(), owner.clone(), false, true),
        (owner.clone(), reader.clone(), true, false),
    ];
    expected.sort();
    assert_eq!(found, expected);
    let exists = target.query_one("SELECT to_regrole($1) IS NULL", &[&login]).await.unwrap();
    assert!(exists.get::<_, bool>(0), "a role that only is a member of others belongs to no dump");
    database.finish().await;
}

#[tokio::test]
async fn the_stores_own_sha256_is_compared() {
    let database = pgrail_testing::server(18).database("checksum").await;
    database.connect().await.batch_execute(SHOP).await.unwrap();
    let mut settings = support::s3_settings(&support::unique("checksum"));
    settings.sha256 = true;
    let store = Store::open(&settings).unwrap();
    let request = in_parts(request(&database), 2);
    database.connect().await.batch_execute(BLOB).await.unwrap();
    let result = dump(&request, &store, &quiet).await.unwrap();
    assert!(result.details.as_ref().unwrap().segments.len() > 1);
    let mut request = verify_request(&result);
    request.level = VerificationLevel::Checksum;
    let verified = verify(&request, &store, &quiet).await.unwrap();
    assert_eq!(verified.level, VerificationLevel::Checksum);

    // The checksum of another object.
    if let Some(details) = &mut request.dump.details {
        details.segments[1].store_checksum = details.segments[0].store_checksum.clone();
    }
    let error = verify(&request, &store, &quiet).await.unwrap_err();
    assert_eq!(error.reason(), Reason::ChecksumMismatch, "{error:?}");
    database.finish().await;
}

#[tokio::test]
async fn a_store_without_checksums_verifies_nothing() {
    let database = pgrail_testing::server(18).database("nochecksum").await;
    database.connect().await.batch_execute(SHOP).await.unwrap();
    for store in stores() {
        let result = dump(&request(&database), &store.store, &quiet).await.unwrap();
        let mut request = verify_request(&result);
        request.level = VerificationLevel::Checksum;
        let verified = verify(&request, &store.store, &quiet).await.unwrap();
        assert_eq!(verified.level, VerificationLevel::None, "{}", store.kind);
        let manifest = Manifest::read(&store.store, &result.location).await.unwrap();
        assert_eq!(manifest.verification.level, VerificationLevel::None);
    }
    database.finish().await;
}

#[tokio::test]
async fn a_manifest_is_written_once() {
    let database = pgrail_testing::server(18).database("once").await;
    database.connect().await.batch_execute("CREATE TABLE t (id int)").await.unwrap();
    for store in stores() {
        let result = dump(&request(&database), &store.store, &quiet).await.unwrap();
        let request = verify_request(&result);
        verify(&request, &store.store, &quiet).await.unwrap();
        let file = store.files.join(&result.location).join("manifest.json");
        let first = std::fs::read(&file).unwrap();
        // An agent that was restarted after publishing succeeds and writes nothing.
        verify(&request, &store.store, &quiet).await.unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), first, "{}", store.kind);
        // The manifest of another backup in the same place is never replaced.
        let mut other = request.clone();
        if let Some(details) = &mut other.dump.details {
            details.identity.database_uid = "uid-other".into();
        }
        let error = verify(&other, &store.store, &quiet).await.unwrap_err();
        assert_eq!(error.reason(), Reason::AlreadyPublished, "{error:?}");
        assert_eq!(std::fs::read(&file).unwrap(), first, "{}", store.kind);
    }
    database.finish().await;
}

#[tokio::test]
async fn over_tls_with_a_checked_certificate() {
    use pgrail_postgres::TlsMode;
    for_each_server(async |server| {
        let database = server.database("tls").await;
        database.connect().await.batch_execute(SHOP).await.unwrap();
        let store = support::file_store();
        let mut request = request(&database);
        request.connection.host = "localhost".into();
        request.connection.tls = TlsMode::VerifyFull;
        request.connection.ca_pem = Some(std::fs::read(pgrail_testing::authority_file()).unwrap());
        let result = dump(&request, &store.store, &quiet).await.unwrap();
        assert_eq!(result.rows, SHOP_ROWS);
        request.connection.ca_pem = Some(std::fs::read(pgrail_testing::other_authority_file()).unwrap());
        let error = dump(&request, &store.store, &quiet).await.unwrap_err();
        assert_eq!(error.reason(), Reason::ConnectionFailed, "{error:?}");
        database.finish().await;
    })
    .await;
}

/// Nothing of it is left in the store.
async fn leaves_nothing(setup: &str, script: &str, reason: Reason) -> String {
    let database = server(18).database("wrong").await;
    database.connect().await.batch_execute(setup).await.unwrap();
    let directory = clients_with("pg_dump", script);
    let mut request = request(&database);
    request.client_directory = Some(directory.path().to_owned());
    let mut message = String::new();
    for store in stores() {
        let error = dump(&request, &store.store, &quiet).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{}: {error:?}", store.kind);
        assert_eq!(store.list_files(), [""; 0], "{}", store.kind);
        message = error.failure(&request, &store.store).message;
    }
    database.finish().await;
    message
}

#[tokio::test]
async fn an_archive_that_does_not_hold_what_the_snapshot_had_is_never_completed() {
    let script = "exec REAL \"$@\" --exclude-table-data=orders";
    let message = leaves_nothing(SHOP, script, Reason::RowCountMismatch).await;
    assert!(message.contains("public.orders is missing"), "{message}");
}

#[tokio::test]
async fn an_archive_that_does_not_decode_is_never_completed() {
    // What is compressed does not begin with the mark of Zstandard. The framing is as it must be.
    let script = r#"REAL "$@" | LC_ALL=C sed 's/\x28\xb5\x2f\xfd/XXXX/g'"#;
    let message = leaves_nothing(BLOB, script, Reason::ArchiveInvalid).await;
    assert!(message.contains("pg_restore"), "{message}");
}
