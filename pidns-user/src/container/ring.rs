//! A bounded memory.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// Most entries; of more, the longest known are forgotten. A host with so many namespaces is what the program is built for.
pub(super) const LIMIT: usize = 50_000;
/// Most entries where some are needed: beyond, one is forgotten whether it is needed or not.
const MOST_NEEDED: usize = LIMIT + LIMIT / 10;
/// Most entries that are asked at an insertion whether they are needed: that can take a system call or two.
const MOST_TRIED: usize = 16;

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

    /// Puts it in; of too many, those that `is_needed` accepts are kept, up to a tenth more than else.
    ///
    /// It asks a few at each insertion, and goes on at the next one behind those that are needed.
    pub(super) fn insert_beside(&mut self, key: K, value: V, is_needed: impl Fn(&K, &V) -> bool) {
        if self.entries.insert(key.clone(), value).is_none() {
            self.oldest.push_back(key);
        }
        for _ in 0..MOST_TRIED {
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
        if self.entries.len() > MOST_NEEDED
            && let Some(oldest) = self.oldest.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }

    /// How many there are, and how many of them wait to be forgotten: the same.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.entries.len(), self.oldest.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_are_needed_stay_while_thousands_come_and_go() {
        let mut ring = Ring::default();
        let last = LIMIT + 5_050;
        for key in 0..=last {
            ring.insert_beside(key, (), |&key, ()| key < 50);
        }
        assert!((0..50).all(|key| ring.get(&key).is_some()));
        assert!(ring.get(&50).is_none() && ring.get(&last).is_some());
        assert_eq!(ring.sizes(), (LIMIT, LIMIT), "it has caught up");
    }

    #[test]
    fn memory_is_bounded_where_all_are_needed() {
        let mut ring = Ring::default();
        for key in 0..3 * LIMIT {
            ring.insert_beside(key, (), |_, ()| true);
        }
        assert_eq!(ring.sizes(), (MOST_NEEDED, MOST_NEEDED));
        assert!(ring.get(&(3 * LIMIT - 1)).is_some(), "what has just come is there");
        for key in 3 * LIMIT..4 * LIMIT {
            ring.insert_beside(key, (), |_, ()| false);
        }
        assert_eq!(ring.sizes(), (LIMIT, LIMIT), "and it shrinks again");
    }
}
