//! A snapshot while it is being applied.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::event::identity::{HostPid, NsInum};
use crate::event::snapshot::Holder;

/// Objects known when it began that it has not named yet, and its records that belong to other objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SnapshotPass {
    processes: HashSet<HostPid>,
    namespaces: BTreeSet<NsInum>,
    /// The namespaces that it has named.
    named: BTreeSet<NsInum>,
    /// Where the children of processes go, by their PIDs: the records of namespaces have that, and come before those of processes.
    children: HashMap<HostPid, NsInum>,
    /// Whether some of those were left out.
    children_left_out: bool,
    /// Whether it has named anything: of a stream that shows none of it nothing follows.
    has_begun: bool,
}

impl SnapshotPass {
    /// One at a time at which these are known and would be named by it. `reports_holders`: it has where the children of
    /// processes go.
    pub(super) fn of(
        processes: impl Iterator<Item = HostPid>,
        namespaces: impl Iterator<Item = NsInum>,
        reports_holders: bool,
    ) -> Self {
        Self {
            processes: processes.collect(),
            namespaces: namespaces.collect(),
            children_left_out: !reports_holders,
            ..Self::default()
        }
    }

    pub(super) fn has_seen_namespace(&mut self, inum: NsInum, holders: &[Holder], left_out: u64) {
        self.has_begun = true;
        self.children_left_out |= left_out > 0;
        self.namespaces.remove(&inum);
        self.named.insert(inum);
        for holder in holders {
            if let Holder::PidForChildren { pid, .. } = holder {
                self.children.insert(*pid, inum);
            }
        }
    }

    /// Whether it has named this namespace.
    pub(super) fn has_named(&self, inum: NsInum) -> bool {
        self.named.contains(&inum)
    }

    /// The namespace in which this one's children will be born; its own where no record has another, and `None`
    /// where that means nothing.
    pub(super) fn has_seen_process(&mut self, pid: HostPid, inum: NsInum) -> Option<NsInum> {
        self.has_begun = true;
        self.processes.remove(&pid);
        self.namespaces.remove(&inum);
        self.children.get(&pid).copied().or((!self.children_left_out).then_some(inum))
    }

    /// The processes and namespaces that it has not named.
    pub(super) fn unnamed(self) -> Option<(HashSet<HostPid>, BTreeSet<NsInum>)> {
        self.has_begun.then_some((self.processes, self.namespaces))
    }
}
