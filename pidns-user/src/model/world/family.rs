//! Who is whose parent, and whose a process becomes when its parent has ended.
//!
//! The kernel gives the children of a process that exits (not of one that is reaped) to the nearest ancestor of it that is
//! a subreaper (PR_SET_CHILD_SUBREAPER), has a living thread, and is at the level of the one that exits; else to PID 1 of
//! the namespace of the one that exits, wherever its children are (`find_new_reaper()`, kernel/exit.c). No event shows which process
//! is a subreaper. But where no other ancestor than that PID 1 is at that level, no subreaper can come in between.
//!
//! A PID 1 that exits keeps its children: the kernel kills them, with all that is in the namespace and below, and PID 1
//! reaps them, before it would give them to another process (`zap_pid_ns_processes()`).

use super::{Change, ProcessState, World, process_state::Heir};
use crate::event::identity::{HostPid, ProcessKey};

/// Who reaps a process when it ends: its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaper {
    /// The process of this PID at level 0: an event named it as the parent, or the kernel's rules leave no other.
    Parent(HostPid),
    /// The parent has ended, and no event has named the next one. It is PID 1 of the namespace that the parent was in, or
    /// an ancestor of the parent's there that is a subreaper.
    InitOrSubreaper {
        /// That PID 1, by its PID at level 0; `None` where it is not known.
        init: Option<HostPid>,
    },
    /// No parent was named: it is one of the machine's first processes; or its parent was a PID 1 that is gone, and it
    /// has gone with it, unseen.
    Unknown,
}

impl World {
    /// Who reaps this process when it ends, or is to reap its zombie, as far as that is certain.
    pub fn reaper(&self, entry: &ProcessState) -> Reaper {
        match (entry.parent, entry.heir) {
            (Some(parent), _) => Reaper::Parent(parent),
            (None, Some(heir)) => Reaper::InitOrSubreaper {
                init: heir.init.filter(|&init| self.has(init)).map(|init| init.pid),
            },
            (None, None) => Reaper::Unknown,
        }
    }

    /// Its parent is this one, as an event or a snapshot had it.
    pub(super) fn parent_is(&mut self, pid: HostPid, parent: Option<HostPid>, changes: &mut Vec<Change>) {
        let heir = parent
            .and_then(|parent| self.processes.get(&parent))
            .filter(|parent| parent.ended.is_some() && !parent.is_init())
            .map(|parent| self.heir(parent));
        match heir {
            // It was reported between the parent's last act and the kernel's giving its children away.
            Some(heir) => self.orphan(pid, heir, changes),
            None => self.move_to(pid, parent),
        }
    }

    /// This process has ended: its children are no longer its own.
    pub(super) fn give_children_away(&mut self, pid: HostPid, changes: &mut Vec<Change>) {
        let Some(dead) = self.processes.get(&pid).filter(|dead| !dead.is_init()) else { return };
        let heir = self.heir(dead);
        for child in self.children.remove(&pid).unwrap_or_default() {
            self.orphan(child, heir, changes);
        }
    }

    /// This process is gone: its remaining children have no parent.
    pub(super) fn leave_family(&mut self, pid: HostPid, changes: &mut Vec<Change>) {
        self.give_children_away(pid, changes);
        for child in self.children.remove(&pid).unwrap_or_default() {
            if let Some(child) = self.processes.get_mut(&child) {
                child.parent = None;
                changes.push(Change::ProcessUpdated(child.key()));
            }
        }
        if let Some(parent) = self.processes.get(&pid).and_then(|entry| entry.parent) {
            self.forget_child(parent, pid);
        }
    }

    /// Who takes its children. That it is certain stays so: neither PID 1 as the parent nor one further out ever turns
    /// into a member of the same level.
    fn heir(&self, dead: &ProcessState) -> Heir {
        let init = self.namespaces.get(&dead.process.ns).and_then(|entry| entry.init);
        let is_further_out = |parent: &ProcessState| parent.process.pids.len() < dead.process.pids.len();
        let certain = dead.parent.is_some_and(|parent| {
            Some(parent) == init || self.processes.get(&parent).is_some_and(is_further_out)
        });
        Heir { init: init.and_then(|init| self.processes.get(&init)).map(ProcessState::key), certain }
    }

    fn orphan(&mut self, pid: HostPid, heir: Heir, changes: &mut Vec<Change>) {
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
            self.keep_from_circling(pid, parent);
        }
        let Some(entry) = self.processes.get_mut(&pid) else { return };
        entry.heir = None;
        if let Some(before) = std::mem::replace(&mut entry.parent, parent) {
            self.forget_child(before, pid);
        }
        if let Some(parent) = parent {
            self.children.entry(parent).or_default().insert(pid);
        }
    }

    /// No process is its own ancestor. Where the new parent is a descendant of its child in the model, the model is wrong.
    fn keep_from_circling(&mut self, pid: HostPid, parent: HostPid) {
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

    fn forget_child(&mut self, parent: HostPid, child: HostPid) {
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
