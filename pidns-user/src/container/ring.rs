//! A bounded memory.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// Most entries; of more, the longest known are forgotten.
pub(super) const LIMIT: usize = 10_000;

/// A map that forgets what was put in first.
#[derive(Debug)]
pub(super) struct Ring<K, V> {
    entries: HashMap<K, V>,
    oldest: VecDeque<K>,
}

impl<K, V> Default for Ring<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), oldest: VecDeque::new() }
    }
}

impl<K: Clone + Eq + Hash, V> Ring<K, V> {
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
        if self.entries.insert(key.clone(), value).is_none() {
            self.oldest.push_back(key);
        }
        while self.entries.len() > LIMIT {
            let Some(oldest) = self.oldest.pop_front() else { break };
            self.entries.remove(&oldest);
        }
    }

    /// How many there are, and how many of them wait to be forgotten: the same.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.entries.len(), self.oldest.len())
    }
}
