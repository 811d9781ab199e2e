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
    /// Namespaces below that its end took with it.
    nested: Vec<u32>,
    /// Tells this entry's place in the queue from an earlier one of the same inode number.
    generation: u64,
}

/// Namespaces by inode number; the kernel gives a number to the next one at once.
#[derive(Debug, Default)]
pub struct KnownNamespaces {
    by_inum: HashMap<u32, Known>,
    oldest: VecDeque<(u32, u64)>,
    generation: u64,
}

impl KnownNamespaces {
    /// A namespace was created at this time: whatever had its number before is gone.
    pub fn created(&mut self, part: &NamespacePart, boot_ns: u64) -> Namespace {
        self.insert(part, boot_ns);
        self.describe(part)
    }

    /// The namespace as events show it, with its birth where that is known.
    pub fn describe(&mut self, part: &NamespacePart) -> Namespace {
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
        let same = self.by_inum.get_mut(&inum).filter(|known| known.is(part));
        let born_boot_ns = match same {
            Some(known) => {
                if known.init_start_boot_ns == 0 {
                    known.init_start_boot_ns = init_start_boot_ns;
                }
                Some(known.born_boot_ns)
            }
            None if init_start_boot_ns != 0 => {
                self.insert(part, init_start_boot_ns);
                Some(init_start_boot_ns)
            }
            None => None,
        };
        Namespace {
            inum,
            level,
            parent: (parent_inum != 0).then_some(parent_inum),
            born_boot_ns,
            kernel_id: (kernel_id != 0).then_some(kernel_id),
            user_ns: user_ns_inum,
            owner_uid,
        }
    }

    /// The namespace went down with an outer one.
    pub fn went_down_with(&mut self, outer: u32, inum: u32) {
        if let Some(known) = self.by_inum.get_mut(&outer) {
            known.nested.push(inum);
        }
    }

    /// The namespaces that went down with this one, in the order of their ends.
    pub fn take_nested(&mut self, inum: u32) -> Vec<u32> {
        self.by_inum.get_mut(&inum).map(|known| std::mem::take(&mut known.nested)).unwrap_or_default()
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
                nested: Vec::new(),
                generation,
            },
        );
        self.oldest.push_back((part.inum, generation));
        while self.by_inum.len() > LIMIT || self.oldest.len() > 2 * LIMIT {
            let Some((inum, generation)) = self.oldest.pop_front() else { break };
            if self.by_inum.get(&inum).is_some_and(|known| known.generation == generation) {
                self.by_inum.remove(&inum);
            }
        }
    }
}

impl Known {
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
        known.went_down_with(7, 8);
        assert_eq!(known.describe(&part(7, 200)).born_boot_ns, Some(200), "another init");
        assert!(known.take_nested(7).is_empty(), "what went down with the first is not the second's");
        let with_id = NamespacePart { kernel_id: 5, ..part(7, 200) };
        assert_eq!(known.created(&with_id, 300).born_boot_ns, Some(300));
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
