//! Applies events of processes: reports, new parents, exits and reaps.

use super::{Change, Ended, Entered, Observation, ProcessState, Stage, World};
use crate::{
    event::identity::{BootNs, HostPid, NsInum},
    event::{Exit, Process},
    model::world::history::DeadProcess,
};

impl World {
    /// Applies a process record of a snapshot: the process exists, even if the model said otherwise.
    pub(super) fn on_snapshot_process(
        &mut self,
        process: &Process,
        observed: Observation,
        zombie_since: Option<BootNs>,
        joined: Option<bool>,
        changes: &mut Vec<Change>,
    ) {
        self.history.revived(process.key());
        self.on_description(process, changes);
        let children_ns =
            self.pass.as_mut().and_then(|snapshot| snapshot.on_process(process.pid, process.ns));
        let parent = process.ppid;
        let knows_new_namespaces = self.knows_new_namespaces();
        if let Some(entry) = self.processes.get_mut(&process.pid) {
            entry.observed = observed.clone();
            let is_hidden = knows_new_namespaces
                && entry.children_ns.is_some_and(|inum| {
                    self.namespaces.get(&inum).is_some_and(|target| target.stage == Stage::Empty)
                });
            if let Some(inum) = children_ns
                && !(is_hidden && inum == process.ns)
            {
                let elsewhere = (inum != process.ns).then_some(inum);
                if entry.children_ns != elsewhere {
                    (entry.children_ns, entry.children_ns_by) = (elsewhere, None);
                }
            }
            if entry.entered == Entered::Unseen
                && let (Some(true), Some(parent)) = (joined, parent)
            {
                entry.entered = Entered::ParentOutside { parent };
            }
            let is_zombie = observed.is_zombie();
            let is_ending_init = observed.exiting && entry.is_init();
            if (is_zombie || is_ending_init) && entry.ended.is_none() {
                entry.ended = Some(Ended { since: zombie_since, exit: None, parent });
                self.reparent_children(process.pid, changes);
            }
        }
        self.on_snapshot_init(process, &observed, changes);
    }

    /// Updates or adds a process from its description in an event.
    fn on_description(&mut self, process: &Process, changes: &mut Vec<Change>) {
        let key = process.key();
        match self.processes.get_mut(&process.pid) {
            Some(entry) if entry.is(process) && entry.process.ns == process.ns => {
                let mut process = process.clone();
                let parent = std::mem::take(&mut process.ppid);
                // /proc rounds starts down, so the later one is exact.
                process.start_boot_ns = process.start_boot_ns.max(entry.process.start_boot_ns);
                // Some events describe it without its container.
                process.container = process.container.or_else(|| entry.process.container.clone());
                let moved = entry.parent != parent;
                // A process gets another parent only when its parent ends.
                entry.orphaned |= moved && entry.parent.is_some() && parent.is_some();
                if entry.process != process || moved {
                    entry.process = process;
                    changes.push(Change::ProcessUpdated(key));
                }
                if moved {
                    self.set_parent(key.pid, parent, changes);
                }
                return;
            }
            // It is another process, or the model was wrong: a process never changes its namespace.
            Some(_) => {
                self.inconsistencies.ends_unseen += 1;
                self.remove(process.pid, None, changes);
            }
            None => {}
        }
        self.insert(process, Entered::Unseen, changes);
    }

    /// Whether the process of an event may still exist: not if an event reported its end, or if a later process has its
    /// PID.
    fn may_exist(&mut self, process: &Process) -> bool {
        let key = process.key();
        let is_over = match self.processes.get(&process.pid) {
            Some(known) if known.is(process) => false,
            Some(later) if process.start_boot_ns < later.process.start_boot_ns => true,
            _ => self.history.process(key).is_some_and(DeadProcess::was_seen_to_end),
        };
        if is_over {
            self.inconsistencies.after_the_end += 1;
        } else {
            self.history.revived(key);
        }
        !is_over
    }

    /// Applies an event about a process that the model should know.
    pub(super) fn on_process(&mut self, process: &Process, changes: &mut Vec<Change>) {
        if !self.may_exist(process) {
            return;
        }
        if self.processes.get(&process.pid).is_none_or(|entry| !entry.is(process)) {
            self.count_unseen_beginning(process);
        }
        self.on_description(process, changes);
    }

    /// Counts an event about an unknown process. A process from before the stream is not counted, because it may have
    /// ended before the first snapshot.
    fn count_unseen_beginning(&mut self, process: &Process) {
        self.inconsistencies.beginnings_unseen += u64::from(process.start_boot_ns >= self.began);
    }

    /// Applies the description of a process that the event is not about. It only updates a known process.
    pub(super) fn on_mention(&mut self, process: &Process, changes: &mut Vec<Change>) {
        if self.processes.get(&process.pid).is_some_and(|known| known.is(process)) {
            self.on_description(process, changes);
        }
    }

    fn insert(&mut self, process: &Process, entered: Entered, changes: &mut Vec<Change>) {
        self.ensure_namespace(process, changes);
        let parent = process.ppid;
        let entry = ProcessState {
            process: Process { ppid: None, ..process.clone() },
            parent: None,
            orphaned: false,
            heir: None,
            entered,
            observed: Observation::default(),
            ended: None,
            children_ns: None,
            children_ns_by: None,
        };
        self.processes.insert(process.pid, entry);
        self.set_parent(process.pid, parent, changes);
        changes.push(Change::ProcessAdded(process.key()));
    }

    /// Applies a fork.
    pub(super) fn on_fork(
        &mut self,
        process: &Process,
        parent: &Process,
        crosses: bool,
        changes: &mut Vec<Change>,
    ) {
        let entered = if crosses && !process.is_init() {
            Entered::Joined { forker: Box::new(parent.clone()) }
        } else {
            Entered::Born
        };
        self.on_birth(process, entered, changes);
    }

    /// Adds a new process.
    pub(super) fn on_birth(&mut self, process: &Process, entered: Entered, changes: &mut Vec<Change>) {
        if !self.may_exist(process) {
            return;
        }
        match self.processes.get_mut(&process.pid) {
            // A snapshot listed it before the fork was reported.
            Some(entry) if entry.is(process) => {
                entry.process.start_boot_ns = process.start_boot_ns.max(entry.process.start_boot_ns);
                entry.entered = entered;
                changes.push(Change::ProcessUpdated(process.key()));
                return;
            }
            Some(_) => {
                self.inconsistencies.ends_unseen += 1;
                self.remove(process.pid, None, changes);
            }
            None => {}
        }
        self.insert(process, entered, changes);
    }

    pub(super) fn on_exit(&mut self, process: &Process, exit: &Exit, at: BootNs, changes: &mut Vec<Change>) {
        self.on_process(process, changes);
        let Some(entry) = self.processes.get_mut(&process.pid).filter(|known| known.is(process)) else {
            return;
        };
        let parent = entry.parent;
        entry.ended = Some(Ended { since: Some(at), exit: Some(exit.clone()), parent });
        let children_ns = entry.children_ns.take();
        changes.push(Change::ProcessEnded(process.key()));
        self.reparent_children(process.pid, changes);
        if !self.reapings_reported {
            self.remove(process.pid, Some(at), changes);
        }
        if let Some(inum) = children_ns {
            self.let_go(inum, at, changes);
        }
    }

    pub(super) fn on_reap(&mut self, process: &Process, at: BootNs, changes: &mut Vec<Change>) {
        // The reap of a process that was removed with its namespace can be reported after that.
        if self.history.reaped(process.key(), at) || !self.may_exist(process) {
            return;
        }
        if self.processes.get(&process.pid).is_none_or(|entry| !entry.is(process)) {
            if self.history.has_forgotten() {
                // It may be a forgotten one: if reaps are reported late, many processes can end between an exit and its
                // reap.
                return;
            }
            self.count_unseen_beginning(process);
            self.on_description(process, changes);
        }
        self.remove(process.pid, Some(at), changes);
    }

    /// Removes a process. `at` is the time, if known.
    pub(super) fn remove(&mut self, pid: HostPid, at: Option<BootNs>, changes: &mut Vec<Change>) {
        self.remove_from_family(pid, changes);
        let Some(entry) = self.processes.remove(&pid) else { return };
        let (key, ns) = (entry.key(), entry.process.ns);
        self.history.add_process(DeadProcess { state: entry, gone_boot_ns: at, known_boot_ns: self.boot_ns });
        changes.push(Change::ProcessRemoved(key));
        self.leave(ns, pid, at, changes);
    }

    pub(super) fn children_go_to(
        &mut self,
        process: &Process,
        inum: NsInum,
        by: &'static str,
        changes: &mut Vec<Change>,
    ) {
        self.on_process(process, changes);
        if let Some(entry) = self.processes.get_mut(&process.pid)
            && entry.is(process)
        {
            let elsewhere = (inum != entry.process.ns).then_some(inum);
            let before = std::mem::replace(&mut entry.children_ns, elsewhere);
            entry.children_ns_by = elsewhere.map(|_| by);
            changes.push(Change::ProcessUpdated(process.key()));
            if let Some(before) = before.filter(|&before| before != inum) {
                self.let_go(before, self.boot_ns, changes);
            }
        }
    }
}
