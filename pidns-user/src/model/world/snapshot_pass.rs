//! A snapshot while it is being applied.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::event::identity::{HostPid, NsInum};
use crate::event::snapshot::Holder;

/// Tracks one snapshot: the known objects that it has not listed yet, and where children will be born.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SnapshotPass {
    processes: HashSet<HostPid>,
    namespaces: BTreeSet<NsInum>,
    /// The namespaces that it has listed.
    named: BTreeSet<NsInum>,
    /// pid_for_children by PID. Namespace records carry it and arrive before process records.
    children: HashMap<HostPid, NsInum>,
    /// Whether some of those were omitted.
    children_left_out: bool,
    /// Whether any record arrived. If the stream filters out the whole snapshot, nothing may be concluded.
    has_begun: bool,
}

impl SnapshotPass {
    /// Starts a pass; `processes` and `namespaces` are those that the snapshot should list. `reports_holders`: its
    /// records include pid_for_children.
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

    pub(super) fn on_namespace(&mut self, inum: NsInum, holders: &[Holder], left_out: u64) {
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

    /// Whether it has listed this namespace.
    pub(super) fn has_named(&self, inum: NsInum) -> bool {
        self.named.contains(&inum)
    }

    /// Returns the namespace in which the children of this process will be born: its own if no record names another,
    /// `None` if holders were omitted, so that a missing entry proves nothing.
    pub(super) fn on_process(&mut self, pid: HostPid, inum: NsInum) -> Option<NsInum> {
        self.has_begun = true;
        self.processes.remove(&pid);
        self.namespaces.remove(&inum);
        self.children.get(&pid).copied().or((!self.children_left_out).then_some(inum))
    }

    /// The processes and namespaces that it has not listed; `None` if no record arrived.
    pub(super) fn unnamed(self) -> Option<(HashSet<HostPid>, BTreeSet<NsInum>)> {
        self.has_begun.then_some((self.processes, self.namespaces))
    }
}
