//! The namespaces known so far: their births, for identification, and the nested namespaces that died with them.

use std::collections::{HashMap, VecDeque};

use pidns_ebpf::abi::NamespacePart;

use crate::event::Namespace;
use crate::event::identity::{BootNs, NsInum};

/// Capacity. Beyond it, the oldest are forgotten.
const LIMIT: usize = 10_000;

#[derive(Debug)]
struct KnownNamespace {
    born_boot_ns: BootNs,
    /// 0 if the kernel has no ids.
    kernel_id: u64,
    /// `None` if unknown.
    init_start_boot_ns: Option<BootNs>,
    /// Distinguishes this entry's position in the queue from an earlier one with the same inode number.
    generation: u64,
}

/// Namespaces by inode number. The kernel reuses inode numbers at once.
#[derive(Debug, Default)]
pub(super) struct KnownNamespaces {
    /// Nested namespaces that died with an outer one, whose number is not reused until its teardown is over.
    nested: HashMap<NsInum, Vec<NsInum>>,
    by_inum: HashMap<NsInum, KnownNamespace>,
    oldest: VecDeque<(NsInum, u64)>,
    generation: u64,
}

impl KnownNamespaces {
    /// Records the creation of a namespace at this time. An earlier namespace with its number is gone.
    pub(super) fn created(&mut self, part: &NamespacePart, boot_ns: BootNs) -> Namespace {
        // These belong to an earlier namespace whose end was lost.
        self.nested.remove(&NsInum(part.inum));
        self.insert(part, boot_ns);
        self.describe(part)
    }

    /// The namespace in the form of events, with its birth if known.
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
        let inum = NsInum(inum);
        let init_start = BootNs::known(init_start_boot_ns);
        let born_boot_ns = match self.by_inum.get_mut(&inum) {
            Some(entry) if entry.is(part) => {
                entry.init_start_boot_ns = entry.init_start_boot_ns.or(init_start);
                Some(entry.born_boot_ns)
            }
            // This is a late record of an earlier namespace with this number. It leaves the later one unchanged.
            Some(later) if later.is_later_than(part) => init_start,
            _ => init_start.inspect(|&start| self.insert(part, start)),
        };
        Namespace {
            inum,
            level,
            parent: NsInum::known(parent_inum),
            born_boot_ns,
            kernel_id: (kernel_id != 0).then_some(kernel_id),
            user_ns: user_ns_inum,
            owner_uid,
            container: None,
        }
    }

    /// Records that a namespace died with an outer one.
    pub(super) fn went_down_with(&mut self, outer: NsInum, inum: NsInum) {
        if self.nested.len() >= LIMIT && !self.nested.contains_key(&outer) {
            // These belong to teardowns whose end was lost. None is more useful than another.
            self.nested.clear();
        }
        self.nested.entry(outer).or_default().push(inum);
    }

    /// Removes and returns the namespaces that died with this one, in the order of their ends.
    pub(super) fn take_nested(&mut self, inum: NsInum) -> Vec<NsInum> {
        self.nested.remove(&inum).unwrap_or_default()
    }

    /// Records that a namespace is gone, so that its number is free.
    pub(super) fn destroyed(&mut self, part: &NamespacePart) {
        if self.by_inum.get(&NsInum(part.inum)).is_some_and(|known| known.is(part)) {
            self.by_inum.remove(&NsInum(part.inum));
        }
    }

    fn insert(&mut self, part: &NamespacePart, born_boot_ns: BootNs) {
        self.generation += 1;
        let generation = self.generation;
        self.by_inum.insert(
            NsInum(part.inum),
            KnownNamespace {
                born_boot_ns,
                kernel_id: part.kernel_id,
                init_start_boot_ns: BootNs::known(part.init_start_boot_ns),
                generation,
            },
        );
        self.oldest.push_back((NsInum(part.inum), generation));
        if self.oldest.len() > 2 * LIMIT {
            // Entries of gone namespaces must not push out existing ones.
            let by_inum = &self.by_inum;
            let is_current = |(inum, generation): &(NsInum, u64)| {
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

impl KnownNamespace {
    /// Whether the record is about an earlier namespace with this number.
    fn is_later_than(&self, part: &NamespacePart) -> bool {
        part.init_start_boot_ns != 0 && self.born_boot_ns.0 > part.init_start_boot_ns
    }

    /// Whether the record can be about this namespace. An earlier namespace with the same number has another id, or
    /// another init.
    fn is(&self, part: &NamespacePart) -> bool {
        self.kernel_id == part.kernel_id
            && self
                .init_start_boot_ns
                .zip(BootNs::known(part.init_start_boot_ns))
                .is_none_or(|(known, given)| known == given)
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
            pid_max: 0,
            pids_in_use: 0,
            reserved: 0,
        }
    }

    #[test]
    fn a_reported_creation_is_the_birth() {
        let mut known = KnownNamespaces::default();
        assert_eq!(known.created(&part(7, 0), BootNs(100)).born_boot_ns, Some(BootNs(100)));
        assert_eq!(known.describe(&part(7, 150)).born_boot_ns, Some(BootNs(100)), "its init came later");
        assert_eq!(known.describe(&part(7, 150)).born_boot_ns, Some(BootNs(100)));
    }

    #[test]
    fn a_missed_creation_is_dated_by_the_init() {
        let mut known = KnownNamespaces::default();
        assert_eq!(known.describe(&part(7, 0)).born_boot_ns, None);
        assert_eq!(known.describe(&part(7, 90)).born_boot_ns, Some(BootNs(90)));
    }

    #[test]
    fn a_reused_number_means_another_namespace() {
        let mut known = KnownNamespaces::default();
        known.created(&part(7, 100), BootNs(100));
        assert_eq!(known.describe(&part(7, 200)).born_boot_ns, Some(BootNs(200)), "another init");
        let with_id = NamespacePart { kernel_id: 5, ..part(7, 200) };
        assert_eq!(known.created(&with_id, BootNs(300)).born_boot_ns, Some(BootNs(300)));
    }

    #[test]
    fn a_late_event_of_a_namespace_leaves_its_successor_alone() {
        let mut known = KnownNamespaces::default();
        // The kernel's ids do not increase from one namespace to the next.
        let (first, second) =
            (NamespacePart { kernel_id: 6, ..part(7, 90) }, NamespacePart { kernel_id: 5, ..part(7, 0) });
        known.created(&first, BootNs(80));
        known.created(&second, BootNs(200));
        assert_eq!(known.describe(&first).born_boot_ns, Some(BootNs(90)));
        assert_eq!(
            known.describe(&NamespacePart { init_start_boot_ns: 210, ..second }).born_boot_ns,
            Some(BootNs(200))
        );
    }

    #[test]
    fn a_namespaces_teardown_is_reported_once() {
        let mut known = KnownNamespaces::default();
        known.went_down_with(NsInum(7), NsInum(9));
        known.went_down_with(NsInum(7), NsInum(8));
        assert_eq!(known.take_nested(NsInum(7)), [9, 8].map(NsInum));
        assert!(known.take_nested(NsInum(7)).is_empty());
    }

    #[test]
    fn an_existing_namespace_is_not_pushed_out_by_many_gone_ones() {
        let mut known = KnownNamespaces::default();
        known.created(&part(7, 0), BootNs(100));
        for round in 0..3 * LIMIT as u64 {
            let short = part(8, 200 + round);
            known.created(&short, BootNs(200 + round));
            known.destroyed(&short);
        }
        assert_eq!(known.describe(&part(7, 150)).born_boot_ns, Some(BootNs(100)));
        assert!(known.oldest.len() <= 2 * LIMIT);
    }

    proptest! {
        #[test]
        fn memory_is_bounded(inums in proptest::collection::vec(0u32..30_000, 1..200), repeat in 1usize..300) {
            let mut known = KnownNamespaces::default();
            for round in 0..repeat {
                for inum in &inums {
                    known.created(&part(inum.wrapping_add(round as u32 * 7), 0), BootNs(round as u64));
                }
            }
            prop_assert!(known.by_inum.len() <= LIMIT);
            prop_assert!(known.oldest.len() <= 2 * LIMIT);
        }
    }
}
