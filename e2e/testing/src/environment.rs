//! What `e2e/postgres/servers.sh` started, read from the environment.

use std::fmt;
use std::path::PathBuf;

const REMEDY: &str = "start the test servers with `eval \"$(e2e/postgres/servers.sh up)\"`, \
                      or run the tests with `e2e/postgres/servers.sh with cargo test …`";

/// A running test server.
#[derive(Clone)]
pub struct Server {
    /// Major version, such as 18.
    pub major: u32,
    /// URI of its `postgres` database for the superuser, with the password.
    pub uri: String,
}

/// Shows the version only: the URI has a password.
impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Server({})", self.major)
    }
}

/// How a pooler lends out its server connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooler {
    /// For one transaction at a time.
    Transaction,
    /// For as long as the client stays.
    Session,
}

/// All test servers, oldest version first. Panics when there are none.
pub fn servers() -> Vec<Server> {
    let servers = parse(&variable("PGRAIL_TEST_SERVERS"));
    assert!(!servers.is_empty(), "PGRAIL_TEST_SERVERS names no server: {REMEDY}");
    servers
}

/// The test server of one major version. Panics when there is none.
pub fn server(major: u32) -> Server {
    servers().into_iter().find(|server| server.major == major).unwrap_or_else(|| {
        panic!("no PostgreSQL {major} in PGRAIL_TEST_SERVERS: name it in PGRAIL_TEST_MAJORS and {REMEDY}")
    })
}

/// A server that does not speak TLS.
pub fn plain_server() -> Server {
    parse(&variable("PGRAIL_TEST_PLAIN_SERVER"))
        .pop()
        .unwrap_or_else(|| panic!("PGRAIL_TEST_PLAIN_SERVER is malformed: {REMEDY}"))
}

/// URI of a pooler (PgBouncer) before one of the servers.
pub fn pooler(mode: Pooler) -> String {
    let wanted = match mode {
        Pooler::Transaction => "transaction=",
        Pooler::Session => "session=",
    };
    variable("PGRAIL_TEST_PGBOUNCER")
        .split_whitespace()
        .find_map(|entry| entry.strip_prefix(wanted).map(str::to_owned))
        .unwrap_or_else(|| panic!("no pooler in {mode:?} mode in PGRAIL_TEST_PGBOUNCER: {REMEDY}"))
}

/// PEM file of the authority that signed the certificates of the test servers (for `localhost` and `127.0.0.1`).
pub fn authority_file() -> PathBuf {
    PathBuf::from(variable("PGRAIL_TEST_CA"))
}

/// PEM file of an authority that signed none of them.
pub fn other_authority_file() -> PathBuf {
    PathBuf::from(variable("PGRAIL_TEST_OTHER_CA"))
}

/// Folder of the programs (`pg_dump`, `psql`, …) of one major version.
pub fn programs(major: u32) -> PathBuf {
    PathBuf::from(variable(&format!("PGRAIL_TEST_PG_BIN_{major}")))
}

/// Folder of the `pg_dump` and `pg_restore` that pgrail uses with a server of one major version. Those of 16 that the tests have
/// can neither connect with TLS nor compress with Zstandard; the image has those of 18 only.
pub fn client_programs(major: u32) -> PathBuf {
    programs(if major == 16 { 18 } else { major })
}

fn variable(name: &str) -> String {
    match std::env::var(name) {
        Ok(value) if !value.trim().is_empty() => value,
        _ => panic!("{name} is not set: {REMEDY}"),
    }
}

/// `15=URI 18=URI`; entries of any other form are left out.
fn parse(list: &str) -> Vec<Server> {
    let mut servers: Vec<Server> = list
        .split_whitespace()
        .filter_map(|entry| {
            let (major, uri) = entry.split_once('=')?;
            Some(Server { major: major.parse().ok()?, uri: uri.to_owned() })
        })
        .collect();
    servers.sort_by_key(|server| server.major);
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_oldest_first_and_never_show_their_password() {
        let servers = parse(
            "18=postgres://postgres:secret@127.0.0.1:2/postgres 15=postgres://postgres:secret@127.0.0.1:1/postgres",
        );
        assert_eq!(servers.iter().map(|server| server.major).collect::<Vec<_>>(), [15, 18]);
        assert!(servers[0].uri.ends_with(":1/postgres"));
        assert!(!format!("{servers:?}").contains("secret"));
    }
}
