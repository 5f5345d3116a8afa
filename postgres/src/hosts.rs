//! Which hosts may be connected to. A namespace's users must not be able to aim pgrail, with a password, at whatever
//! its own network position can reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A host that is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostNotAllowed {
    /// By its name.
    #[error("it must be a Service of this namespace, or match the operator's --allowed-hosts")]
    Name,
    /// By every address it has.
    #[error(
        "it leads to an address that is never a database's (link-local, loopback, multicast, unspecified, or the Kubernetes API)"
    )]
    Address,
}

impl HostNotAllowed {
    /// Reason for the condition `Reachable`.
    pub fn reason(self) -> &'static str {
        "HostNotAllowed"
    }
}

/// A pattern that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is neither a host name, a pattern with '*', an address nor a range of addresses such as 10.0.0.0/8")]
pub struct PatternError(String);

/// The operator's `--allowed-hosts`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedHosts(Vec<Pattern>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    /// `*` stands for any characters, dots too; lower case.
    Name(String),
    /// The first bits of an address. IPv4 addresses are mapped into IPv6.
    Range { network: u128, bits: u32 },
}

impl AllowedHosts {
    /// Reads patterns: names (`db.example.com`), names with `*` (`*.rds.amazonaws.com`; `*` alone allows every name),
    /// addresses (`192.0.2.7`) and ranges (`10.0.0.0/8`, `fd00::/8`).
    pub fn parse<Text: AsRef<str>>(patterns: impl IntoIterator<Item = Text>) -> Result<Self, PatternError> {
        patterns.into_iter().map(|pattern| Pattern::parse(pattern.as_ref().trim())).collect::<Result<_, _>>().map(Self)
    }

    fn allow(&self, host: &str) -> bool {
        self.0.iter().any(|pattern| match (pattern, host.parse::<IpAddr>()) {
            (Pattern::Name(pattern), _) => matches(pattern, host),
            (Pattern::Range { .. }, Ok(address)) => pattern.holds(address),
            (Pattern::Range { .. }, Err(_)) => false,
        })
    }

    /// Whether an address or range (not a name) names this address.
    fn name_address(&self, address: IpAddr) -> bool {
        self.0.iter().any(|pattern| pattern.holds(address))
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, PatternError> {
        let error = || PatternError(text.to_owned());
        if let Some((address, bits)) = text.split_once('/') {
            let address: IpAddr = address.parse().map_err(|_| error())?;
            let bits: u32 = bits.parse().map_err(|_| error())?;
            let (width, offset) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
            return if bits <= width { Ok(Self::range(address, offset + bits)) } else { Err(error()) };
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::range(address, 128));
        }
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.*".contains(&byte);
        if text.is_empty() || text.len() > 253 || !text.bytes().all(known) {
            return Err(error());
        }
        Ok(Self::Name(text.trim_end_matches('.').to_ascii_lowercase()))
    }

    fn range(address: IpAddr, bits: u32) -> Self {
        Self::Range { network: number(address) & mask(bits), bits }
    }

    fn holds(&self, address: IpAddr) -> bool {
        match self {
            Self::Range { network, bits } => number(address) & mask(*bits) == *network,
            Self::Name(_) => false,
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_ipv6_mapped()),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn mask(bits: u32) -> u128 {
    if bits == 0 { 0 } else { u128::MAX << (128 - bits.min(128)) }
}

/// `*` stands for any characters. Linear: after a star, the first place that fits is as good as any.
fn matches(pattern: &str, host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == host };
    let Some(mut host) = host.strip_prefix(first) else { return false };
    let mut rest = rest;
    while let Some((middle, after)) = rest.split_once('*') {
        let Some(place) = host.find(middle) else { return false };
        host = host.get(place + middle.len()..).unwrap_or_default();
        rest = after;
    }
    host.ends_with(rest)
}

/// Whether the spec of an object in `namespace` may name this host: a Service of that namespace (`name`,
/// `name.namespace`, `name.namespace.svc`, `name.namespace.svc.cluster.local`), or one that `allowed` matches.
pub fn host_allowed(host: &str, namespace: &str, allowed: &AllowedHosts) -> Result<(), HostNotAllowed> {
    if service_of(host, namespace).is_some() || allowed.allow(host) { Ok(()) } else { Err(HostNotAllowed::Name) }
}

/// The name to look a host up by, from whatever namespace pgrail runs in: a Service's short name is completed with the
/// namespace of the object that uses it. All others are looked up as they are (`None`).
pub fn lookup_name(host: &str, namespace: &str) -> Option<String> {
    service_of(host, namespace).map(|service| format!("{service}.{namespace}.svc"))
}

/// The Service's name, when the host is the name of a Service of this namespace.
fn service_of<'host>(host: &'host str, namespace: &str) -> Option<&'host str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let (service, domain) = host.split_once('.').unwrap_or((host, ""));
    let own = domain.is_empty()
        || domain.strip_prefix(namespace).is_some_and(|suffix| ["", ".svc", ".svc.cluster.local"].contains(&suffix));
    (own && is_service_name(service)).then_some(service)
}

fn is_service_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    // `localhost` is one by its letters, and never one by its meaning.
    (1..=63).contains(&name.len())
        && name.bytes().all(allowed)
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
        && name != "localhost"
}

/// Which of a host's addresses may be connected to.
#[derive(Clone, Debug, Default)]
pub struct AddressPolicy {
    open: bool,
    refused: Vec<IpAddr>,
    allowed: AllowedHosts,
}

impl AddressPolicy {
    /// Every address: for the command line, which has no more rights than its user.
    pub fn any() -> Self {
        Self { open: true, ..Self::default() }
    }

    /// For the operator: refuses link-local, loopback, unspecified and multicast addresses, and those of the Kubernetes
    /// API. An address or range in `allowed` (never a name) lifts the refusal for what it names.
    pub fn operator(api_server: Vec<IpAddr>, allowed: AllowedHosts) -> Self {
        Self { open: false, refused: api_server, allowed }
    }

    /// Whether this address may be connected to.
    pub fn allows(&self, address: IpAddr) -> bool {
        self.open || self.allowed.name_address(address) || resolved_address_allowed(address, &self.refused)
    }
}

/// Whether an address may be a database's: not link-local (cloud metadata), loopback, unspecified or multicast, and none of
/// `api_server`.
pub fn resolved_address_allowed(address: IpAddr, api_server: &[IpAddr]) -> bool {
    let address = address.to_canonical();
    let special = match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    };
    !special && !api_server.iter().any(|refused| refused.to_canonical() == address)
}

fn special_v4(address: Ipv4Addr) -> bool {
    // All of 0.0.0.0/8 means "this host" to Linux.
    address.octets()[0] == 0
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
}

fn special_v6(address: Ipv6Addr) -> bool {
    // The metadata service of AWS is at a unique local address; a translated IPv4 address counts as itself.
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
mod tests;
