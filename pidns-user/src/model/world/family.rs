//! Parents of processes, and the new parent when one exits.
//!
//! When a process exits (not when it is reaped), the kernel reparents its children to the nearest ancestor that is a
//! subreaper (PR_SET_CHILD_SUBREAPER), has a living thread and is at the same level. If there is none, to PID 1 of the
//! exiting process's namespace, even for children in other namespaces (`find_new_reaper()`, kernel/exit.c). No event
//! shows which process is a subreaper. But if that PID 1 is the only ancestor at that level, no subreaper can come in
//! between.
//!
//! A PID 1 that exits keeps its children: before the kernel would reparent them, it kills every process in the
//! namespace and below, and PID 1 reaps them (`zap_pid_ns_processes()`).

use super::{Change, ProcessState, World, process_state::NewParent};
use crate::event::identity::{HostPid, ProcessKey};

/// The process that reaps another one when it ends: its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaper {
    /// The process with this PID at level 0: an event named it as the parent, or the kernel's rules leave no other.
    Parent(HostPid),
    /// The parent has ended, and no event has named the next one. It is PID 1 of the namespace that the parent was in,
    /// or an ancestor of the parent's there that is a subreaper.
    InitOrSubreaper {
        /// PID at level 0 of that PID 1; `None` if unknown.
        init: Option<HostPid>,
    },
    /// No parent is known. It is one of the host's first processes. Or its parent was a PID 1 that is gone; then the
    /// kernel killed it too, and the model missed that.
    Unknown,
}

impl World {
    /// The reaper of this process or zombie, as far as that is certain.
    pub fn reaper(&self, entry: &ProcessState) -> Reaper {
        match (entry.parent, entry.heir) {
            (Some(parent), _) => Reaper::Parent(parent),
            (None, Some(heir)) => Reaper::InitOrSubreaper {
                init: heir.init.filter(|&init| self.has(init)).map(|init| init.pid),
            },
            (None, None) => Reaper::Unknown,
        }
    }

    /// Sets the parent named by an event or a snapshot.
    pub(super) fn set_parent(&mut self, pid: HostPid, parent: Option<HostPid>, changes: &mut Vec<Change>) {
        let heir = parent
            .and_then(|parent| self.processes.get(&parent))
            .filter(|parent| parent.ended.is_some() && !parent.is_init())
            .map(|parent| self.heir(parent));
        match heir {
            // The parent has exited, but the kernel had not reparented this child yet when it was reported.
            Some(heir) => self.orphan(pid, heir, changes),
            None => self.move_to(pid, parent),
        }
    }

    /// Reparents the children of a process that has ended.
    pub(super) fn reparent_children(&mut self, pid: HostPid, changes: &mut Vec<Change>) {
        let Some(dead) = self.processes.get(&pid).filter(|dead| !dead.is_init()) else { return };
        let heir = self.heir(dead);
        for child in self.children.remove(&pid).unwrap_or_default() {
            self.orphan(child, heir, changes);
        }
    }

    /// Removes a process that is gone from its parent's children. Its remaining children have no parent.
    pub(super) fn remove_from_family(&mut self, pid: HostPid, changes: &mut Vec<Change>) {
        self.reparent_children(pid, changes);
        for child in self.children.remove(&pid).unwrap_or_default() {
            if let Some(child) = self.processes.get_mut(&child) {
                child.parent = None;
                changes.push(Change::ProcessUpdated(child.key()));
            }
        }
        if let Some(parent) = self.processes.get(&pid).and_then(|entry| entry.parent) {
            self.remove_child(parent, pid);
        }
    }

    /// The process that adopts its children. It is certain to be PID 1 if the dead process's parent is that PID 1 or is
    /// at an outer level, because no subreaper can then come in between. Later events do not change that.
    fn heir(&self, dead: &ProcessState) -> NewParent {
        let init = self.namespaces.get(&dead.process.ns).and_then(|entry| entry.init);
        let is_further_out = |parent: &ProcessState| parent.process.pids.len() < dead.process.pids.len();
        let certain = dead.parent.is_some_and(|parent| {
            Some(parent) == init || self.processes.get(&parent).is_some_and(is_further_out)
        });
        NewParent { init: init.and_then(|init| self.processes.get(&init)).map(ProcessState::key), certain }
    }

    fn orphan(&mut self, pid: HostPid, heir: NewParent, changes: &mut Vec<Change>) {
        let parent = heir.init.filter(|_| heir.certain).map(|init| init.pid);
        self.move_to(pid, parent);
        let Some(child) = self.processes.get_mut(&pid) else { return };
        child.orphaned = true;
        child.heir = parent.is_none().then_some(heir);
        changes.push(Change::ProcessUpdated(child.key()));
    }

    fn move_to(&mut self, pid: HostPid, parent: Option<HostPid>) {
        let parent = parent.filter(|&parent| parent != pid);
        if let Some(parent) = parent {
            self.break_cycle(pid, parent);
        }
        let Some(entry) = self.processes.get_mut(&pid) else { return };
        entry.heir = None;
        if let Some(before) = std::mem::replace(&mut entry.parent, parent) {
            self.remove_child(before, pid);
        }
        if let Some(parent) = parent {
            self.children.entry(parent).or_default().insert(pid);
        }
    }

    /// Removes the parent of one process if the new parent is a descendant in the model. No process is its own
    /// ancestor, so the model is wrong then.
    fn break_cycle(&mut self, pid: HostPid, parent: HostPid) {
        if !self.children.contains_key(&pid) {
            return;
        }
        let mut below = parent;
        while let Some(above) = self.processes.get(&below).and_then(|entry| entry.parent) {
            if above == pid {
                return self.move_to(below, None);
            }
            below = above;
        }
    }

    fn remove_child(&mut self, parent: HostPid, child: HostPid) {
        if let Some(children) = self.children.get_mut(&parent) {
            children.remove(&child);
            if children.is_empty() {
                self.children.remove(&parent);
            }
        }
    }

    fn has(&self, key: ProcessKey) -> bool {
        self.processes.get(&key.pid).is_some_and(|entry| entry.key().is_same(key))
    }
}
