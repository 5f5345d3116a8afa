use super::*;
use proptest::prelude::*;

fn hosts(patterns: &[&str]) -> AllowedHosts {
    AllowedHosts::parse(patterns).unwrap()
}

#[test]
fn services_of_the_own_namespace_are_allowed_and_looked_up_there() {
    let none = AllowedHosts::default();
    for host in
        ["db-rw", "db-rw.shop", "db-rw.shop.svc", "db-rw.shop.svc.cluster.local", "db-rw.shop.svc.cluster.local."]
    {
        assert_eq!(host_allowed(host, "shop", &none), Ok(()), "{host}");
        assert_eq!(lookup_name(host, "shop").as_deref(), Some("db-rw.shop.svc"), "{host}");
    }
    let others = [
        "db-rw.other",
        "db-rw.other.svc",
        "db-rw.shop.svc.other",
        "db-rw.shopping",
        "db-rw.shop.example.com",
        "a.b.shop.svc",
        "localhost",
        "LOCALHOST",
        "127.0.0.1",
        "10.0.0.1",
        "::1",
        "0",
        "2130706433",
        "0x7f000001",
        "",
        ".",
        ".shop",
        "-x",
        "x-",
        "db_rw",
        "example.com",
        "*",
    ];
    for host in others {
        assert_eq!(host_allowed(host, "shop", &none), Err(HostNotAllowed), "{host:?}");
        assert_eq!(lookup_name(host, "shop"), None, "{host:?}");
    }
}

#[test]
fn patterns_of_the_operator() {
    let allowed = hosts(&["db.example.com", "*.rds.amazonaws.com", "pg-*.corp", "10.0.0.0/8", "192.0.2.7", "fd00::/8"]);
    let yes = [
        "db.example.com",
        "DB.Example.com",
        "db.example.com.",
        "x.rds.amazonaws.com",
        "x.eu-west-1.rds.amazonaws.com",
        "pg-1.corp",
        "10.255.0.1",
        "::ffff:10.1.2.3",
        "192.0.2.7",
        "fd12::1",
    ];
    for host in yes {
        assert_eq!(host_allowed(host, "shop", &allowed), Ok(()), "{host}");
    }
    let no = [
        "xdb.example.com",
        "db.example.com.evil.org",
        "rds.amazonaws.com",
        "x.rds.amazonaws.com.evil.org",
        "pg-1.corp.org",
        "11.0.0.1",
        "192.0.2.8",
        "fe80::1",
        "10.evil.org",
    ];
    for host in no {
        assert_eq!(host_allowed(host, "shop", &allowed), Err(HostNotAllowed), "{host}");
    }
    assert_eq!(host_allowed("anything.at.all", "shop", &hosts(&["*"])), Ok(()));
}

#[test]
fn malformed_patterns_are_refused() {
    for pattern in ["", "a b", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "10.0.0.0/", "x/8", "postgres://h", "a,b"] {
        assert!(AllowedHosts::parse([pattern]).is_err(), "{pattern}");
    }
}

proptest! {
    #[test]
    fn no_pattern_and_no_host_makes_it_panic(pattern: String, host: String, namespace: String) {
        let allowed = AllowedHosts::parse([pattern]).unwrap_or_default();
        let _ = host_allowed(&host, &namespace, &allowed);
        let _ = lookup_name(&host, &namespace);
    }
}
