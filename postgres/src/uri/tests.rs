use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn parsed(uri: &str) -> ParsedUri {
    parse_uri(uri).unwrap_or_else(|error| panic!("{uri}: {error}"))
}

/// host, port, database, user, password
type Row<'text> =
    (&'text str, Option<&'text str>, Option<u16>, Option<&'text str>, Option<&'text str>, Option<&'text str>);

#[test]
fn parts_are_read_as_libpq_reads_them() {
    let table: &[Row] = &[
        ("postgres://u:p@h:6432/d", Some("h"), Some(6432), Some("d"), Some("u"), Some("p")),
        ("postgresql://u:p@h:6432/d", Some("h"), Some(6432), Some("d"), Some("u"), Some("p")),
        ("  postgres://u:p@h/d\n", Some("h"), None, Some("d"), Some("u"), Some("p")),
        ("postgres://", None, None, None, None, None),
        ("postgres:///d", None, None, Some("d"), None, None),
        ("postgres://h", Some("h"), None, None, None, None),
        ("postgres://h:/d", Some("h"), None, Some("d"), None, None),
        ("postgres://u@h/d", Some("h"), None, Some("d"), Some("u"), None),
        ("postgres://u:@h/d", Some("h"), None, Some("d"), Some("u"), None),
        ("postgres://:p@h/d", Some("h"), None, Some("d"), None, Some("p")),
        // Only the first colon divides, only the last @ does.
        ("postgres://u:p:q@h/d", Some("h"), None, Some("d"), Some("u"), Some("p:q")),
        ("postgres://u:p@q@h/d", Some("h"), None, Some("d"), Some("u"), Some("p@q")),
        ("postgres://u%40x:%2F%3f%23%40%25@h/my%20db", Some("h"), None, Some("my db"), Some("u@x"), Some("/?#@%")),
        // A plus is a plus.
        ("postgres://u:a+b@h/d", Some("h"), None, Some("d"), Some("u"), Some("a+b")),
        ("postgres://u:p@[fd00::1]:5433/d", Some("fd00::1"), Some(5433), Some("d"), Some("u"), Some("p")),
        ("postgres://u:p@[fd00::1]/d", Some("fd00::1"), None, Some("d"), Some("u"), Some("p")),
        ("postgres://%2Fvar%2Frun/d", Some("/var/run"), None, Some("d"), None, None),
        (
            "postgres:///d?host=/var/run&port=5433&user=u&password=p",
            Some("/var/run"),
            Some(5433),
            Some("d"),
            Some("u"),
            Some("p"),
        ),
        // Parameters beat what stands before them.
        (
            "postgres://u:p@h:1/d?host=i&port=2&dbname=e&user=v&password=q",
            Some("i"),
            Some(2),
            Some("e"),
            Some("v"),
            Some("q"),
        ),
        ("postgres://u:p@h/d?host=&port=&user=&password=&dbname=", Some("h"), None, Some("d"), Some("u"), Some("p")),
        // A slash more belongs to the database's name, as with libpq.
        ("postgres://h/d/e", Some("h"), None, Some("d/e"), None, None),
        ("postgres://ü:ß@h/ø", Some("h"), None, Some("ø"), Some("ü"), Some("ß")),
    ];
    for (uri, host, port, database, user, password) in table {
        let parts = parsed(uri).parts;
        assert_eq!(parts.host.as_deref(), *host, "host of {uri}");
        assert_eq!(parts.port, *port, "port of {uri}");
        assert_eq!(parts.database.as_deref(), *database, "database of {uri}");
        assert_eq!(parts.user.as_deref(), *user, "user of {uri}");
        assert_eq!(parts.password.as_ref().map(Password::reveal), *password, "password of {uri}");
    }
}

#[test]
fn tls_modes_and_their_aliases() {
    let table = [
        ("", None),
        ("sslmode=disable", Some(TlsMode::Disable)),
        ("sslmode=allow", Some(TlsMode::Prefer)),
        ("sslmode=prefer", Some(TlsMode::Prefer)),
        ("sslmode=require", Some(TlsMode::Require)),
        ("sslmode=no-verify", Some(TlsMode::Require)),
        ("sslmode=verify-ca", Some(TlsMode::VerifyCa)),
        ("sslmode=verify-full", Some(TlsMode::VerifyFull)),
        ("ssl=true", Some(TlsMode::Require)),
        ("ssl=true&sslmode=verify-ca", Some(TlsMode::VerifyCa)),
        ("sslrootcert=system", Some(TlsMode::VerifyFull)),
        ("sslrootcert=system&sslmode=require", Some(TlsMode::VerifyFull)),
        ("sslmode=verify-full&sslmode=disable", Some(TlsMode::VerifyFull)),
    ];
    for (query, mode) in table {
        assert_eq!(parsed(&format!("postgres://h/d?{query}")).parts.tls, mode, "{query}");
    }
}

#[test]
fn unknown_keys_are_ignored_and_named_once() {
    let uri = "postgres://h/d?pgbouncer=true&schema=public&sslmode=require&keepalives=1&connection_limit=5&schema=x&ssl=false";
    let parsed = parsed(uri);
    assert_eq!(parsed.ignored_keys, ["pgbouncer", "schema", "keepalives", "connection_limit", "ssl"]);
    assert_eq!(parsed.parts.tls, Some(TlsMode::Require));
}

#[test]
fn other_keys_that_count() {
    assert!(parsed("postgres://h/d?channel_binding=require").parts.channel_binding_required);
    assert!(!parsed("postgres://h/d?channel_binding=prefer").parts.channel_binding_required);
    assert_eq!(parsed("postgres://h/d?connect_timeout=3").parts.connect_timeout, Some(Duration::from_secs(3)));
    assert_eq!(parsed("postgres://h/d?connect_timeout=0").parts.connect_timeout, None);
}

#[test]
fn refusals_say_what_to_do() {
    let table = [
        ("mysql://h/d", UriError::Scheme),
        ("jdbc:postgresql://h/d", UriError::Scheme),
        ("postgresql+asyncpg://h/d", UriError::Scheme),
        ("host=h dbname=d", UriError::Scheme),
        ("", UriError::Scheme),
        ("postgres://u:secret/x@h/d", UriError::UnencodedPassword),
        ("postgres://u:12/34@h/d", UriError::UnencodedPassword),
        ("postgres://u:12?secret=x@h/d", UriError::UnencodedPassword),
        ("postgres://u:secret#x@h/d", UriError::UnencodedPassword),
        ("postgres://u:p@h/d#x", UriError::UnencodedPassword),
        ("postgres://u:%zz@h/d", UriError::Encoding),
        ("postgres://u:%4@h/d", UriError::Encoding),
        ("postgres://u:%@h/d", UriError::Encoding),
        ("postgres://u:%00@h/d", UriError::Encoding),
        ("postgres://u:%ff@h/d", UriError::Encoding),
        ("postgres://h:0/d", UriError::Port),
        ("postgres://h:65536/d", UriError::Port),
        ("postgres://h:+1/d", UriError::Port),
        ("postgres://u:secret/d", UriError::Port),
        ("postgres://h/d?port=x", UriError::Port),
        ("postgres://fd00::1/d", UriError::Port),
        ("postgres://[fd00::1/d", UriError::Host),
        ("postgres://[fd00::1]x/d", UriError::Host),
        ("postgres://[h]/d", UriError::Host),
        ("postgres://h h/d", UriError::Host),
        ("postgres://a,b/d", UriError::SeveralHosts),
        ("postgres://a:1,b:2/d", UriError::SeveralHosts),
        ("postgres://u:p@a%2Cb/d", UriError::SeveralHosts),
        ("postgres://h/d?host=a,b", UriError::SeveralHosts),
        ("postgres://h/d?port=1,2", UriError::SeveralHosts),
        ("postgres://h/d?sslmode", UriError::Parameters),
        ("postgres://h/d?a=b=c", UriError::Parameters),
        ("postgres://h/d?=x", UriError::Parameters),
        ("postgres://h/d?what is this=x", UriError::Parameters),
        ("postgres://h/d?sslmode=strict", UriError::TlsMode),
        ("postgres://h/d?channel_binding=maybe", UriError::Value("channel_binding")),
        ("postgres://h/d?connect_timeout=soon", UriError::Value("connect_timeout")),
    ];
    for (uri, error) in table {
        assert_eq!(parse_uri(uri), Err(error), "{uri}");
        assert!(!error.to_string().contains("secret"), "{uri}");
    }
    for key in
        ["service", "passfile", "options", "hostaddr", "sslcert", "sslkey", "sslrootcert", "sslcrl", "require_auth"]
    {
        let error = parse_uri(&format!("postgres://h/d?{key}=secret")).unwrap_err();
        assert!(matches!(error, UriError::Refused { key: refused, .. } if refused == key), "{key}: {error:?}");
        assert!(error.to_string().starts_with(&format!("{key} in the URI is not supported: ")), "{error}");
        assert!(!error.to_string().contains("secret"));
    }
}

#[test]
fn settings_of_a_uri_need_host_database_and_user() {
    let settings = |uri: &str, user| parsed(uri).into_settings(user);
    assert_eq!(settings("postgres://u@/d", None), Err(MissingPart("host")));
    assert_eq!(settings("postgres://u@h", None), Err(MissingPart("database")));
    assert_eq!(settings("postgres://h/d", None), Err(MissingPart("user")));
    let settings = settings("postgres://h/d?sslmode=require&connect_timeout=3", Some("me")).unwrap();
    assert_eq!((settings.user.as_str(), settings.port, settings.tls), ("me", 5432, TlsMode::Require));
    assert_eq!(settings.connect_timeout, Duration::from_secs(3));
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text: String) {
        let _ = parse_uri(&text);
        let _ = parse_uri(&format!("postgres://{text}"));
        let _ = parse_uri(&format!("postgres://u:p@h/d?{text}"));
    }

    #[test]
    fn every_encoded_password_comes_back(password in "[^\0]{1,30}", user in "[a-z]{1,10}") {
        let encoded = password.bytes().fold(String::new(), |encoded, byte| encoded + &format!("%{byte:02x}"));
        let parts = parsed(&format!("postgres://{user}:{encoded}@h/d")).parts;
        prop_assert_eq!(parts.password.as_ref().map(Password::reveal), Some(password.as_str()));
        prop_assert_eq!(parts.user, Some(user));
    }

    /// The rest of a password after an `&` looks like a parameter, whose name would be shown.
    #[test]
    fn an_unknown_parameter_after_the_password_is_a_part_of_it(rest in "[A-Za-z]{1,8}zz") {
        let uri = format!("postgres://u@h/d?password=a&{rest}=b");
        prop_assert_eq!(parse_uri(&uri).unwrap_err(), UriError::UnencodedPassword);
        let before = parsed(&format!("postgres://u@h/d?{rest}=b&password=a&sslmode=require"));
        prop_assert_eq!(before.ignored_keys, [rest]);
    }

    /// However a password is mistyped into a URI, neither an error nor a Debug output quotes it.
    #[test]
    fn a_password_never_shows(before in "[ -~]{0,6}", after in "[ -~]{0,6}", place in 0..4) {
        let password = format!("{before}Geheimnis{after}");
        let uri = match place {
            0 => format!("postgres://u:{password}@h:1/d"),
            1 => format!("postgres://{password}@h/d"),
            2 => format!("postgres://u@h/d?password={password}"),
            _ => format!("postgres://{password}"),
        };
        match parse_uri(&uri) {
            Ok(parsed) => {
                prop_assert!(!format!("{parsed:?}").contains("Geheimnis"), "{:?}", parsed);
                if place == 0 && let Ok(settings) = parsed.into_settings(Some("me")) && settings.host == "h" {
                    prop_assert!(!format!("{settings:?}").contains("Geheimnis"), "{:?}", settings);
                }
            }
            Err(error) => prop_assert!(!format!("{error:?} {error}").contains("Geheimnis"), "{:?}", error),
        }
    }
}
