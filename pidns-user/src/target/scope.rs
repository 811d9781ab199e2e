//! The part of a snapshot that a view shows: namespaces, and single processes of namespaces that containers share.

use std::collections::BTreeSet;

use crate::{
    event::identity::{HostPid, NsInum},
    event::snapshot::{Snapshot, SnapshotProcess},
    model::Forest,
};

/// The namespaces and processes that a TARGET selects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scope {
    /// Selected namespaces. Those nested in them are selected too.
    pub(crate) whole: Vec<NsInum>,
    /// Selected processes of other namespaces, which several containers share.
    pub(crate) members: Vec<HostPid>,
}

impl Scope {
    /// Selects a namespace and those nested in it.
    pub(crate) fn of_namespace(inum: NsInum) -> Self {
        Self { whole: vec![inum], members: Vec::new() }
    }

    /// Selects what either of the two selects.
    pub(crate) fn with(mut self, other: Self) -> Self {
        self.whole.extend(other.whole);
        self.members.extend(other.members);
        self
    }

    /// The selected namespaces and those of the selected processes, each once, without those nested in another of them.
    pub(crate) fn roots(&self, forest: &Forest<'_>) -> Vec<NsInum> {
        let of_members = self.members.iter().filter_map(|&pid| forest.process(pid)?.ns);
        let all: BTreeSet<NsInum> = self.whole.iter().copied().chain(of_members).collect();
        let is_below_another = |inum: NsInum| {
            let around = forest.ancestry(inum, None);
            around.iter().skip(1).any(|outer| all.contains(&outer.inum))
        };
        all.iter().copied().filter(|&inum| !is_below_another(inum)).collect()
    }

    /// The selected processes, in the snapshot's order.
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
