use std::collections::BTreeMap;

use super::*;

fn settings() -> ConnectionSettings {
    let mut settings = ConnectionSettings::new("shop-rw", "shop", "pgrail");
    settings.password = Some(Password::new("s3cret"));
    settings
}

fn environment(settings: &ConnectionSettings, ca: Option<&str>, reached: Option<&Reached>) -> BTreeMap<String, String> {
    settings.libpq_environment(ca.map(Path::new), reached).into_iter().collect()
}

#[test]
fn modes_order_from_lax_to_strict_and_read_back() {
    let modes = [TlsMode::Disable, TlsMode::Prefer, TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull];
    assert!(modes.is_sorted());
    for mode in modes {
        assert_eq!(mode.as_str().parse(), Ok(mode));
    }
    assert_eq!("strict".parse::<TlsMode>(), Err(UnknownTlsMode));
}

#[test]
fn the_environment_says_everything_libpq_needs() {
    let found = environment(&settings(), None, None);
    let expected = [
        ("PGHOST", "shop-rw"),
        ("PGPORT", "5432"),
        ("PGDATABASE", "shop"),
        ("PGUSER", "pgrail"),
        ("PGPASSWORD", "s3cret"),
        ("PGSSLMODE", "prefer"),
        ("PGAPPNAME", "pgrail"),
        ("PGCONNECT_TIMEOUT", "10"),
        ("PGGSSENCMODE", "disable"),
        ("PGPASSFILE", "/dev/null"),
        ("PGREQUIREAUTH", "!password"),
    ];
    assert_eq!(found, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    assert!(found.keys().all(|key| LIBPQ_VARIABLES.contains(&key.as_str())));
}

#[test]
fn the_program_goes_where_we_went_and_is_no_laxer() {
    let mut settings = settings();
    settings.lookup = Some("shop-rw.shop.svc".into());
    assert_eq!(environment(&settings, None, None)["PGHOST"], "shop-rw.shop.svc");
    let reached = Reached { address: Some("10.1.2.3".parse().unwrap()), local_port: None, encrypted: true };
    let found = environment(&settings, None, Some(&reached));
    assert_eq!(
        (found["PGHOST"].as_str(), found["PGHOSTADDR"].as_str(), found["PGSSLMODE"].as_str()),
        ("shop-rw", "10.1.2.3", "require")
    );
    let plain = Reached { encrypted: false, ..reached };
    assert_eq!(environment(&settings, None, Some(&plain))["PGSSLMODE"], "prefer");
}

#[test]
fn authorities_are_the_given_file_or_the_systems() {
    let mut settings = settings();
    settings.tls = TlsMode::VerifyFull;
    let found = environment(&settings, None, None);
    assert_eq!(found["PGSSLROOTCERT"], "system");
    assert!(!found.contains_key("PGREQUIREAUTH"), "verify-full may send the password in clear");
    assert_eq!(environment(&settings, Some("/tmp/ca.crt"), None)["PGSSLROOTCERT"], "/tmp/ca.crt");
    settings.tls = TlsMode::VerifyCa;
    assert_eq!(environment(&settings, None, None)["PGSSLROOTCERT"], "/etc/ssl/certs/ca-certificates.crt");
}
