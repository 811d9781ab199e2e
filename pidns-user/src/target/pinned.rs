//! The TARGETs of a command that takes repeated snapshots (`--watch`).

use super::{TargetError, find, scope::Scope};
use crate::{
    event::identity::NsInum,
    event::snapshot::{Snapshot, SnapshotNamespace},
    model::Forest,
};

/// The TARGETs of one command.
pub(crate) struct PinnedTargets<'a>(Vec<PinnedTarget<'a>>);

impl<'a> PinnedTargets<'a> {
    pub(crate) fn new(targets: &'a [String]) -> Self {
        Self(targets.iter().map(|target| PinnedTarget::new(target)).collect())
    }

    /// The TARGETs that the next snapshot must resolve by their text.
    pub(crate) fn text(&self) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter_map(PinnedTarget::text)
    }

    /// Finds those that still exist in a snapshot. Returns [`Lookup::Gone`] after the last one is gone.
    pub(crate) fn find(&mut self, snapshot: &Snapshot, forest: &Forest<'_>) -> Result<Lookup, TargetError> {
        let found = self.0.iter_mut().map(|target| target.find(snapshot, forest));
        let found = found.collect::<Result<Vec<Lookup>, _>>()?;
        Ok(found.into_iter().reduce(Lookup::or).unwrap_or(Lookup::All))
    }
}

/// A TARGET. It is resolved by its text once. From then on it means the same namespaces.
struct PinnedTarget<'a> {
    text: &'a str,
    found: Option<Vec<SnapshotNamespace>>,
    /// Whether it selects single processes that share a namespace with others. Then each snapshot resolves it again.
    has_members: bool,
}

/// The part of a snapshot to show.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// Everything.
    All,
    /// These namespaces and processes.
    Scope(Scope),
    /// Nothing: the namespace with this number was shown before and no longer exists.
    Gone(NsInum),
}

impl Lookup {
    /// Both, or the one that exists.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Scope(one), Self::Scope(other)) => Self::Scope(one.with(other)),
            (Self::Gone(_), there @ Self::Scope(_)) | (there @ Self::Scope(_), Self::Gone(_)) => there,
            (all @ Self::All, _) | (_, all @ Self::All) => all,
            (gone @ Self::Gone(_), Self::Gone(_)) => gone,
        }
    }
}

impl<'a> PinnedTarget<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, found: None, has_members: false }
    }

    /// The text, if the next snapshot must resolve it.
    fn text(&self) -> Option<&'a str> {
        (self.found.is_none() || self.has_members).then_some(self.text)
    }

    /// Finds it in a snapshot.
    fn find(&mut self, snapshot: &Snapshot, forest: &Forest<'_>) -> Result<Lookup, TargetError> {
        let text = self.text;
        let is_there = |found: &&SnapshotNamespace| {
            forest.node(found.inum).is_some_and(|node| is_same(found, node.namespace))
        };
        let Some(found) = self.found.as_ref().filter(|_| !self.has_members) else {
            let scope = find::scope(text, snapshot, forest);
            let scope = match (scope, &self.found) {
                // An earlier snapshot had it.
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

/// Whether two namespaces with the same inode number are the same, as far as we know. The kernel reuses numbers at
/// once.
fn is_same(earlier: &SnapshotNamespace, later: &SnapshotNamespace) -> bool {
    match (earlier.kernel_id, later.kernel_id) {
        (Some(earlier), Some(later)) => earlier == later,
        _ => match (earlier.born_boot_ns, later.born_boot_ns) {
            // A snapshot from /proc, after a failure of the iterator, rounds births.
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
        let text = INUM.to_string();
        let mut followed = PinnedTarget::new(&text);
        let mut find = |namespaces: &[SnapshotNamespace]| {
            let snapshot = snapshot(namespaces);
            let found = followed.find(&snapshot, &Forest::new(&snapshot)).expect("it was there");
            (found, followed.text().is_some())
        };
        let there = || Lookup::Scope(Scope::of_namespace(INUM));
        assert_eq!(find(&[born(BootNs(5))]), (there(), false), "its text is not needed any more");
        assert_eq!(find(&[born(BootNs(5))]), (there(), false));
        assert_eq!(find(&[]), (Lookup::Gone(INUM), false));
        assert_eq!(
            find(&[born(BootNs(5_000_000_000))]),
            (Lookup::Gone(INUM), false),
            "a later namespace with the same number"
        );
    }

    #[test]
    fn of_several_targets_those_are_shown_that_are_still_there() {
        let (one, other) = (NsInum(4026532001), NsInum(4026532002));
        let targets = [one.to_string(), other.to_string()];
        let mut pinned = PinnedTargets::new(&targets);
        let mut find = |inums: &[NsInum]| {
            let namespaces: Vec<_> = inums.iter().map(|inum| SnapshotNamespace::bare(*inum, 1)).collect();
            let snapshot = snapshot(&namespaces);
            pinned.find(&snapshot, &Forest::new(&snapshot)).expect("they were there")
        };
        let both = Scope { whole: vec![one, other], members: Vec::new() };
        assert_eq!(find(&[one, other]), Lookup::Scope(both));
        assert_eq!(find(&[other]), Lookup::Scope(Scope::of_namespace(other)));
        assert_eq!(find(&[]), Lookup::Gone(one));
        let none = snapshot(&[]);
        assert_eq!(PinnedTargets::new(&[]).find(&none, &Forest::new(&none)), Ok(Lookup::All));
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
