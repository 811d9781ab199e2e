//! What becomes of processes: they are told of, get another parent, end, are reaped.

use super::{Change, Ended, Entered, Resident, World};
use crate::event::identity::identity;
use crate::{
    event::{Exit, Process},
    model::world::history::DeadProcess,
};

impl World {
    /// A look at what exists found it: it is there, whatever was thought.
    pub(super) fn process_looked_at(
        &mut self,
        process: &Process,
        looked: (Option<char>, Option<u32>),
        zombie_since: Option<u64>,
        joined: Option<bool>,
        changes: &mut Vec<Change>,
    ) {
        self.past.raised(identity(process));
        self.seen(process, changes);
        let children_ns = self.look.as_mut().and_then(|look| look.has_seen_process(process.pid, process.ns));
        let parent = process.ppid;
        if let Some(resident) = self.processes.get_mut(&process.pid) {
            resident.looked = looked;
            if let Some(inum) = children_ns {
                resident.children_ns = (inum != process.ns).then_some(inum);
            }
            if resident.entered == Entered::Unseen
                && let (Some(true), Some(parent)) = (joined, parent)
            {
                resident.entered = Entered::Joined { parent };
            }
            let (state, threads) = looked;
            let is_zombie = matches!(state, Some('Z' | 'X')) && threads.is_none_or(|threads| threads <= 1);
            if is_zombie && resident.ended.is_none() {
                resident.ended = Some(Ended { since: zombie_since, exit: None, parent });
                self.give_children_away(process.pid, changes);
            }
        }
    }

    /// Whoever is described is there: as somebody known, or as somebody new.
    fn seen(&mut self, process: &Process, changes: &mut Vec<Change>) {
        let identity = identity(process);
        match self.processes.get_mut(&process.pid) {
            Some(resident) if resident.is(process) && resident.process.ns == process.ns => {
                let mut process = process.clone();
                let parent = std::mem::take(&mut process.ppid);
                // What was rounded was rounded down.
                process.start_boot_ns = process.start_boot_ns.max(resident.process.start_boot_ns);
                let moved = resident.parent != parent;
                if resident.process != process || moved {
                    resident.process = process;
                    changes.push(Change::Learnt(identity));
                }
                if moved {
                    self.parent_is(identity.0, parent, changes);
                }
                return;
            }
            // Another process, or what was known of it was wrong: none ever changes its namespace.
            Some(_) => {
                self.surprises.ends_unseen += 1;
                self.remove(process.pid, None, changes);
            }
            None => {}
        }
        self.insert(process, Entered::Unseen, changes);
    }

    /// Whether words about a process can be true by now: whoever was seen to end, or had the PID before, is done with.
    fn may_exist(&mut self, process: &Process) -> bool {
        let identity = identity(process);
        let is_over = match self.processes.get(&process.pid) {
            Some(known) if known.is(process) => false,
            Some(later) if process.start_boot_ns < later.process.start_boot_ns => true,
            _ => self.past.process(identity).is_some_and(DeadProcess::was_seen_to_end),
        };
        if is_over {
            self.surprises.after_the_end += 1;
        } else {
            self.past.raised(identity);
        }
        !is_over
    }

    /// An event describes a process that ought to be known.
    pub(super) fn heard_of(&mut self, process: &Process, changes: &mut Vec<Change>) {
        if !self.may_exist(process) {
            return;
        }
        if self.processes.get(&process.pid).is_none_or(|resident| !resident.is(process)) {
            self.surprises.beginnings_unseen += 1;
        }
        self.seen(process, changes);
    }

    /// An event describes a process that it is not about: if it is known, this is the last word about it.
    pub(super) fn mentioned(&mut self, process: &Process, changes: &mut Vec<Change>) {
        if self.processes.get(&process.pid).is_some_and(|known| known.is(process)) {
            self.seen(process, changes);
        }
    }

    fn insert(&mut self, process: &Process, entered: Entered, changes: &mut Vec<Change>) {
        self.house(process, changes);
        let parent = process.ppid;
        let resident = Resident {
            process: Process { ppid: None, ..process.clone() },
            parent: None,
            orphaned: false,
            heir: None,
            entered,
            looked: (None, None),
            ended: None,
            children_ns: None,
        };
        self.processes.insert(process.pid, resident);
        self.parent_is(process.pid, parent, changes);
        changes.push(Change::Appeared(identity(process)));
    }

    /// It was forked by this parent.
    pub(super) fn forked(
        &mut self,
        process: &Process,
        parent: &Process,
        crosses: bool,
        changes: &mut Vec<Change>,
    ) {
        if !self.may_exist(process) {
            return;
        }
        let is_init = process.pids.last() == Some(&1);
        let entered =
            if crosses && !is_init { Entered::Joined { parent: parent.pid } } else { Entered::Born };
        match self.processes.get_mut(&process.pid) {
            // A snapshot knew it first.
            Some(resident) if resident.is(process) => {
                resident.process.start_boot_ns = process.start_boot_ns.max(resident.process.start_boot_ns);
                resident.entered = entered;
                changes.push(Change::Learnt(identity(process)));
                return;
            }
            Some(_) => {
                self.surprises.ends_unseen += 1;
                self.remove(process.pid, None, changes);
            }
            None => {}
        }
        self.insert(process, entered, changes);
    }

    pub(super) fn exited(&mut self, process: &Process, exit: &Exit, at: u64, changes: &mut Vec<Change>) {
        self.heard_of(process, changes);
        let Some(resident) = self.processes.get_mut(&process.pid).filter(|known| known.is(process)) else {
            return;
        };
        let parent = resident.parent;
        resident.ended = Some(Ended { since: Some(at), exit: Some(exit.clone()), parent });
        let children_ns = resident.children_ns.take();
        changes.push(Change::Ended(identity(process)));
        self.give_children_away(process.pid, changes);
        if !self.reapings_told {
            self.remove(process.pid, Some(at), changes);
        }
        if let Some(inum) = children_ns {
            self.let_go(inum, at, changes);
        }
    }

    pub(super) fn reaped(&mut self, process: &Process, at: u64, changes: &mut Vec<Change>) {
        // One that went with its namespace can be found to be reaped when that is gone already.
        if self.past.reaped(identity(process), at) || !self.may_exist(process) {
            return;
        }
        if self.processes.get(&process.pid).is_none_or(|resident| !resident.is(process)) {
            self.surprises.beginnings_unseen += 1;
            self.seen(process, changes);
        }
        self.remove(process.pid, Some(at), changes);
    }

    /// It is gone, at this time or at one that nobody saw.
    pub(super) fn remove(&mut self, pid: u32, at: Option<u64>, changes: &mut Vec<Change>) {
        self.leave_family(pid, changes);
        let Some(resident) = self.processes.remove(&pid) else { return };
        let (identity, ns) = (resident.identity(), resident.process.ns);
        self.past.buried(DeadProcess { resident, gone_boot_ns: at, known_boot_ns: self.boot_ns });
        changes.push(Change::Gone(identity));
        self.leave(ns, pid, at, changes);
    }

    pub(super) fn children_go_to(&mut self, process: &Process, inum: u32, changes: &mut Vec<Change>) {
        self.heard_of(process, changes);
        if let Some(resident) = self.processes.get_mut(&process.pid)
            && resident.is(process)
        {
            let elsewhere = (inum != resident.process.ns).then_some(inum);
            let before = std::mem::replace(&mut resident.children_ns, elsewhere);
            changes.push(Change::Learnt(identity(process)));
            if let Some(before) = before.filter(|&before| before != inum) {
                self.let_go(before, self.boot_ns, changes);
            }
        }
    }
}
