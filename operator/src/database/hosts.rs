//! Which hosts the connection of a spec may name: Services of its own namespace, and the operator's `--allowed-hosts`.

use ipnet::IpNet;
use std::net::IpAddr;
use wildmatch::WildMatch;

/// A host that the spec may not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it must be a Service of this namespace, or match the operator's --allowed-hosts")]
pub(crate) struct HostNotAllowed;

/// A pattern that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is neither a host name, a pattern with '*', an address nor a range of addresses such as 10.0.0.0/8")]
pub(crate) struct PatternError(String);

/// The operator's `--allowed-hosts`.
#[derive(Clone, Debug, Default)]
pub(crate) struct AllowedHosts {
    /// Lower case; `*` matches any characters, dots included.
    names: Vec<WildMatch>,
    networks: Vec<IpNet>,
}

impl AllowedHosts {
    /// Parses patterns: names (`db.example.com`), names with `*` (`*.rds.amazonaws.com`; `*` alone allows every name),
    /// addresses (`192.0.2.7`) and ranges (`10.0.0.0/8`, `fd00::/8`).
    pub(crate) fn parse<Text: AsRef<str>>(patterns: impl IntoIterator<Item = Text>) -> Result<Self, PatternError> {
        let mut hosts = Self::default();
        for pattern in patterns {
            let pattern = pattern.as_ref().trim();
            let address = pattern.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
            if let Ok(network) = pattern.parse::<IpNet>().or(address) {
                hosts.networks.push(network);
            } else if is_name_pattern(pattern) {
                hosts.names.push(WildMatch::new(&normalized(pattern)));
            } else {
                return Err(PatternError(pattern.to_owned()));
            }
        }
        Ok(hosts)
    }

    /// The addresses and ranges among the patterns.
    pub(crate) fn networks(&self) -> &[IpNet] {
        &self.networks
    }

    fn allow(&self, host: &str) -> bool {
        let in_networks = |address: IpAddr| self.networks.iter().any(|it| it.contains(&address.to_canonical()));
        host.parse().is_ok_and(in_networks) || self.names.iter().any(|pattern| pattern.matches(&normalized(host)))
    }
}

fn is_name_pattern(pattern: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.*".contains(&byte);
    (1..=253).contains(&pattern.len()) && pattern.bytes().all(known)
}

/// Lower case, without the dot of an absolute name.
fn normalized(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// Whether the spec of an object in `namespace` may name this host: a Service of that namespace (`name`,
/// `name.namespace`, `name.namespace.svc`, `name.namespace.svc.cluster.local`), or one that `allowed` matches.
pub(crate) fn host_allowed(host: &str, namespace: &str, allowed: &AllowedHosts) -> Result<(), HostNotAllowed> {
    if service_of(host, namespace).is_some() || allowed.allow(host) { Ok(()) } else { Err(HostNotAllowed) }
}

/// The name to look a host up by, from whatever namespace pgrail runs in: a Service's short name is completed with the
/// namespace of the object that uses it. All others are looked up as they are (`None`).
pub(crate) fn lookup_name(host: &str, namespace: &str) -> Option<String> {
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

#[cfg(test)]
mod tests;
