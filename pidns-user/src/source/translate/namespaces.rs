//! The namespaces seen so far: their birth, for their identity, and what went down with them.

use std::collections::{HashMap, VecDeque};

use pidns_ebpf::abi::NamespacePart;

use crate::event::Namespace;

/// Most namespaces remembered; of more, the longest known are forgotten.
const LIMIT: usize = 10_000;

#[derive(Debug)]
struct Known {
    born_boot_ns: u64,
    /// 0 where the kernel has none.
    kernel_id: u64,
    /// 0 while it is not known.
    init_start_boot_ns: u64,
    /// Tells this entry's place in the queue from an earlier one of the same inode number.
    generation: u64,
}

/// Namespaces by inode number; the kernel gives a number to the next one at once.
#[derive(Debug, Default)]
pub(super) struct KnownNamespaces {
    /// Namespaces that went down with an outer one that is not over yet: its number is not another's before.
    nested: HashMap<u32, Vec<u32>>,
    by_inum: HashMap<u32, Known>,
    oldest: VecDeque<(u32, u64)>,
    generation: u64,
}

impl KnownNamespaces {
    /// A namespace was created at this time: whatever had its number before is gone.
    pub(super) fn created(&mut self, part: &NamespacePart, boot_ns: u64) -> Namespace {
        // Of one whose end was lost.
        self.nested.remove(&part.inum);
        self.insert(part, boot_ns);
        self.describe(part)
    }

    /// The namespace as events show it, with its birth where that is known.
    pub(super) fn describe(&mut self, part: &NamespacePart) -> Namespace {
        let NamespacePart {
            kernel_id,
            init_start_boot_ns,
            inum,
            level,
            parent_inum,
            user_ns_inum,
            owner_uid,
            ..
        } = *part;
        let born_boot_ns = match self.by_inum.get_mut(&inum) {
            Some(entry) if entry.is(part) => {
                if entry.init_start_boot_ns == 0 {
                    entry.init_start_boot_ns = init_start_boot_ns;
                }
                Some(entry.born_boot_ns)
            }
            // A late word of a namespace whose number is another's by now: it leaves that one alone.
            Some(later) if later.is_later_than(part) => known(init_start_boot_ns),
            _ if init_start_boot_ns != 0 => {
                self.insert(part, init_start_boot_ns);
                Some(init_start_boot_ns)
            }
            _ => None,
        };
        Namespace {
            inum,
            level,
            parent: (parent_inum != 0).then_some(parent_inum),
            born_boot_ns,
            kernel_id: (kernel_id != 0).then_some(kernel_id),
            user_ns: user_ns_inum,
            owner_uid,
            container: None,
        }
    }

    /// The namespace went down with an outer one.
    pub(super) fn went_down_with(&mut self, outer: u32, inum: u32) {
        if self.nested.len() >= LIMIT && !self.nested.contains_key(&outer) {
            // Teardowns whose end was lost: none is worth more than another.
            self.nested.clear();
        }
        self.nested.entry(outer).or_default().push(inum);
    }

    /// The namespaces that went down with this one, in the order of their ends.
    pub(super) fn take_nested(&mut self, inum: u32) -> Vec<u32> {
        self.nested.remove(&inum).unwrap_or_default()
    }

    /// The namespace is gone, and its number is free.
    pub(super) fn destroyed(&mut self, part: &NamespacePart) {
        if self.by_inum.get(&part.inum).is_some_and(|known| known.is(part)) {
            self.by_inum.remove(&part.inum);
        }
    }

    fn insert(&mut self, part: &NamespacePart, born_boot_ns: u64) {
        self.generation += 1;
        let generation = self.generation;
        self.by_inum.insert(
            part.inum,
            Known {
                born_boot_ns,
                kernel_id: part.kernel_id,
                init_start_boot_ns: part.init_start_boot_ns,
                generation,
            },
        );
        self.oldest.push_back((part.inum, generation));
        if self.oldest.len() > 2 * LIMIT {
            // Places of those that are gone: they must not push out who lives.
            let by_inum = &self.by_inum;
            let is_current = |(inum, generation): &(u32, u64)| {
                by_inum.get(inum).is_some_and(|known| known.generation == *generation)
            };
            self.oldest.retain(is_current);
        }
        while self.by_inum.len() > LIMIT {
            let Some((inum, generation)) = self.oldest.pop_front() else { break };
            if self.by_inum.get(&inum).is_some_and(|known| known.generation == generation) {
                self.by_inum.remove(&inum);
            }
        }
    }
}

fn known(boot_ns: u64) -> Option<u64> {
    (boot_ns != 0).then_some(boot_ns)
}

impl Known {
    /// Whether the record is about an earlier namespace of this number.
    fn is_later_than(&self, part: &NamespacePart) -> bool {
        if self.kernel_id != 0 && part.kernel_id != 0 {
            self.kernel_id > part.kernel_id
        } else {
            part.init_start_boot_ns != 0 && self.born_boot_ns > part.init_start_boot_ns
        }
    }

    /// Whether the record can be about this namespace: an earlier one of the same number has another id, or
    /// another init.
    fn is(&self, part: &NamespacePart) -> bool {
        self.kernel_id == part.kernel_id
            && (self.init_start_boot_ns == 0
                || part.init_start_boot_ns == 0
                || self.init_start_boot_ns == part.init_start_boot_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(inum: u32, init_start_boot_ns: u64) -> NamespacePart {
        NamespacePart {
            kernel_id: 0,
            init_start_boot_ns,
            inum,
            level: 1,
            parent_inum: 1,
            user_ns_inum: 2,
            owner_uid: 0,
            reserved: 0,
        }
    }

    #[test]
    fn a_creation_that_was_seen_is_the_birth() {
        let mut known = KnownNamespaces::default();
        assert_eq!(known.created(&part(7, 0), 100).born_boot_ns, Some(100));
        assert_eq!(known.describe(&part(7, 150)).born_boot_ns, Some(100), "its init came later");
        assert_eq!(known.describe(&part(7, 150)).born_boot_ns, Some(100));
    }

    #[test]
    fn an_unseen_creation_is_dated_by_the_init() {
        let mut known = KnownNamespaces::default();
        assert_eq!(known.describe(&part(7, 0)).born_boot_ns, None);
        assert_eq!(known.describe(&part(7, 90)).born_boot_ns, Some(90));
    }

    #[test]
    fn a_number_used_again_is_another_namespace() {
        let mut known = KnownNamespaces::default();
        known.created(&part(7, 100), 100);
        assert_eq!(known.describe(&part(7, 200)).born_boot_ns, Some(200), "another init");
        let with_id = NamespacePart { kernel_id: 5, ..part(7, 200) };
        assert_eq!(known.created(&with_id, 300).born_boot_ns, Some(300));
    }

    #[test]
    fn a_late_word_of_a_namespace_leaves_its_successor_alone() {
        let mut known = KnownNamespaces::default();
        let (first, second) =
            (NamespacePart { kernel_id: 5, ..part(7, 90) }, NamespacePart { kernel_id: 6, ..part(7, 0) });
        known.created(&first, 80);
        known.created(&second, 200);
        assert_eq!(known.describe(&first).born_boot_ns, Some(90));
        assert_eq!(
            known.describe(&NamespacePart { init_start_boot_ns: 210, ..second }).born_boot_ns,
            Some(200)
        );
    }

    #[test]
    fn what_went_down_with_a_namespace_is_told_once() {
        let mut known = KnownNamespaces::default();
        known.went_down_with(7, 9);
        known.went_down_with(7, 8);
        assert_eq!(known.take_nested(7), [9, 8]);
        assert!(known.take_nested(7).is_empty());
    }

    #[test]
    fn one_that_lives_is_not_pushed_out_by_many_that_do_not() {
        let mut known = KnownNamespaces::default();
        known.created(&part(7, 0), 100);
        for round in 0..3 * LIMIT as u64 {
            let short = part(8, 200 + round);
            known.created(&short, 200 + round);
            known.destroyed(&short);
        }
        assert_eq!(known.describe(&part(7, 150)).born_boot_ns, Some(100));
        assert!(known.oldest.len() <= 2 * LIMIT);
    }

    proptest! {
        #[test]
        fn memory_is_bounded(inums in proptest::collection::vec(0u32..30_000, 1..200), repeat in 1usize..300) {
            let mut known = KnownNamespaces::default();
            for round in 0..repeat {
                for inum in &inums {
                    known.created(&part(inum.wrapping_add(round as u32 * 7), 0), round as u64);
                }
            }
            prop_assert!(known.by_inum.len() <= LIMIT);
            prop_assert!(known.oldest.len() <= 2 * LIMIT);
        }
    }
}
