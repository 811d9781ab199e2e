//! What of a snapshot a view shows: namespaces, and processes of namespaces that containers share.

use std::collections::BTreeSet;

use crate::{
    event::identity::{HostPid, NsInum},
    event::snapshot::{Snapshot, SnapshotProcess},
    model::Forest,
};

/// What a TARGET selects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scope {
    /// Namespaces that are meant, with all that is below them.
    pub(crate) whole: Vec<NsInum>,
    /// Processes that are meant besides, of namespaces that others share.
    pub(crate) members: Vec<HostPid>,
}

impl Scope {
    /// This namespace and what is below it.
    pub(crate) fn of_namespace(inum: NsInum) -> Self {
        Self { whole: vec![inum], members: Vec::new() }
    }

    /// What either selects.
    pub(crate) fn with(mut self, other: Self) -> Self {
        self.whole.extend(other.whole);
        self.members.extend(other.members);
        self
    }

    /// The namespaces that are wholly meant, and those that the single processes are in: each once, and none that is below
    /// another of them.
    pub(crate) fn roots(&self, forest: &Forest<'_>) -> Vec<NsInum> {
        let of_members = self.members.iter().filter_map(|&pid| forest.process(pid)?.ns);
        let all: BTreeSet<NsInum> = self.whole.iter().copied().chain(of_members).collect();
        let is_below_another = |inum: NsInum| {
            let around = forest.ancestry(inum, None);
            around.iter().skip(1).any(|outer| all.contains(&outer.inum))
        };
        all.iter().copied().filter(|&inum| !is_below_another(inum)).collect()
    }

    /// The processes that are meant, in the snapshot's order.
    pub(crate) fn processes<'a>(
        &self,
        snapshot: &'a Snapshot,
        forest: &Forest<'_>,
    ) -> Vec<&'a SnapshotProcess> {
        let below: BTreeSet<NsInum> = self.whole.iter().flat_map(|&inum| forest.below(inum)).collect();
        let is_meant = |process: &&SnapshotProcess| {
            process.ns.is_some_and(|ns| below.contains(&ns)) || self.members.contains(&process.pid)
        };
        snapshot.processes.iter().filter(is_meant).collect()
    }
}
