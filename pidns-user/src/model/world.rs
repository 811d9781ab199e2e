//! What exists, kept up by events: it begins with a snapshot, or with nothing, and follows a stream. Pure: a stream that is
//! live and one that is replayed make the same.
//!
//! What an event says is believed; what had to be seen before it and was not (an end of whoever had a PID before, say) is
//! made up for and counted ([`Surprises`]). Any order of events is taken, none panics.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::past::{DeadNamespace, DeadProcess, Past};
use crate::{
    event::{Body, Cause, Event, Exit, Namespace, Process},
    snapshot::{self, Holder, Snapshot, Source, Unread},
};

/// Identity of a process: its PID at level 0, and its start (CLOCK_BOOTTIME, nanoseconds).
pub type Identity = (u32, u64);

/// How a process got into its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// Forked by a member, or as its first process.
    Born,
    /// Forked by a process of another namespace.
    Joined {
        /// That process's PID at level 0.
        parent: u32,
    },
    /// Before it was watched.
    Unseen,
}

/// A process that exists, or is a zombie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resident {
    /// As the last word about it has it, but for `ppid`.
    pub process: Process,
    /// Its parent at level 0; `None` where it has none, or another one than it began with that nobody named yet.
    pub parent: Option<u32>,
    /// Whether its parent ended before it.
    pub orphaned: bool,
    /// How it got in.
    pub entered: Entered,
    /// Letter of its state (proc(5)) and threads, where a snapshot told them.
    pub looked: (Option<char>, Option<u32>),
    /// Since when it is a zombie (CLOCK_BOOTTIME, nanoseconds), and how it ended.
    pub ended: Option<(u64, Option<Exit>)>,
    /// The namespace that its children go to, where that is not its own.
    pub children_ns: Option<u32>,
}

/// How far a namespace has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It has had no process yet.
    Empty,
    /// Its PID 1 lives, or may.
    Alive,
    /// Its PID 1 has exited: nobody can fork there any more.
    Dying {
        /// When: CLOCK_BOOTTIME, nanoseconds.
        since: u64,
        /// Why.
        cause: Cause,
    },
    /// All its processes are gone, and something still holds it.
    Held {
        /// Since when: CLOCK_BOOTTIME, nanoseconds.
        since: u64,
    },
}

/// A namespace that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// What is known of it.
    pub namespace: snapshot::Namespace,
    /// How far it has come.
    pub stage: Stage,
    /// PID 1, by its PID at level 0.
    pub init: Option<u32>,
    /// Its processes, zombies included; those of the namespaces below not.
    pub members: u32,
    /// What held it when it was looked at.
    pub holders: Vec<Holder>,
}

/// What an event changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A process is there.
    Appeared(Identity),
    /// More, or something else, is known of it.
    Learnt(Identity),
    /// It is a zombie.
    Ended(Identity),
    /// It is gone.
    Gone(Identity),
    /// A namespace is there.
    Opened(u32),
    /// More, or something else, is known of it.
    Told(u32),
    /// It is gone.
    Closed(u32),
}

/// What could not be, had everything been seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Surprises {
    /// Processes whose PID was another's before anybody saw their end.
    pub ends_unseen: u64,
    /// Words about a process that was gone already.
    pub after_the_end: u64,
    /// Namespaces whose inode number was another's before anybody saw their end.
    pub destructions_unseen: u64,
    /// Processes that turned up without having been forked, exited, or reaped before anybody knew them.
    pub beginnings_unseen: u64,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    processes: HashMap<u32, Resident>,
    /// Children by their parent's PID.
    children: HashMap<u32, BTreeSet<u32>>,
    namespaces: BTreeMap<u32, Domain>,
    past: Past,
    surprises: Surprises,
    /// While a new snapshot is being told: who has not been named by it yet.
    doubted: Option<(HashSet<u32>, BTreeSet<u32>)>,
    /// Whether reapings and destructions are among the events: without them an exit and a teardown are the end.
    reapings_told: bool,
    destructions_told: bool,
    boot_ns: u64,
}

impl Default for World {
    fn default() -> Self {
        Self {
            processes: HashMap::new(),
            children: HashMap::new(),
            namespaces: BTreeMap::new(),
            past: Past::default(),
            surprises: Surprises::default(),
            doubted: None,
            reapings_told: true,
            destructions_told: true,
            boot_ns: 0,
        }
    }
}

impl World {
    /// Follows an event; says what it changed.
    pub fn apply(&mut self, event: &Event) -> Vec<Change> {
        let at = event.boot_ns;
        self.boot_ns = self.boot_ns.max(at);
        let mut changes = Vec::new();
        if !matches!(event.body, Body::SnapshotNamespace { .. } | Body::SnapshotProcess { .. }) {
            self.settle(&mut changes);
        }
        match &event.body {
            Body::StreamStart { hooks, filter, .. } => {
                self.is_told(hooks, |name| filter.events.iter().any(|event| event == name));
            }
            Body::StreamResync { .. } => {
                self.doubted = Some((
                    self.processes.keys().copied().collect(),
                    self.namespaces.keys().copied().collect(),
                ));
            }
            Body::SnapshotNamespace { ns, holders } => self.looked_at(ns, holders, &mut changes),
            Body::SnapshotProcess { process, state, threads, zombie_since_boot_ns, joined } => {
                self.past.raised(identity(process));
                self.seen(process, &mut changes);
                if let Some((doubted, _)) = &mut self.doubted {
                    doubted.remove(&process.pid);
                }
                let parent = process.ppid;
                if let Some(resident) = self.processes.get_mut(&process.pid) {
                    resident.looked = (*state, *threads);
                    if resident.entered == Entered::Unseen
                        && let (Some(true), Some(parent)) = (joined, parent)
                    {
                        resident.entered = Entered::Joined { parent };
                    }
                    let is_zombie =
                        matches!(state, Some('Z' | 'X')) && threads.is_none_or(|threads| threads <= 1);
                    if is_zombie && resident.ended.is_none() {
                        resident.ended = Some((zombie_since_boot_ns.unwrap_or(at), None));
                    }
                }
            }
            Body::NamespaceCreate { ns, .. } => self.opened(ns, Stage::Empty, &mut changes),
            Body::NamespaceInit { ns, process } => {
                self.opened(ns, Stage::Alive, &mut changes);
                if let Some(domain) = self.namespaces.get_mut(&ns.inum) {
                    domain.init = Some(process.pid);
                    if domain.stage == Stage::Empty {
                        domain.stage = Stage::Alive;
                    }
                }
            }
            Body::NamespaceJoin { ns, process, .. } => {
                self.opened(ns, Stage::Alive, &mut changes);
                self.children_go_to(process, ns.inum, &mut changes);
            }
            Body::NamespaceInitExit { ns, cause, .. } => {
                self.opened(ns, Stage::Alive, &mut changes);
                if let Some(domain) = self.namespaces.get_mut(&ns.inum) {
                    domain.stage = Stage::Dying { since: at, cause: cause.clone() };
                    changes.push(Change::Told(ns.inum));
                }
            }
            Body::NamespaceTeardown { ns, .. } => {
                if !self.destructions_told {
                    self.close(ns.inum, Some(at), &mut changes);
                } else if self.same_namespace(ns)
                    && let Some(domain) = self.namespaces.get_mut(&ns.inum)
                {
                    domain.stage = Stage::Held { since: at };
                    changes.push(Change::Told(ns.inum));
                }
            }
            Body::NamespaceDestroy { ns, .. } => {
                if self.same_namespace(ns) {
                    self.close(ns.inum, Some(at), &mut changes);
                }
            }
            Body::ProcessFork { process, parent, crosses, .. } => {
                self.forked(process, parent, *crosses, &mut changes);
            }
            Body::ProcessExec { process, .. } => self.heard_of(process, &mut changes),
            Body::ProcessExit { process, exit, .. } => self.exited(process, exit, at, &mut changes),
            Body::ProcessReap { process, .. } => self.reaped(process, at, &mut changes),
            Body::InitSignal { .. }
            | Body::ForkFailed { .. }
            | Body::NamespaceCreateFailed { .. }
            | Body::NamespaceJoinFailed { .. }
            | Body::StreamLost { .. } => {}
            Body::StreamEnd { .. } => {}
        }
        if let Body::NamespaceCreate { ns, creator, via } = &event.body
            && via.as_deref() == Some("unshare")
        {
            self.children_go_to(creator, ns.inum, &mut changes);
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
            unnamed: Vec::new(),
            unread: Unread::default(),
        }
    }

    /// What a snapshot that follows a `stream.resync` did not name is gone.
    fn settle(&mut self, changes: &mut Vec<Change>) {
        let Some((processes, namespaces)) = self.doubted.take() else { return };
        for pid in processes {
            self.remove(pid, None, changes);
        }
        for inum in namespaces {
            self.close(inum, None, changes);
        }
    }

    /// Whoever is described is there: as somebody known, or as somebody new.
    fn seen(&mut self, process: &Process, changes: &mut Vec<Change>) {
        let identity = identity(process);
        match self.processes.get_mut(&process.pid) {
            Some(resident) if resident.identity() == identity => {
                let mut process = process.clone();
                let parent = std::mem::take(&mut process.ppid);
                let moved = resident.parent != parent;
                let before = resident.process.ns;
                if resident.process != process || moved {
                    resident.process = process.clone();
                    changes.push(Change::Learnt(identity));
                }
                if before != process.ns {
                    // A process never changes its namespace: one of the two was wrong.
                    self.leave(before, identity.0);
                    self.house(&process, changes);
                }
                if moved {
                    self.move_to(identity.0, parent);
                }
                return;
            }
            Some(_) => {
                self.surprises.ends_unseen += 1;
                self.remove(process.pid, None, changes);
            }
            None => {}
        }
        self.insert(process, Entered::Unseen, changes);
    }

    /// An event describes a process that ought to be known.
    fn heard_of(&mut self, process: &Process, changes: &mut Vec<Change>) {
        if self.past.has(identity(process)) {
            self.surprises.after_the_end += 1;
            return;
        }
        if self.processes.get(&process.pid).is_none_or(|resident| resident.identity() != identity(process)) {
            self.surprises.beginnings_unseen += 1;
        }
        self.seen(process, changes);
    }

    fn insert(&mut self, process: &Process, entered: Entered, changes: &mut Vec<Change>) {
        self.house(process, changes);
        let parent = process.ppid;
        let resident = Resident {
            process: Process { ppid: None, ..process.clone() },
            parent: None,
            orphaned: false,
            entered,
            looked: (None, None),
            ended: None,
            children_ns: None,
        };
        self.processes.insert(process.pid, resident);
        self.move_to(process.pid, parent);
        changes.push(Change::Appeared(identity(process)));
    }

    /// Its namespace exists, whether or not anybody said so.
    fn house(&mut self, process: &Process, changes: &mut Vec<Change>) {
        let domain = self.namespaces.entry(process.ns).or_insert_with(|| {
            changes.push(Change::Opened(process.ns));
            let level = process.pids.len().saturating_sub(1) as u32;
            let namespace = snapshot::Namespace::bare(process.ns, level);
            Domain { namespace, stage: Stage::Alive, init: None, members: 0, holders: Vec::new() }
        });
        domain.members += 1;
        if process.pids.last() == Some(&1) {
            domain.init = Some(process.pid);
        }
    }

    fn leave(&mut self, inum: u32, pid: u32) {
        if let Some(domain) = self.namespaces.get_mut(&inum) {
            domain.members = domain.members.saturating_sub(1);
            if domain.init == Some(pid) {
                domain.init = None;
            }
        }
    }

    fn move_to(&mut self, pid: u32, parent: Option<u32>) {
        let Some(resident) = self.processes.get_mut(&pid) else { return };
        let before = std::mem::replace(&mut resident.parent, parent);
        if let Some(before) = before
            && let Some(siblings) = self.children.get_mut(&before)
        {
            siblings.remove(&pid);
            if siblings.is_empty() {
                self.children.remove(&before);
            }
        }
        if let Some(parent) = parent {
            self.children.entry(parent).or_default().insert(pid);
        }
    }

    fn forked(&mut self, process: &Process, parent: &Process, crosses: bool, changes: &mut Vec<Change>) {
        if self.past.has(identity(process)) {
            self.surprises.after_the_end += 1;
            return;
        }
        let is_init = process.pids.last() == Some(&1);
        let entered =
            if crosses && !is_init { Entered::Joined { parent: parent.pid } } else { Entered::Born };
        match self.processes.get_mut(&process.pid) {
            // A snapshot knew it first.
            Some(resident) if resident.identity() == identity(process) => {
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

    fn exited(&mut self, process: &Process, exit: &Exit, at: u64, changes: &mut Vec<Change>) {
        if self.past.has(identity(process)) {
            self.surprises.after_the_end += 1;
            return;
        }
        self.heard_of(process, changes);
        // The kernel gives its children to somebody whom no event names.
        for child in self.children.remove(&process.pid).unwrap_or_default() {
            if let Some(child) = self.processes.get_mut(&child) {
                child.parent = None;
                child.orphaned = true;
                changes.push(Change::Learnt(child.identity()));
            }
        }
        if let Some(resident) = self.processes.get_mut(&process.pid) {
            resident.ended = Some((at, Some(exit.clone())));
            resident.children_ns = None;
            changes.push(Change::Ended(identity(process)));
        }
        if !self.reapings_told {
            self.remove(process.pid, Some(at), changes);
        }
    }

    fn reaped(&mut self, process: &Process, at: u64, changes: &mut Vec<Change>) {
        if self.past.has(identity(process)) {
            self.surprises.after_the_end += 1;
            return;
        }
        match self.processes.get(&process.pid) {
            Some(resident) if resident.identity() == identity(process) => {}
            _ => {
                self.surprises.beginnings_unseen += 1;
                self.seen(process, changes);
            }
        }
        self.remove(process.pid, Some(at), changes);
    }

    /// It is gone, at this time or at one that nobody saw.
    fn remove(&mut self, pid: u32, at: Option<u64>, changes: &mut Vec<Change>) {
        self.move_to(pid, None);
        for child in self.children.remove(&pid).unwrap_or_default() {
            if let Some(child) = self.processes.get_mut(&child) {
                child.parent = None;
                child.orphaned = true;
            }
        }
        let Some(resident) = self.processes.remove(&pid) else { return };
        let identity = resident.identity();
        self.leave(resident.process.ns, pid);
        self.past.buried(DeadProcess { resident, gone_boot_ns: at });
        changes.push(Change::Gone(identity));
    }

    /// Whether this is the one of its number that is known, as far as can be told.
    fn same_namespace(&self, ns: &Namespace) -> bool {
        let Some(domain) = self.namespaces.get(&ns.inum) else { return false };
        let known = &domain.namespace;
        match (known.kernel_id, ns.kernel_id) {
            (Some(known), Some(told)) => known == told,
            _ => match (known.born_boot_ns, ns.born_boot_ns) {
                (Some(known), Some(told)) => known == told || domain.init.is_some(),
                _ => true,
            },
        }
    }

    fn opened(&mut self, ns: &Namespace, stage: Stage, changes: &mut Vec<Change>) {
        let mut told = as_looked_at(ns);
        let fresh = stage == Stage::Empty;
        match self.namespaces.get_mut(&ns.inum) {
            Some(domain) if !fresh || domain.namespace.born_boot_ns == ns.born_boot_ns => {
                if told.container.is_none() {
                    told.container = domain.namespace.container.take();
                }
                if domain.namespace != told {
                    domain.namespace = told;
                    changes.push(Change::Told(ns.inum));
                }
                return;
            }
            Some(_) => {
                self.surprises.destructions_unseen += 1;
                self.close(ns.inum, None, changes);
            }
            None => {}
        }
        let domain = Domain { namespace: told, stage, init: None, members: 0, holders: Vec::new() };
        self.namespaces.insert(ns.inum, domain);
        changes.push(Change::Opened(ns.inum));
    }

    fn looked_at(&mut self, ns: &snapshot::Namespace, holders: &[Holder], changes: &mut Vec<Change>) {
        if let Some((_, doubted)) = &mut self.doubted {
            doubted.remove(&ns.inum);
        }
        match self.namespaces.get_mut(&ns.inum) {
            Some(domain) => {
                domain.holders = holders.to_vec();
                if domain.namespace.parent.is_none() && *ns != domain.namespace {
                    domain.namespace = ns.clone();
                    changes.push(Change::Told(ns.inum));
                }
            }
            None => {
                let domain = Domain {
                    namespace: ns.clone(),
                    stage: Stage::Alive,
                    init: None,
                    members: 0,
                    holders: holders.to_vec(),
                };
                self.namespaces.insert(ns.inum, domain);
                changes.push(Change::Opened(ns.inum));
            }
        }
    }

    fn close(&mut self, inum: u32, at: Option<u64>, changes: &mut Vec<Change>) {
        if self.namespaces.get(&inum).is_some_and(|domain| domain.members > 0) {
            // Members keep it: their ends were not seen.
            let members = self.processes.values().filter(|resident| resident.process.ns == inum);
            for pid in members.map(|resident| resident.process.pid).collect::<Vec<_>>() {
                self.surprises.ends_unseen += 1;
                self.remove(pid, None, changes);
            }
        }
        let Some(domain) = self.namespaces.remove(&inum) else { return };
        self.past.closed(DeadNamespace { domain, gone_boot_ns: at });
        changes.push(Change::Closed(inum));
    }

    fn children_go_to(&mut self, process: &Process, inum: u32, changes: &mut Vec<Change>) {
        self.heard_of(process, changes);
        if let Some(resident) = self.processes.get_mut(&process.pid)
            && resident.identity() == identity(process)
        {
            resident.children_ns = (inum != resident.process.ns).then_some(inum);
            changes.push(Change::Learnt(identity(process)));
        }
    }
}

impl Resident {
    /// Which process it is.
    pub fn identity(&self) -> Identity {
        identity(&self.process)
    }

    /// In the form that a look at the kernel has.
    pub fn as_looked_at(&self) -> snapshot::Process {
        let Process { pid, pids, comm, start_boot_ns, uid, ns, ppid: _ } = &self.process;
        let (state, threads) = match (&self.ended, self.looked) {
            (Some(_), _) => (Some('Z'), Some(1)),
            (None, looked) => looked,
        };
        snapshot::Process {
            pid: *pid,
            pids: pids.clone(),
            comm: Some(comm.clone()),
            start_boot_ns: Some(*start_boot_ns),
            ppid: self.parent,
            uid: Some(*uid),
            ns: Some(*ns),
            state,
            threads,
            // No event tells these.
            tracer: None,
            cgroup_id: None,
        }
    }
}

fn identity(process: &Process) -> Identity {
    (process.pid, process.start_boot_ns)
}

fn as_looked_at(ns: &Namespace) -> snapshot::Namespace {
    let Namespace { inum, level, parent, born_boot_ns, kernel_id, user_ns, owner_uid, ref container } = *ns;
    snapshot::Namespace {
        inum,
        level,
        parent,
        born_boot_ns,
        kernel_id,
        user_ns: Some(user_ns),
        owner_uid: Some(owner_uid),
        container: container.clone(),
    }
}

#[cfg(test)]
mod tests;
