//! A bounded memory.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// Most entries; of more, the longest known are forgotten.
pub(super) const LIMIT: usize = 10_000;
/// Most entries that are asked whether they are needed before one of them is forgotten all the same.
const MOST_TRIED: u32 = 16;

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
        self.insert_beside(key, value, |_, _| false);
    }

    /// Puts it in; what `is_needed` says yes to is forgotten only where that is true of the next longest known ones too.
    pub(super) fn insert_beside(&mut self, key: K, value: V, is_needed: impl Fn(&K, &V) -> bool) {
        if self.entries.insert(key.clone(), value).is_none() {
            self.oldest.push_back(key);
        }
        for tried in 0.. {
            if self.entries.len() <= LIMIT {
                break;
            }
            let Some(oldest) = self.oldest.pop_front() else { break };
            let is_needed = self.entries.get(&oldest).is_some_and(|value| is_needed(&oldest, value));
            if tried < MOST_TRIED && is_needed {
                self.oldest.push_back(oldest);
            } else {
                self.entries.remove(&oldest);
            }
        }
    }

    /// How many there are, and how many of them wait to be forgotten: the same.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.entries.len(), self.oldest.len())
    }
}
