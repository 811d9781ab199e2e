//! Tracks a snapshot while the model applies it.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::event::identity::{HostPid, NsInum};
use crate::event::snapshot::Holder;

/// The known objects that a snapshot has not listed yet, and the namespaces in which children will be born.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SnapshotPass {
    /// Known processes that the snapshot has not listed yet.
    processes: HashSet<HostPid>,
    /// Known namespaces that it has not listed yet.
    namespaces: BTreeSet<NsInum>,
    /// Namespaces that it has listed.
    listed: BTreeSet<NsInum>,
    /// pid_for_children by PID. It is in the namespace records, which arrive before the process records.
    children: HashMap<HostPid, NsInum>,
    /// Whether the namespace records omit some holders.
    omits_holders: bool,
    /// Whether any record arrived. If not, the stream may have filtered out the whole snapshot, and nothing is removed.
    has_begun: bool,
}

impl SnapshotPass {
    /// Starts a pass over a snapshot that should list these processes and namespaces. `reports_holders`: whether its
    /// namespace records include holders.
    pub(super) fn of(
        processes: impl Iterator<Item = HostPid>,
        namespaces: impl Iterator<Item = NsInum>,
        reports_holders: bool,
    ) -> Self {
        Self {
            processes: processes.collect(),
            namespaces: namespaces.collect(),
            omits_holders: !reports_holders,
            ..Self::default()
        }
    }

    pub(super) fn on_namespace(&mut self, inum: NsInum, holders: &[Holder], left_out: u64) {
        self.has_begun = true;
        self.omits_holders |= left_out > 0;
        self.namespaces.remove(&inum);
        self.listed.insert(inum);
        for holder in holders {
            if let Holder::PidForChildren { pid, .. } = holder {
                self.children.insert(*pid, inum);
            }
        }
    }

    /// Whether the snapshot has listed this namespace.
    pub(super) fn has_named(&self, inum: NsInum) -> bool {
        self.listed.contains(&inum)
    }

    /// Marks the process as listed. Returns the namespace in which its children will be born: the one that a record
    /// names, or else its own. If records omit holders, a missing record proves nothing, and the result is `None`.
    pub(super) fn on_process(&mut self, pid: HostPid, inum: NsInum) -> Option<NsInum> {
        self.has_begun = true;
        self.processes.remove(&pid);
        self.namespaces.remove(&inum);
        self.children.get(&pid).copied().or((!self.omits_holders).then_some(inum))
    }

    /// The known processes and namespaces that the snapshot has not listed; `None` if no record arrived.
    pub(super) fn unnamed(self) -> Option<(HashSet<HostPid>, BTreeSet<NsInum>)> {
        self.has_begun.then_some((self.processes, self.namespaces))
    }
}
