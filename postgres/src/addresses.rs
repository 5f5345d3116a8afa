//! Allowed addresses. A user of a namespace must not be able to make pgrail send a password to any address that pgrail
//! can reach.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// All addresses of a host are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it resolves only to refused addresses (link-local, loopback, multicast, unspecified, or the Kubernetes API server)"
)]
pub struct AddressNotAllowed;

/// The addresses that a connection can use.
#[derive(Clone, Debug, Default)]
pub struct AddressPolicy {
    open: bool,
    refused: Vec<IpAddr>,
    allowed: Vec<IpNet>,
}

impl AddressPolicy {
    /// Allows all addresses, for the command line, which runs with the permissions of its user.
    pub fn any() -> Self {
        Self { open: true, ..Self::default() }
    }

    /// Refuses link-local, loopback, unspecified and multicast addresses, and those in `refused`. Addresses in
    /// `allowed` are not refused.
    pub fn restricted(refused: Vec<IpAddr>, allowed: Vec<IpNet>) -> Self {
        Self { open: false, refused, allowed }
    }

    /// Whether a connection can use this address.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let refused = is_special(address) || self.refused.iter().any(|refused| refused.to_canonical() == address);
        self.open || !refused || self.allowed.iter().any(|network| network.contains(&address))
    }
}

/// Link-local (cloud metadata), loopback, unspecified or multicast.
fn is_special(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    }
}

fn special_v4(address: Ipv4Addr) -> bool {
    // On Linux, all addresses in 0.0.0.0/8 are local.
    address.octets()[0] == 0
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
}

fn special_v6(address: Ipv6Addr) -> bool {
    // The metadata service of AWS has a unique local address. An IPv4 address in 64:ff9b::/96 is checked as IPv4.
    const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    let segments = address.segments();
    let translated = segments.starts_with(&[0x64, 0xff9b, 0, 0, 0, 0]);
    address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || address.is_unicast_link_local()
        || address == METADATA
        || (translated && special_v4(embedded_v4(address)))
}

fn embedded_v4(address: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = address.octets();
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(policy: &AddressPolicy, address: &str) -> bool {
        policy.allows(address.parse().unwrap())
    }

    #[test]
    fn special_addresses_are_refused() {
        let policy = AddressPolicy::restricted(vec!["10.96.0.1".parse().unwrap()], Vec::new());
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
            assert!(!allows(&policy, address), "{address}");
            assert!(allows(&AddressPolicy::any(), address), "{address}");
        }
        for address in ["10.0.0.1", "192.168.1.1", "8.8.8.8", "fd00::1", "2001:db8::1", "64:ff9b::808:808"] {
            assert!(allows(&policy, address), "{address}");
        }
    }

    #[test]
    fn a_network_lifts_a_refusal_for_its_addresses() {
        let policy =
            AddressPolicy::restricted(vec!["10.96.0.1".parse().unwrap()], vec!["127.0.0.0/8".parse().unwrap()]);
        assert!(allows(&policy, "127.0.0.1"));
        assert!(allows(&policy, "::ffff:127.0.0.1"));
        assert!(!allows(&policy, "10.96.0.1"));
        assert!(!allows(&policy, "169.254.169.254"));
    }
}
