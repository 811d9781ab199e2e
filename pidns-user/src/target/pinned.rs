//! The TARGET of a command that looks again and again.

use super::{TargetError, find, scope::Scope};
use crate::{
    event::identity::NsInum,
    event::snapshot::{Snapshot, SnapshotNamespace},
    model::Forest,
};

/// A TARGET: found by its words once, and from then on the same namespaces.
pub(crate) struct PinnedTarget<'a> {
    words: Option<&'a str>,
    found: Option<Vec<SnapshotNamespace>>,
    /// Whether processes are meant that share a namespace with others: which ones is found anew each time.
    has_members: bool,
}

/// What is to be looked at now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// All there is.
    All,
    /// These namespaces and processes.
    Scope(Scope),
    /// The namespace of this number was looked at before, and does not exist any more.
    Gone(NsInum),
}

impl<'a> PinnedTarget<'a> {
    pub(crate) fn new(words: Option<&'a str>) -> Self {
        Self { words, found: None, has_members: false }
    }

    /// The words, as long as they have to be looked up.
    pub(crate) fn words(&self) -> Option<&'a str> {
        self.words.filter(|_| self.found.is_none() || self.has_members)
    }

    /// Finds it in a snapshot.
    pub(crate) fn find(&mut self, snapshot: &Snapshot, forest: &Forest<'_>) -> Result<Lookup, TargetError> {
        let Some(words) = self.words else { return Ok(Lookup::All) };
        let is_there = |found: &&SnapshotNamespace| {
            forest.node(found.inum).is_some_and(|node| is_same(found, node.namespace))
        };
        let Some(found) = self.found.as_ref().filter(|_| !self.has_members) else {
            let scope = find::scope(words, snapshot, forest);
            let scope = match (scope, &self.found) {
                // It was there before.
                (Err(TargetError::NoMatch(_)), Some(found)) => {
                    return Ok(Lookup::Gone(found.first().map(|ns| ns.inum).unwrap_or_default()));
                }
                (scope, _) => scope?,
            };
            self.has_members = !scope.members.is_empty();
            let roots = scope.roots(forest);
            let nodes = roots.iter().filter_map(|&inum| forest.node(inum));
            self.found = Some(nodes.map(|node| node.namespace.clone()).collect());
            return Ok(Lookup::Scope(scope));
        };
        let whole: Vec<NsInum> = found.iter().filter(is_there).map(|ns| ns.inum).collect();
        Ok(match (whole.is_empty(), found.first()) {
            (true, Some(gone)) => Lookup::Gone(gone.inum),
            _ => Lookup::Scope(Scope { whole, members: Vec::new() }),
        })
    }
}

/// Whether two namespaces of one inode number, which the kernel gives out again at once, are one, as far as it is known.
fn is_same(earlier: &SnapshotNamespace, later: &SnapshotNamespace) -> bool {
    match (earlier.kernel_id, later.kernel_id) {
        (Some(earlier), Some(later)) => earlier == later,
        _ => match (earlier.born_boot_ns, later.born_boot_ns) {
            // A look at /proc, where the iterator has failed since the one before, rounds births.
            (Some(earlier), Some(later)) => earlier.is_same(later),
            _ => true,
        },
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::event::identity::BootNs;
    use crate::event::snapshot::SnapshotSource;

    fn snapshot(namespaces: &[SnapshotNamespace]) -> Snapshot {
        Snapshot {
            namespaces: namespaces.iter().map(|ns| (ns.inum, ns.clone())).collect(),
            ..Snapshot::empty(SnapshotSource::Iterator, BootNs(0))
        }
    }

    #[test]
    fn a_target_is_found_once_and_is_gone_with_its_namespace() {
        const INUM: NsInum = NsInum(4026532001);
        let born = |born| SnapshotNamespace { born_boot_ns: Some(born), ..SnapshotNamespace::bare(INUM, 1) };
        let words = INUM.to_string();
        let mut followed = PinnedTarget::new(Some(&words));
        let mut look = |namespaces: &[SnapshotNamespace]| {
            let snapshot = snapshot(namespaces);
            let found = followed.find(&snapshot, &Forest::new(&snapshot)).expect("it was there");
            (found, followed.words().is_some())
        };
        let there = || Lookup::Scope(Scope::of_namespace(INUM));
        assert_eq!(look(&[born(BootNs(5))]), (there(), false), "no name is needed any more");
        assert_eq!(look(&[born(BootNs(5))]), (there(), false));
        assert_eq!(look(&[]), (Lookup::Gone(INUM), false));
        assert_eq!(
            look(&[born(BootNs(5_000_000_000))]),
            (Lookup::Gone(INUM), false),
            "a later one of the number"
        );
    }

    #[test]
    fn a_later_namespace_of_the_same_number_is_another() {
        let of = |kernel_id, born_boot_ns| SnapshotNamespace {
            kernel_id,
            born_boot_ns,
            ..SnapshotNamespace::bare(NsInum(7), 1)
        };
        assert!(is_same(&of(Some(1), Some(BootNs(5))), &of(Some(1), Some(BootNs(5)))));
        assert!(is_same(&of(Some(1), Some(BootNs(5))), &of(Some(1), None)), "its init has died");
        assert!(is_same(&of(None, None), &of(None, Some(BootNs(5)))), "its init was born");
        assert!(!is_same(&of(Some(1), None), &of(Some(2), None)));
        assert!(!is_same(&of(None, Some(BootNs(5_000_000))), &of(None, Some(BootNs(25_000_000)))));
        assert!(
            is_same(&of(None, Some(BootNs(25_000_001))), &of(None, Some(BootNs(20_000_000)))),
            "/proc rounds births"
        );
        assert!(
            is_same(&of(Some(1), Some(BootNs(5))), &of(Some(1), Some(BootNs(95_000_000)))),
            "the kernel's number decides"
        );
    }
}
