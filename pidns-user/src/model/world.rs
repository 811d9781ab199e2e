//! What exists, kept up by events: it begins with a snapshot, or with nothing, and follows a stream. Pure: a stream that is
//! live and one that is replayed make the same.
//!
//! What an event says is believed; what had to be seen before it and was not (an end of whoever had a PID before, say) is
//! made up for and counted ([`Surprises`]). Any order of events is taken, none panics.

mod change;
mod domain;
mod family;
mod history;
mod look;
mod namespaces;
mod processes;
mod resident;

use std::collections::{BTreeMap, BTreeSet, HashMap};

pub use self::history::{DeadNamespace, DeadProcess, LIMIT as PAST_LIMIT, Past};
use self::look::Look;
pub use self::{
    change::{Change, Surprises},
    domain::{Domain, Stage},
    family::Reaper,
    resident::{Ended, Entered, Resident},
};
use crate::{
    event::snapshot::{self, Snapshot, Source, Unread},
    event::{Body, Event},
};

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    processes: HashMap<u32, Resident>,
    /// Children by their parent's PID.
    children: HashMap<u32, BTreeSet<u32>>,
    namespaces: BTreeMap<u32, Domain>,
    past: Past,
    surprises: Surprises,
    /// The look that is being told, if one is.
    look: Option<Look>,
    /// Whether reapings and destructions are among the events: without them an exit and a teardown are the end.
    reapings_told: bool,
    destructions_told: bool,
    boot_ns: u64,
}

impl Default for World {
    fn default() -> Self {
        Self::remembering(PAST_LIMIT)
    }
}

impl World {
    /// An empty one that remembers so many processes and namespaces that are gone, at most.
    pub fn remembering(limit: usize) -> Self {
        Self {
            processes: HashMap::new(),
            children: HashMap::new(),
            namespaces: BTreeMap::new(),
            past: Past::new(limit),
            surprises: Surprises::default(),
            look: None,
            reapings_told: true,
            destructions_told: true,
            boot_ns: 0,
        }
    }

    /// Follows an event; says what it changed.
    pub fn apply(&mut self, event: &Event) -> Vec<Change> {
        let at = event.boot_ns;
        self.boot_ns = self.boot_ns.max(at);
        let mut changes = Vec::new();
        if !matches!(event.body, Body::SnapshotNamespace { .. } | Body::SnapshotProcess { .. }) {
            self.settle_into(&mut changes);
        }
        match &event.body {
            Body::StreamStart { hooks, filter, .. } => {
                self.is_told(hooks, |name| filter.events.iter().any(|event| event == name));
                self.look = Some(Look::default());
            }
            Body::StreamResync { .. } => {
                self.look = Some(Look::of(self.processes.keys().copied(), self.namespaces.keys().copied()));
            }
            Body::SnapshotNamespace { ns, holders, holders_left_out } => {
                self.namespace_looked_at(ns, (holders, *holders_left_out), &mut changes);
            }
            Body::SnapshotProcess { process, state, threads, zombie_since_boot_ns, joined } => {
                let looked = (*state, *threads);
                self.process_looked_at(process, looked, *zombie_since_boot_ns, *joined, &mut changes);
            }
            Body::NamespaceCreate { ns, creator, via } => {
                self.mentioned(creator, &mut changes);
                self.created(ns, &mut changes);
                if via.as_deref() == Some("unshare") {
                    self.children_go_to(creator, ns.inum, &mut changes);
                }
            }
            Body::NamespaceInit { ns, process } => self.begun(ns, process, &mut changes),
            Body::NamespaceJoin { ns, process, .. } => {
                self.told_of(ns, &mut changes);
                self.children_go_to(process, ns.inum, &mut changes);
            }
            Body::NamespaceInitExit { ns, process, cause, .. } => {
                self.mentioned(process, &mut changes);
                if self.told_of(ns, &mut changes)
                    && let Some(domain) = self.namespaces.get_mut(&ns.inum)
                {
                    domain.stage = Stage::Dying { since: at, cause: cause.clone(), torn_down: false };
                    changes.push(Change::Told(ns.inum));
                }
            }
            Body::NamespaceTeardown { ns, .. } => self.torn_down(ns, at, &mut changes),
            Body::NamespaceDestroy { ns, .. } => self.destroyed(ns, at, &mut changes),
            Body::ProcessFork { process, parent, crosses, .. } => {
                self.mentioned(parent, &mut changes);
                self.forked(process, parent, *crosses, &mut changes);
            }
            Body::ProcessExec { process, .. } => self.heard_of(process, &mut changes),
            Body::ProcessExit { process, exit, .. } => self.exited(process, exit, at, &mut changes),
            Body::ProcessReap { process, .. } => self.reaped(process, at, &mut changes),
            Body::InitSignal { process, sender, .. } => {
                self.mentioned(process, &mut changes);
                if let Some(sender) = sender {
                    self.mentioned(sender, &mut changes);
                }
            }
            Body::ForkFailed { process, .. }
            | Body::NamespaceCreateFailed { creator: process, .. }
            | Body::NamespaceJoinFailed { process, .. } => self.mentioned(process, &mut changes),
            Body::StreamLost { .. } | Body::StreamEnd { .. } => {}
        }
        changes
    }

    /// All events will be among those that it follows, though not all of them may be in the stream, as the filter of its
    /// `stream.start` says. `hooks` are those of that.
    pub fn follow_everything(&mut self, hooks: &BTreeMap<String, String>) {
        self.is_told(hooks, |_| true);
    }

    fn is_told(&mut self, hooks: &BTreeMap<String, String>, is_among: impl Fn(&str) -> bool) {
        self.reapings_told = is_among("process.reap");
        self.destructions_told = is_among("namespace.destroy")
            && hooks.get("proc_free_inum").is_some_and(|form| !form.starts_with("off"));
    }

    /// When the last event was: CLOCK_BOOTTIME, nanoseconds.
    pub fn boot_ns(&self) -> u64 {
        self.boot_ns
    }

    /// What could not be, had everything been seen.
    pub fn surprises(&self) -> Surprises {
        self.surprises
    }

    /// The processes that exist, zombies included.
    pub fn processes(&self) -> impl Iterator<Item = &Resident> {
        self.processes.values()
    }

    /// The one that has this PID at level 0.
    pub fn process(&self, pid: u32) -> Option<&Resident> {
        self.processes.get(&pid)
    }

    /// The namespaces that exist.
    pub fn namespaces(&self) -> impl Iterator<Item = &Domain> {
        self.namespaces.values()
    }

    /// The one of this inode number.
    pub fn namespace(&self, inum: u32) -> Option<&Domain> {
        self.namespaces.get(&inum)
    }

    /// Whether a namespace is this one, or below it.
    pub fn is_within(&self, inum: u32, top: u32) -> bool {
        let mut next = Some(inum);
        let mut level = u32::MAX;
        while let Some(inum) = next {
            if inum == top {
                return true;
            }
            // A parent that is no level further up would be a circle.
            next = self.namespaces.get(&inum).map(|domain| &domain.namespace).and_then(|ns| {
                let further_up = ns.level < level;
                level = ns.level;
                ns.parent.filter(|_| further_up)
            });
        }
        false
    }

    /// Those that existed.
    pub fn past(&self) -> &Past {
        &self.past
    }

    /// What exists, in the form that a look at the kernel has.
    pub fn snapshot(&self) -> Snapshot {
        let mut processes: Vec<snapshot::Process> =
            self.processes.values().map(Resident::as_looked_at).collect();
        processes.sort_by_key(|process| process.pid);
        let holders = self
            .namespaces
            .values()
            .flat_map(|domain| domain.holders.iter().map(|holder| (domain.namespace.inum, holder.clone())));
        Snapshot {
            source: Source::Recording,
            boot_ns: self.boot_ns,
            processes,
            namespaces: self
                .namespaces
                .iter()
                .map(|(&inum, domain)| (inum, domain.namespace.clone()))
                .collect(),
            holders: holders.collect(),
            holders_left_out: self
                .namespaces
                .iter()
                .filter(|(_, domain)| domain.holders_left_out > 0)
                .map(|(&inum, domain)| (inum, domain.holders_left_out))
                .collect(),
            unnamed: Vec::new(),
            unread: Unread::default(),
        }
    }

    /// Whether the last event was part of a look: more of it may follow.
    pub fn is_being_looked_at(&self) -> bool {
        self.look.is_some()
    }

    /// No more of a look follows: what it did not name is gone. The next event that is no part of it does the same.
    pub fn settle(&mut self) {
        self.settle_into(&mut Vec::new());
    }

    fn settle_into(&mut self, changes: &mut Vec<Change>) {
        let Some((processes, namespaces)) = self.look.take().and_then(Look::unnamed) else { return };
        for pid in processes {
            self.remove(pid, None, changes);
        }
        for inum in namespaces {
            self.close(inum, None, false, changes);
        }
    }
}

#[cfg(test)]
mod tests;
