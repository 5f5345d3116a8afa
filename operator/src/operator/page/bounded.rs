//! A map whose entries expire and whose size is bounded.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Entries with the time at which they were inserted.
pub(super) struct Bounded<K, V> {
    entries: HashMap<K, (Instant, V)>,
    lifetime: Duration,
    most: usize,
}

impl<K: Hash + Eq + Clone, V> Bounded<K, V> {
    /// Entries live for `lifetime`; `most` of them at the same time, the oldest are removed first.
    pub(super) fn new(lifetime: Duration, most: usize) -> Self {
        Self { entries: HashMap::new(), lifetime, most: most.max(1) }
    }

    /// An entry that has not expired, and its age.
    pub(super) fn get(&self, key: &K, now: Instant) -> Option<(Duration, &V)> {
        let (since, value) = self.entries.get(key)?;
        let age = now.saturating_duration_since(*since);
        (age < self.lifetime).then_some((age, value))
    }

    /// As [`Self::get`], to be changed in place. Its lifetime does not begin again.
    pub(super) fn get_mut(&mut self, key: &K, now: Instant) -> Option<&mut V> {
        let (since, value) = self.entries.get_mut(key)?;
        (now.saturating_duration_since(*since) < self.lifetime).then_some(value)
    }

    pub(super) fn insert(&mut self, key: K, value: V, now: Instant) {
        if self.entries.len() >= self.most && !self.entries.contains_key(&key) {
            let lifetime = self.lifetime;
            self.entries.retain(|_, (since, _)| now.saturating_duration_since(*since) < lifetime);
            let full = self.entries.len() >= self.most;
            if let Some(oldest) = self.entries.iter().min_by_key(|(_, (since, _))| *since).map(|(key, _)| key.clone())
                && full
            {
                self.entries.remove(&oldest);
            }
        }
        self.entries.insert(key, (now, value));
    }

    pub(super) fn remove(&mut self, key: &K) {
        self.entries.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_expire_and_the_oldest_is_removed_where_there_are_too_many() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut map = Bounded::new(Duration::from_secs(10), 2);
        map.insert("a", 1, at(0));
        map.insert("b", 2, at(5));
        assert_eq!(map.get(&"a", at(9)), Some((Duration::from_secs(9), &1)));
        assert_eq!(map.get(&"a", at(10)), None, "expired");
        map.insert("c", 3, at(6));
        assert_eq!((map.get(&"a", at(6)), map.entries.len()), (None, 2), "the oldest was removed");
        map.insert("b", 4, at(7));
        assert_eq!(map.get(&"b", at(16)).map(|(_, value)| *value), Some(4));
        map.insert("d", 5, at(30));
        assert_eq!(map.entries.len(), 1, "what has expired goes first");
        *map.get_mut(&"d", at(31)).unwrap() += 1;
        assert_eq!(map.get(&"d", at(31)), Some((Duration::from_secs(1), &6)));
        map.remove(&"d");
        assert_eq!(map.get(&"d", at(31)), None);
    }
}
