//! The logins that were used last. A namespace that is deleted can lose its Secrets and its databases before its guards,
//! which remove their triggers with these.

use super::resolve::ConnectionSource;
use super::server::Key;
use crate::mutex::locked;
use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// How long the login of a database that was deleted is kept.
const KEPT: SignedDuration = SignedDuration::from_mins(10);

#[derive(Default)]
pub(super) struct LastLogins(Mutex<HashMap<Key, LastLogin>>);

struct LastLogin {
    source: Arc<ConnectionSource>,
    /// When it is forgotten, where its database is no longer declared.
    ends: Option<Timestamp>,
}

impl LastLogins {
    pub(super) fn record(&self, key: &Key, source: &Arc<ConnectionSource>) {
        locked(&self.0).insert(key.clone(), LastLogin { source: Arc::clone(source), ends: None });
    }

    /// The database is no longer declared.
    pub(super) fn end(&self, key: &Key, now: Timestamp) {
        let mut logins = locked(&self.0);
        logins.retain(|_, login| login.ends.is_none_or(|ends| now < ends));
        if let Some(login) = logins.get_mut(key) {
            login.ends.get_or_insert(now + KEPT);
        }
    }

    pub(super) fn find(&self, key: &Key, now: Timestamp) -> Option<Arc<ConnectionSource>> {
        let logins = locked(&self.0);
        let login = logins.get(key)?;
        login.ends.is_none_or(|ends| now < ends).then(|| Arc::clone(&login.source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgrail_postgres::ConnectionSettings;

    #[test]
    fn the_login_of_a_deleted_database_is_kept_for_ten_minutes_and_then_forgotten() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let settings = ConnectionSettings::new("db.example.com", "shop", "pgrail");
        let source = Arc::new(ConnectionSource { settings, ignored_keys: Vec::new(), secret_uid: String::new() });
        let key = |name: &str| ("shop".to_owned(), name.to_owned());
        let logins = LastLogins::default();
        for name in ["a", "b", "c"] {
            logins.record(&key(name), &source);
        }
        logins.end(&key("a"), at(1000));
        logins.end(&key("a"), at(1300));
        assert!(logins.find(&key("a"), at(1599)).is_some(), "it ends ten minutes after the first time");
        assert!(logins.find(&key("a"), at(1600)).is_none());
        logins.end(&key("b"), at(1600));
        logins.record(&key("b"), &source);
        assert!(logins.find(&key("b"), at(9999)).is_some(), "it is declared again");
        assert!(logins.find(&key("c"), at(9999)).is_some(), "it is declared");
        assert_eq!(locked(&logins.0).len(), 2, "nothing is kept for ever");
    }
}
