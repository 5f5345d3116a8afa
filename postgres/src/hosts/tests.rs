use proptest::prelude::*;

use super::*;

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
        assert_eq!(host_allowed(host, "shop", &none), Err(HostNotAllowed::Name), "{host:?}");
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
        assert_eq!(host_allowed(host, "shop", &allowed), Err(HostNotAllowed::Name), "{host}");
    }
    assert_eq!(host_allowed("anything.at.all", "shop", &hosts(&["*"])), Ok(()));
}

#[test]
fn malformed_patterns_are_refused() {
    for pattern in ["", "a b", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "10.0.0.0/", "x/8", "postgres://h", "a,b"] {
        assert!(AllowedHosts::parse([pattern]).is_err(), "{pattern}");
    }
}

#[test]
fn special_addresses_are_refused() {
    let api: IpAddr = "10.96.0.1".parse().unwrap();
    let refused = [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "0.1.2.3",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "fd00:ec2::254",
        "64:ff9b::169.254.169.254",
        "10.96.0.1",
        "::ffff:10.96.0.1",
    ];
    for address in refused {
        assert!(!resolved_address_allowed(address.parse().unwrap(), &[api]), "{address}");
    }
    for address in ["10.0.0.1", "192.168.1.1", "8.8.8.8", "fd00::1", "2001:db8::1", "64:ff9b::808:808"] {
        assert!(resolved_address_allowed(address.parse().unwrap(), &[api]), "{address}");
    }
}

#[test]
fn only_an_address_or_range_lifts_a_refusal() {
    let loopback: IpAddr = "127.0.0.1".parse().unwrap();
    let api: IpAddr = "10.96.0.1".parse().unwrap();
    let allows = |patterns: &[&str], address| AddressPolicy::operator(vec![api], hosts(patterns)).allows(address);
    assert!(!allows(&[], loopback));
    assert!(!allows(&["*"], loopback));
    assert!(!allows(&["localhost"], loopback));
    assert!(allows(&["127.0.0.0/8"], loopback));
    assert!(allows(&["127.0.0.1"], loopback));
    assert!(!allows(&["127.0.0.2"], loopback));
    assert!(!allows(&["*"], api));
    assert!(AddressPolicy::any().allows(loopback));
}

/// The obvious way to match a `*`: try every place.
fn matches_slowly(pattern: &[u8], host: &[u8]) -> bool {
    match pattern.split_first() {
        None => host.is_empty(),
        Some((b'*', rest)) => (0..=host.len()).any(|place| matches_slowly(rest, &host[place..])),
        Some((byte, rest)) => {
            host.split_first().is_some_and(|(first, host)| first == byte && matches_slowly(rest, host))
        }
    }
}

proptest! {
    #[test]
    fn stars_match_as_the_obvious_way_does(pattern in "[ab*]{0,8}", host in "[ab]{0,10}") {
        prop_assert_eq!(matches(&pattern, &host), matches_slowly(pattern.as_bytes(), host.as_bytes()));
    }

    #[test]
    fn no_pattern_and_no_host_makes_it_panic(pattern: String, host: String, namespace: String) {
        let allowed = AllowedHosts::parse([pattern]).unwrap_or_default();
        let _ = host_allowed(&host, &namespace, &allowed);
        let _ = lookup_name(&host, &namespace);
    }

    #[test]
    fn ranges_hold_what_shares_their_first_bits(network: u32, bits in 0_u32..=32, address: u32) {
        let allowed = AllowedHosts::parse([format!("{}/{bits}", Ipv4Addr::from(network))]).unwrap();
        let shared = (network ^ address).leading_zeros() >= bits;
        prop_assert_eq!(allowed.allow(&Ipv4Addr::from(address).to_string()), shared);
    }
}
