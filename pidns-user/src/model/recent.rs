//! What happened lately to namespaces and their processes: who created them, what was refused, which signals were ignored, how
//! they ended, how many processes come and go. [`World`] has what exists; this has how it came to be so.
//!
//! Everything is bounded: namespaces that are gone, and incidents, are forgotten in the order of their times.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use super::{Change, Entered, Stage, Window, World, is_runtime_helper};
use crate::event::{
    Body, Cause, Event, Exit, Namespace, Process, ReachedLimit,
    container::Runtime,
    identity::{BootNs, HostPid, NsInum, ProcessKey},
};
use crate::text::Name;

mod records;

pub use records::{Death, Incident, IncidentKind, Lives, MainProcess, NamespaceRecord, TornDown};

/// Most namespaces that are remembered when they are gone.
const MOST_GONE: usize = 1_000;
/// Most incidents that are remembered.
const MOST_INCIDENTS: usize = 1_000;
/// Most containers without a namespace of their own that are remembered.
const MOST_MAINS: usize = 1_000;
/// A container's first process that ends within this time, nanoseconds, has set it up.
const SET_UP_NS: u64 = 1_000_000_000;
/// How long incidents and namespaces that are gone are remembered, nanoseconds.
const REMEMBERED_NS: u64 = 15 * 60 * 1_000_000_000;

/// What makes two incidents the same.
type IncidentKey = (IncidentKind, Option<NsInum>, ProcessKey, Option<ProcessKey>);

/// A process whose children go to another namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Elsewhere {
    ns: NsInum,
    since: BootNs,
    has_forked: bool,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recent {
    namespaces: HashMap<NsInum, NamespaceRecord>,
    gone: VecDeque<NamespaceRecord>,
    incidents: BTreeMap<IncidentKey, Incident>,
    /// When a process last reaped an orphan.
    reaped: HashMap<HostPid, BootNs>,
    elsewhere: HashMap<ProcessKey, Elsewhere>,
    /// By the container's runtime and id.
    mains: BTreeMap<(Option<Runtime>, Vec<u8>), MainProcess>,
    /// The names of the programs that forked processes.
    forkers: HashMap<ProcessKey, Name>,
    /// Since when zombies are known, where no event said when they ended.
    zombies: HashMap<ProcessKey, BootNs>,
}

impl Recent {
    /// Takes an event, and what it changed in the model.
    pub fn update(&mut self, event: &Event, changes: &[Change], world: &World) {
        if matches!(event.body, Body::StreamStart { .. }) {
            *self = Self::default();
        }
        self.follow(event, world);
        for change in changes {
            match change {
                Change::NamespaceAdded(inum) | Change::NamespaceUpdated(inum) => {
                    self.note(*inum, event.boot_ns, world);
                }
                Change::NamespaceRemoved(inum) => self.on_removal(*inum, event.boot_ns, world),
                Change::ProcessAdded(key) | Change::ProcessUpdated(key) => self.note_main(*key, world),
                Change::ProcessEnded(_) => {}
                Change::ProcessRemoved(key) => {
                    self.reaped.remove(&key.pid);
                    self.elsewhere.remove(key);
                    self.forkers.remove(key);
                    self.zombies.remove(key);
                }
            }
        }
    }

    fn follow(&mut self, event: &Event, world: &World) {
        let at = event.boot_ns;
        match &event.body {
            Body::NamespaceCreate { ns, creator, via } => {
                self.note(ns.inum, at, world);
                if let Some(record) = self.namespaces.get_mut(&ns.inum) {
                    record.creator = Some(creator.clone());
                }
                if via.as_deref() == Some("unshare") {
                    self.children_go(creator, ns.inum, at);
                }
            }
            Body::NamespaceInit { ns, process } => {
                self.note(ns.inum, at, world);
                let parent = process.ppid.and_then(|parent| world.process(parent));
                if let Some(parent) = parent {
                    if let Some(elsewhere) = self.elsewhere.get_mut(&parent.key()) {
                        elsewhere.has_forked |= elsewhere.ns == ns.inum;
                    }
                    if let Some(record) = self.namespaces.get_mut(&ns.inum) {
                        record.init_parent = Some(parent.process.clone());
                    }
                }
            }
            Body::SnapshotProcess { process, last_ran_boot_ns, .. } => {
                // A PID 1 that is exiting has waited since it last ran.
                if let Some(last_ran) = last_ran_boot_ns
                    && process.is_init()
                    && let Some(since) =
                        self.namespaces.get_mut(&process.ns).and_then(|record| record.dying_since.as_mut())
                {
                    *since = (*since).min(*last_ran);
                }
                if let Some(state) = world.process(process.pid)
                    && state.ended.as_ref().is_some_and(|ended| ended.since.is_none())
                {
                    self.zombies.entry(state.key()).or_insert(at);
                }
            }
            Body::NamespaceJoin { ns, process, .. } => self.children_go(process, ns.inum, at),
            Body::NamespaceInitExit { ns, process, exit, cause, members } => {
                self.note(ns.inum, at, world);
                if let Some(record) = self.namespaces.get_mut(&ns.inum) {
                    let (process, exit, cause) = (process.clone(), exit.clone(), cause.clone());
                    // A runtime has left it to its shim since it began.
                    if let Some(parent) = process.ppid.and_then(|parent| world.process(parent)) {
                        record.init_parent = Some(parent.process.clone());
                    }
                    record.death = Some(Death { at, process, exit, cause, members: *members });
                }
            }
            Body::NamespaceTeardown { ns, killed, nested, duration_ns } => {
                let torn_down =
                    TornDown { at, killed: *killed, nested: nested.clone(), duration_ns: *duration_ns };
                // Where nothing reports destructions it is gone by now.
                let gone = self.gone.iter_mut().rev().find(|gone| gone.ns.inum == ns.inum);
                if let Some(record) = self.namespaces.get_mut(&ns.inum).or(gone) {
                    record.torn_down = Some(torn_down);
                }
            }
            Body::ProcessFork { process, parent, .. } => {
                self.lives(process, at, world, |lives| &mut lives.births);
                if process.pids.len() > 1 {
                    self.forkers.insert(process.key(), parent.comm.clone());
                }
                if let Some(elsewhere) = self.elsewhere.get_mut(&parent.key()) {
                    elsewhere.has_forked |= elsewhere.ns == process.ns;
                }
            }
            Body::ProcessExit { process, exit, cause, .. } => {
                self.lives(process, at, world, |lives| &mut lives.exits);
                self.elsewhere.remove(&process.key());
                self.main_has_ended(process, exit, at, world);
                let is_member = process.pids.len() > 1 && !process.is_init();
                if let (true, Some(Cause::Oom { .. })) = (is_member, cause) {
                    let ns = world.namespace(process.ns).map(|ns| ns.namespace.inum);
                    self.incident(IncidentKind::MemberOom, ns, None, process, None, None, at);
                }
            }
            Body::ProcessReap { process, .. } => {
                self.lives(process, at, world, |lives| &mut lives.reaps);
                // One that waits for its own children may never wait for those that it was given.
                let reaped = world.history().process(process.key());
                let may_be_orphan =
                    reaped.is_some_and(|it| it.state.orphaned || it.state.entered == Entered::Unseen);
                if let (true, Some(parent)) = (may_be_orphan, process.ppid)
                    && world.process(parent).is_some()
                {
                    self.reaped.insert(parent, at);
                }
            }
            Body::InitSignal { ns, process, signal, sender, from, fate } if fate == "ignored" => {
                let kind = IncidentKind::SignalIgnored { signal: signal.clone(), from: from.clone() };
                self.incident(kind, Some(ns.inum), Some(ns), process, sender.as_ref(), None, at);
            }
            Body::ForkFailed { process, ns, errno, reason, thread, limit, .. } => {
                let kind = IncidentKind::ForkRefused {
                    errno: errno.clone(),
                    reason: reason.clone(),
                    thread: *thread,
                };
                let inum = ns.as_ref().map(|ns| ns.inum);
                self.incident(kind, inum, ns.as_ref(), process, None, limit.as_ref(), at);
            }
            Body::NamespaceCreateFailed { via, creator, errno, reason, limit, .. } => {
                let kind = IncidentKind::CreationRefused {
                    via: via.clone(),
                    errno: errno.clone(),
                    reason: reason.clone(),
                };
                self.incident(kind, Some(creator.ns), None, creator, None, limit.as_ref(), at);
            }
            _ => {}
        }
    }

    /// A namespace is known, or more is known of it.
    fn note(&mut self, inum: NsInum, at: BootNs, world: &World) {
        let Some(state) = world.namespace(inum) else { return };
        if let Some(known) = self.namespaces.get(&inum)
            && !state.is(&known.ns)
        {
            self.on_removal(inum, at, world);
        }
        let record =
            self.namespaces.entry(inum).or_insert_with(|| NamespaceRecord::new(state.namespace.clone()));
        if record.ns != state.namespace {
            record.ns = state.namespace.clone();
        }
        if matches!(state.stage, Stage::Dying { .. }) {
            record.dying_since.get_or_insert(at);
        }
        if state.members == 0 && state.stage != Stage::Empty {
            record.empty_since.get_or_insert(at);
        } else {
            record.empty_since = None;
        }
    }

    fn on_removal(&mut self, inum: NsInum, at: BootNs, world: &World) {
        // Another one may have the number since.
        let Some(mut record) = self.namespaces.remove(&inum) else { return };
        if let Some(state) = world.namespace(inum).filter(|state| state.is(&record.ns)) {
            record.ns = state.namespace.clone();
            self.namespaces.insert(inum, record);
            return;
        }
        record.gone = Some(at);
        record.lives = None;
        self.gone.push_back(record);
        if self.gone.len() > MOST_GONE {
            self.gone.pop_front();
        }
    }

    /// One that has lived for a moment only was what its runtime set the container up with, under whatever name: the earliest
    /// process that lives on is the main one.
    fn main_has_ended(&mut self, process: &Process, exit: &Exit, at: BootNs, world: &World) {
        let is_it = |main: &&mut MainProcess| main.process.key() == process.key();
        let Some(main) = self.mains.values_mut().find(is_it) else { return };
        main.ended = Some((at, exit.clone()));
        if at.saturating_since(process.start_boot_ns) >= SET_UP_NS {
            return;
        }
        let living = world.processes().filter(|state| state.ended.is_none());
        let of_it = living.filter(|state| {
            let own = state.process.container.as_ref();
            own.is_some_and(|own| own.is_same(&main.container)) && !is_runtime_helper(&state.process.comm)
        });
        if let Some(next) = of_it.min_by_key(|state| state.process.start_boot_ns) {
            (main.process, main.ended) = (next.process.clone(), None);
        }
    }

    fn note_main(&mut self, key: ProcessKey, world: &World) {
        let Some(state) = world.process(key.pid) else { return };
        // What a runtime sets the container up with is in its cgroup first, and ends.
        if is_runtime_helper(&state.process.comm) {
            return;
        }
        let Some(container) = state.process.container.as_ref().filter(|container| !container.is_unit())
        else {
            return;
        };
        let Some(id) = container.id.as_ref().or(container.name.as_ref()) else { return };
        let name = (container.runtime, id.as_bytes().to_vec());
        if self.mains.len() >= MOST_MAINS && !self.mains.contains_key(&name) {
            return;
        }
        let ended = state.ended.as_ref().and_then(|ended| ended.since.zip(ended.exit.clone()));
        let main = || MainProcess { container: Arc::clone(container), process: state.process.clone(), ended };
        let known = self.mains.entry(name).or_insert_with(main);
        let was_set_up = known.ended.as_ref().is_some_and(|(at, _)| {
            at.saturating_since(known.process.start_boot_ns) < SET_UP_NS && state.ended.is_none()
        });
        if was_set_up {
            (known.process, known.ended) = (state.process.clone(), None);
        }
        let is_earlier = known.ended.is_none() && state.process.start_boot_ns < known.process.start_boot_ns;
        if is_earlier || known.process.key() == state.key() {
            known.process = state.process.clone();
        }
    }

    fn children_go(&mut self, process: &Process, ns: NsInum, since: BootNs) {
        if process.ns == ns {
            self.elsewhere.remove(&process.key());
        } else {
            self.elsewhere.insert(process.key(), Elsewhere { ns, since, has_forked: false });
        }
    }

    fn lives(
        &mut self,
        process: &Process,
        at: BootNs,
        world: &World,
        which: impl FnOnce(&mut Lives) -> &mut Window,
    ) {
        // What becomes of the host's own processes is nothing that a namespace does.
        if process.pids.len() < 2 {
            return;
        }
        if !self.namespaces.contains_key(&process.ns) {
            self.note(process.ns, at, world);
        }
        if let Some(record) = self.namespaces.get_mut(&process.ns) {
            which(record.lives()).add(at);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "an incident is made of these, and of nothing else")]
    fn incident(
        &mut self,
        kind: IncidentKind,
        inum: Option<NsInum>,
        ns: Option<&Namespace>,
        process: &Process,
        sender: Option<&Process>,
        limit: Option<&ReachedLimit>,
        at: BootNs,
    ) {
        let key = (kind.clone(), inum, process.key(), sender.map(Process::key));
        if let Some(known) = self.incidents.get_mut(&key) {
            known.last = known.last.max(at);
            known.count += 1;
            known.limit = limit.cloned().or(known.limit.take());
            return;
        }
        let incident = Incident {
            kind,
            ns: ns.cloned(),
            process: process.clone(),
            sender: sender.cloned(),
            limit: limit.cloned(),
            first: at,
            last: at,
            count: 1,
        };
        self.incidents.insert(key, incident);
        if self.incidents.len() > MOST_INCIDENTS {
            let oldest = self.incidents.iter().min_by_key(|(_, incident)| incident.last);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.incidents.remove(&oldest);
            }
        }
    }

    /// Forgets what is too long ago, and containers that have no process any more.
    pub fn forget(&mut self, now: BootNs, world: &World) {
        let is_recent = |at: BootNs| now.saturating_since(at) < REMEMBERED_NS;
        self.incidents.retain(|_, incident| is_recent(incident.last));
        while self.gone.front().is_some_and(|gone| !gone.gone.is_some_and(is_recent)) {
            self.gone.pop_front();
        }
        if self.mains.values().any(|main| main.ended.is_some() || world.process(main.process.pid).is_none()) {
            let living: std::collections::HashSet<_> = world
                .processes()
                .filter(|state| state.ended.is_none())
                .filter_map(|state| state.process.container.as_ref())
                .filter_map(|container| {
                    Some((container.runtime, container.id.as_ref().or(container.name.as_ref())?))
                })
                .collect();
            self.mains.retain(|_, main| {
                let id = main.container.id.as_ref().or(main.container.name.as_ref());
                id.is_some_and(|id| living.contains(&(main.container.runtime, id)))
            });
        }
    }

    /// What is remembered of the namespace of this number that exists.
    pub fn namespace(&self, inum: NsInum) -> Option<&NamespaceRecord> {
        self.namespaces.get(&inum)
    }

    /// The namespaces that exist and those that are gone.
    pub fn namespaces(&self) -> impl Iterator<Item = &NamespaceRecord> {
        self.gone.iter().chain(self.namespaces.values())
    }

    /// Those that are gone, the first to go first.
    pub fn gone(&self) -> impl Iterator<Item = &NamespaceRecord> {
        self.gone.iter()
    }

    /// The last namespace of this number, whether it exists or not.
    pub fn last_namespace(&self, inum: NsInum) -> Option<&NamespaceRecord> {
        self.namespace(inum).or_else(|| self.gone.iter().rev().find(|gone| gone.ns.inum == inum))
    }

    /// What went wrong.
    pub fn incidents(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.values()
    }

    /// When this process last reaped an orphan; `None` where it has not, or that was not seen.
    pub fn last_reap(&self, pid: HostPid) -> Option<BootNs> {
        self.reaped.get(&pid).copied()
    }

    /// Since when a zombie is known, where no event said when it ended.
    pub fn zombie_since(&self, process: ProcessKey) -> Option<BootNs> {
        self.zombies.get(&process).copied()
    }

    /// The name of the program that forked this process, where that was seen.
    pub fn forked_by(&self, process: ProcessKey) -> Option<&Name> {
        self.forkers.get(&process)
    }

    /// Since when a process's children go to another namespace, and whether it has forked one since; `None` where that was not
    /// seen.
    pub fn elsewhere(&self, process: ProcessKey) -> Option<(BootNs, bool)> {
        self.elsewhere.get(&process).map(|elsewhere| (elsewhere.since, elsewhere.has_forked))
    }

    /// The main processes of containers that share a PID namespace.
    pub fn mains(&self) -> impl Iterator<Item = &MainProcess> {
        self.mains.values()
    }
}
