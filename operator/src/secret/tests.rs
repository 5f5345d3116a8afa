use super::*;

fn keys(pairs: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect()
}

fn settings(pairs: &[(&str, &str)]) -> ConnectionSettings {
    from_secret(&keys(pairs), &Overrides::default()).unwrap().settings
}

fn shape(settings: &ConnectionSettings) -> (&str, u16, &str, &str, Option<&str>, TlsMode) {
    let password = settings.password.as_ref().map(Password::reveal);
    (&settings.host, settings.port, &settings.database, &settings.user, password, settings.tls)
}

#[test]
fn cloudnative_pg() {
    let secret = [
        ("username", "shop"),
        ("user", "shop"),
        ("password", "s3cret"),
        ("host", "shop-rw"),
        ("port", "5432"),
        ("dbname", "shop"),
        ("uri", "postgresql://shop:s3cret@shop-rw.shop:5432/shop"),
        ("fqdn-uri", "postgresql://shop:s3cret@shop-rw.shop.svc.cluster.local:5432/shop"),
        ("jdbc-uri", "jdbc:postgresql://shop-rw.shop:5432/shop?password=s3cret&user=shop"),
        ("fqdn-jdbc-uri", "jdbc:postgresql://shop-rw.shop.svc.cluster.local:5432/shop?password=s3cret&user=shop"),
        ("pgpass", "shop-rw:5432:shop:shop:s3cret\n"),
    ];
    assert_eq!(shape(&settings(&secret)), ("shop-rw.shop", 5432, "shop", "shop", Some("s3cret"), TlsMode::Prefer));
}

#[test]
fn crunchy_pgo() {
    let secret = [
        ("host", "hippo-primary.shop.svc"),
        ("port", "5432"),
        ("dbname", "hippo"),
        ("user", "hippo"),
        ("password", "a/b?c"),
        ("verifier", "SCRAM-SHA-256$4096:…"),
        ("uri", "postgresql://hippo:a%2Fb%3Fc@hippo-primary.shop.svc:5432/hippo"),
        ("jdbc-uri", "jdbc:postgresql://…"),
        ("pgbouncer-host", "hippo-pgbouncer.shop.svc"),
        ("pgbouncer-uri", "postgresql://hippo:a%2Fb%3Fc@hippo-pgbouncer.shop.svc:5432/hippo"),
    ];
    assert_eq!(
        shape(&settings(&secret)),
        ("hippo-primary.shop.svc", 5432, "hippo", "hippo", Some("a/b?c"), TlsMode::Prefer)
    );
}

/// Without `databases` in `spec.users`, PGO writes neither `dbname` nor `uri`.
#[test]
fn crunchy_pgo_without_databases_of_the_user() {
    let secret = keys(&[
        ("host", "hippo-primary.shop.svc"),
        ("port", "5432"),
        ("user", "pgrail"),
        ("password", "a/b?c"),
        ("verifier", "SCRAM-SHA-256$4096:…"),
    ]);
    let error = from_secret(&secret, &Overrides::default()).unwrap_err();
    assert_eq!(error.to_string(), "the Secret lacks dbname: add the key, or set spec.connection.database");
    let spec = Overrides { database: Some("hippo".into()), ..Overrides::default() };
    let found = from_secret(&secret, &spec).unwrap();
    assert!(!found.host_from_spec);
    assert_eq!(
        shape(&found.settings),
        ("hippo-primary.shop.svc", 5432, "hippo", "pgrail", Some("a/b?c"), TlsMode::Prefer)
    );
}

#[test]
fn zalando_needs_host_and_database_in_the_spec() {
    let secret = keys(&[("username", "shop_owner"), ("password", "s3cret")]);
    let error = from_secret(&secret, &Overrides::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the Secret lacks host, dbname: add the keys, or set spec.connection.host and spec.connection.database"
    );
    let spec = Overrides {
        host: Some("shop".into()),
        database: Some("shop".into()),
        tls: Some(TlsMode::Require),
        ..Overrides::default()
    };
    let found = from_secret(&secret, &spec).unwrap();
    assert!(found.host_from_spec);
    assert_eq!(shape(&found.settings), ("shop", 5432, "shop", "shop_owner", Some("s3cret"), TlsMode::Require));
}

#[test]
fn supabase_and_external_secrets_of_rds() {
    let supabase =
        [("username", "postgres"), ("password", "p"), ("database", "postgres"), ("host", "db"), ("secret_key", "x")];
    assert_eq!(shape(&settings(&supabase)), ("db", 5432, "postgres", "postgres", Some("p"), TlsMode::Prefer));
    let rds = [
        ("engine", "postgres"),
        ("host", "x.rds.example"),
        ("port", "5433"),
        ("dbname", "d"),
        ("username", "u"),
        ("password", "p"),
    ];
    assert_eq!(shape(&settings(&rds)), ("x.rds.example", 5433, "d", "u", Some("p"), TlsMode::Prefer));
}

#[test]
fn the_spec_beats_the_uri_beats_the_other_keys() {
    let secret = keys(&[
        ("uri", "postgres://uri-user:uri-password@uri-host:1/uri-db"),
        ("host", "key-host"),
        ("port", "2"),
        ("dbname", "key-db"),
        ("user", "key-user"),
        ("password", "key-password"),
    ]);
    let found = from_secret(&secret, &Overrides::default()).unwrap();
    assert!(!found.host_from_spec);
    assert_eq!(shape(&found.settings), ("uri-host", 1, "uri-db", "uri-user", Some("uri-password"), TlsMode::Prefer));

    let half = keys(&[
        ("uri", "postgres:///?sslmode=require"),
        ("host", "h"),
        ("port", "2"),
        ("dbname", "d"),
        ("user", "u"),
        ("password", "p"),
    ]);
    let found = from_secret(&half, &Overrides::default()).unwrap();
    assert_eq!(shape(&found.settings), ("h", 2, "d", "u", Some("p"), TlsMode::Require));

    let spec = Overrides {
        host: Some("spec-host".into()),
        port: Some(3),
        database: Some("spec-db".into()),
        user: Some("spec-user".into()),
        tls: None,
    };
    let found = from_secret(&secret, &spec).unwrap();
    assert_eq!(shape(&found.settings), ("spec-host", 3, "spec-db", "spec-user", Some("uri-password"), TlsMode::Prefer));
}

#[test]
fn the_stricter_tls_mode_wins_whoever_asks() {
    let modes = [TlsMode::Disable, TlsMode::Prefer, TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull];
    for (index, of_uri) in modes.into_iter().enumerate() {
        for (other, of_spec) in modes.into_iter().enumerate() {
            let secret = keys(&[("uri", &format!("postgres://u:p@h/d?sslmode={of_uri}"))]);
            let spec = Overrides { tls: Some(of_spec), ..Overrides::default() };
            assert_eq!(from_secret(&secret, &spec).unwrap().settings.tls, modes[index.max(other)]);
        }
        let alone = keys(&[("uri", &format!("postgres://u:p@h/d?sslmode={of_uri}"))]);
        assert_eq!(from_secret(&alone, &Overrides::default()).unwrap().settings.tls, of_uri);
    }
}

#[test]
fn ignored_keys_of_the_uri_are_named() {
    let secret = keys(&[("uri", "postgres://u:p@h/d?pgbouncer=true&schema=public")]);
    assert_eq!(from_secret(&secret, &Overrides::default()).unwrap().ignored_keys, ["pgbouncer", "schema"]);
    // A password that was put in the wrong place.
    let secret = keys(&[("uri", "postgres://u@h/d?s3cret&schema=public&pass=x")]);
    let ignored = from_secret(&secret, &Overrides::default()).map(|found| found.ignored_keys);
    assert!(!format!("{ignored:?}").contains("s3cret"), "{ignored:?}");
    let secret = keys(&[("uri", "postgres://u@h/d?s3cret=1&schema=public")]);
    let ignored = from_secret(&secret, &Overrides::default()).unwrap().ignored_keys;
    assert_eq!(ignored, ["schema", "1 that no driver is known to use"]);
}

#[test]
fn what_is_missing_is_named_with_a_remedy() {
    let table: &[(&[(&str, &str)], &str)] = &[
        (&[], "the Secret lacks host, dbname, username: give it a key uri"),
        (&[("host", ""), ("dbname", "\n"), ("user", "")], "the Secret lacks host, dbname, username: give it a key uri"),
        (&[("uri", "postgres://u:p@h")], "the Secret lacks dbname: add the key, or set spec.connection.database"),
        (&[("username", "u"), ("dbname", "d")], "the Secret lacks host: add the key, or set spec.connection.host"),
        (&[("host", "h"), ("dbname", "d")], "the Secret lacks username: give it a key uri"),
        // Of another platform, with names of its own.
        (&[("DATABASE_URL", "postgres://u:p@h/d")], "the Secret lacks host, dbname, username: give it a key uri"),
    ];
    for (pairs, message) in table {
        let error = from_secret(&keys(pairs), &Overrides::default()).unwrap_err();
        assert!(error.to_string().starts_with(message), "{pairs:?}: {error}");
    }
}

#[test]
fn bad_values_are_refused_without_being_quoted() {
    let base = [("dbname", "d"), ("user", "u"), ("password", "p")];
    let table = [
        ("host", "/var/run/postgresql", "Unix sockets cannot be reached from here"),
        ("host", "a.verbatim,b.verbatim", "it names several hosts"),
        ("host", "verbatim host", "it is not a host name or an address"),
        ("host", "u:p@verbatim", "it is not a host name or an address"),
        ("port", "verbatim", "it is not a number from 1 to 65535"),
        ("port", "0", "it is not a number from 1 to 65535"),
        ("port", "70000", "it is not a number from 1 to 65535"),
    ];
    for (key, value, problem) in table {
        let mut pairs = vec![("host", "h")];
        pairs.extend(base);
        pairs.retain(|(name, _)| *name != key);
        pairs.push((key, value));
        let error = from_secret(&keys(&pairs), &Overrides::default()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("the key {key} of the Secret cannot be used: {problem}")), "{error}");
        assert!(!error.contains("verbatim"), "{error}");
    }
    let socket = keys(&[("uri", "postgres://u:p@%2Fvar%2Frun/d")]);
    assert!(matches!(from_secret(&socket, &Overrides::default()), Err(SecretError::Value { key: "host", .. })));
    let refused = keys(&[("uri", "postgres://u:p@h/d?service=x")]);
    let error = from_secret(&refused, &Overrides::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the key uri of the Secret cannot be used: service in the URI is not supported: add host, port, dbname and user to the URI"
    );
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let mut secret = keys(&[("host", "h"), ("dbname", "d"), ("user", "u")]);
    secret.insert("password".into(), vec![0xff, 0xfe]);
    assert!(matches!(from_secret(&secret, &Overrides::default()), Err(SecretError::Value { key: "password", .. })));
    secret.insert("password".into(), b"a\0b".to_vec());
    assert!(matches!(from_secret(&secret, &Overrides::default()), Err(SecretError::Value { key: "password", .. })));
}

#[test]
fn line_feeds_at_the_end_of_a_value_are_no_part_of_it() {
    let secret = [("host", "h\n"), ("dbname", "d\r\n"), ("user", "u\n"), ("password", " p \n"), ("port", "5433\n")];
    assert_eq!(shape(&settings(&secret)), ("h", 5433, "d", "u", Some(" p "), TlsMode::Prefer));
}

#[test]
fn a_password_shows_in_no_debug_output() {
    let found = from_secret(&keys(&[("uri", "postgres://u:Geheimnis@h/d")]), &Overrides::default()).unwrap();
    assert!(!format!("{found:?} {:?}", found.settings.password).contains("Geheimnis"));
    assert!(!format!("{}", found.settings.password.unwrap()).contains("Geheimnis"));
}
