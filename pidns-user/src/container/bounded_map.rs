//! A map of bounded size.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// Normal capacity: hosts may have this many namespaces. Beyond it, the oldest entries are forgotten.
pub(super) const LIMIT: usize = 50_000;
/// Absolute capacity. Beyond it, an entry is forgotten even if it is needed.
const HARD_LIMIT: usize = LIMIT + LIMIT / 10;
/// Maximum number of entries for which one insertion checks whether they are needed. A check can take one or two system
/// calls.
const MAX_CHECKS: usize = 16;

/// A map that forgets the oldest entries.
#[derive(Debug)]
pub(super) struct BoundedMap<K, V> {
    entries: HashMap<K, V>,
    oldest: VecDeque<K>,
}

impl<K, V> Default for BoundedMap<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), oldest: VecDeque::new() }
    }
}

impl<K: Clone + Eq + Hash, V> BoundedMap<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key)
    }

    pub(super) fn remove(&mut self, key: &K) {
        if self.entries.remove(key).is_some() {
            self.oldest.retain(|old| old != key);
        }
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        self.insert_keeping(key, value, |_, _| false);
    }

    /// Inserts an entry. If the map is full, entries that `is_needed` accepts are kept, up to a tenth above the normal
    /// capacity.
    ///
    /// Each insertion checks a few entries; the next one continues after them.
    pub(super) fn insert_keeping(&mut self, key: K, value: V, is_needed: impl Fn(&K, &V) -> bool) {
        if self.entries.insert(key.clone(), value).is_none() {
            self.oldest.push_back(key);
        }
        for _ in 0..MAX_CHECKS {
            if self.entries.len() <= LIMIT {
                return;
            }
            let Some(oldest) = self.oldest.pop_front() else { return };
            if self.entries.get(&oldest).is_some_and(|value| is_needed(&oldest, value)) {
                self.oldest.push_back(oldest);
            } else {
                self.entries.remove(&oldest);
            }
        }
        if self.entries.len() > HARD_LIMIT
            && let Some(oldest) = self.oldest.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }

    /// Number of entries in the map and in the queue. They must be equal.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.entries.len(), self.oldest.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needed_entries_stay_while_thousands_come_and_go() {
        let mut ring = BoundedMap::default();
        let last = LIMIT + 5_050;
        for key in 0..=last {
            ring.insert_keeping(key, (), |&key, ()| key < 50);
        }
        assert!((0..50).all(|key| ring.get(&key).is_some()));
        assert!(ring.get(&50).is_none() && ring.get(&last).is_some());
        assert_eq!(ring.sizes(), (LIMIT, LIMIT), "it has caught up");
    }

    #[test]
    fn memory_is_bounded_if_all_entries_are_needed() {
        let mut ring = BoundedMap::default();
        for key in 0..3 * LIMIT {
            ring.insert_keeping(key, (), |_, ()| true);
        }
        assert_eq!(ring.sizes(), (HARD_LIMIT, HARD_LIMIT));
        assert!(ring.get(&(3 * LIMIT - 1)).is_some(), "the newest entry stays");
        for key in 3 * LIMIT..4 * LIMIT {
            ring.insert_keeping(key, (), |_, ()| false);
        }
        assert_eq!(ring.sizes(), (LIMIT, LIMIT), "and it shrinks again");
    }
}
