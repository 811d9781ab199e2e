//! Recent history of namespaces and their processes: creators, refusals, ignored signals, ends, and rates of births and
//! exits. [`World`] has the current state. This has the events that led to it.
//!
//! Everything is bounded: the oldest ended namespaces and incidents are forgotten first.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{Change, Entered, Stage, Window, World, is_runtime_helper};
use crate::event::{
    Body, Cause, Event, Namespace, Process, ReachedLimit,
    container::Runtime,
    identity::{BootNs, HostPid, NamespaceKey, NsInum, ProcessKey},
    snapshot::SnapshotNamespace,
};
use crate::text::Name;

mod records;

pub use records::{Death, Incident, IncidentKind, Lives, MainProcess, NamespaceRecord, TornDown};

/// Limit for gone namespaces.
const MAX_GONE: usize = 1_000;
/// Limit for incidents.
const MAX_INCIDENTS: usize = 1_000;
/// Limit for main processes of containers without their own namespace.
const MAX_MAINS: usize = 1_000;
/// If a container's first process ends within this time in nanoseconds, it only set the container up.
const SET_UP_NS: u64 = 1_000_000_000;
/// Incidents and gone namespaces are forgotten after this time, if no threshold is longer.
const REMEMBERED: Duration = Duration::from_secs(15 * 60);
/// After a threshold of time, the finding that needs it is detected within this time.
const DETECTED: Duration = Duration::from_secs(60);

/// Incidents with the same key are counted together.
type IncidentKey = (IncidentKind, Option<NamespaceKey>, ProcessKey, Option<ProcessKey>);

/// The namespace of a process's children, if it is not its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Elsewhere {
    ns: NsInum,
    since: BootNs,
    has_forked: bool,
}

/// The recent history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recent {
    namespaces: HashMap<NsInum, NamespaceRecord>,
    gone: VecDeque<NamespaceRecord>,
    /// Namespaces with an open finding. They are not forgotten.
    needed: HashSet<NamespaceKey>,
    incidents: BTreeMap<IncidentKey, Incident>,
    /// When a process last reaped an orphan.
    reaped: HashMap<HostPid, BootNs>,
    elsewhere: HashMap<ProcessKey, Elsewhere>,
    /// By runtime and id of the container.
    mains: BTreeMap<(Option<Runtime>, Vec<u8>), MainProcess>,
    /// Names of the programs that forked processes.
    forkers: HashMap<ProcessKey, Name>,
    /// When zombies were first found, if no event reported their end.
    zombies: HashMap<ProcessKey, BootNs>,
}

impl Recent {
    /// Follows an event and the changes that it made in the model.
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
                    self.main_is_gone(*key, event.boot_ns);
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
                if let Some(record) = self.record_mut(ns) {
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
                    if let Some(record) = self.record_mut(ns) {
                        record.init_parent = Some(parent.process.clone());
                    }
                }
            }
            Body::SnapshotProcess { process, last_ran_boot_ns, .. } => {
                // An exiting PID 1 has waited since it last ran.
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
                if let Some(record) = self.record_mut(ns) {
                    let (process, exit, cause) = (process.clone(), exit.clone(), cause.clone());
                    // By now, its runtime may have left it to the shim.
                    if let Some(parent) = process.ppid.and_then(|parent| world.process(parent)) {
                        record.init_parent = Some(parent.process.clone());
                    }
                    record.death = Some(Death { at, process, exit, cause, members: *members });
                }
            }
            Body::NamespaceTeardown { ns, killed, nested, duration_ns } => {
                let torn_down =
                    TornDown { at, killed: *killed, nested: nested.clone(), duration_ns: *duration_ns };
                // If no hook reports destructions, the model has removed it already.
                if let Some(record) = self.record_mut(ns) {
                    record.torn_down = Some(torn_down);
                }
            }
            Body::Finding { finding, .. } => {
                if let Some(record) = finding.ns.as_ref().and_then(|ns| self.record_of_mut(ns)) {
                    finding.add_blockers(&mut record.held_up_by);
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
            Body::ProcessExit { process, cause, .. } => {
                // Otherwise only some ends are reported, and their number would be wrong.
                if world.follows_processes() {
                    self.lives(process, at, world, |lives| &mut lives.exits);
                }
                self.elsewhere.remove(&process.key());
                self.main_has_ended(process, at, world);
                let is_member = process.pids.len() > 1 && !process.is_init();
                if let (true, Some(Cause::Oom { .. })) = (is_member, cause) {
                    let ns = self.namespace_of(process, world);
                    self.incident(IncidentKind::MemberOom, ns, process, None, None, at);
                }
            }
            Body::ProcessReap { process, .. } => {
                self.lives(process, at, world, |lives| &mut lives.reaps);
                // A process that waits for its own children may never wait for adopted ones, so only reaps of orphans
                // count.
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
                self.incident(kind, Some(SnapshotNamespace::of(ns)), process, sender.as_ref(), None, at);
            }
            Body::ForkFailed { process, ns, errno, reason, thread, limit, .. } => {
                let kind = IncidentKind::ForkRefused {
                    errno: errno.clone(),
                    reason: reason.clone(),
                    thread: *thread,
                };
                let ns = ns.as_ref().map(SnapshotNamespace::of);
                let ns = ns.or_else(|| self.namespace_of(process, world));
                self.incident(kind, ns, process, None, limit.as_ref(), at);
            }
            Body::NamespaceCreateFailed { via, creator, errno, reason, limit, .. } => {
                let kind = IncidentKind::CreationRefused {
                    via: via.clone(),
                    errno: errno.clone(),
                    reason: reason.clone(),
                };
                let ns = self.namespace_of(creator, world);
                self.incident(kind, ns, creator, None, limit.as_ref(), at);
            }
            _ => {}
        }
    }

    /// Adds a namespace or updates its record.
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
        // Another namespace may have the number by now.
        let Some(mut record) = self.namespaces.remove(&inum) else { return };
        if let Some(state) = world.namespace(inum).filter(|state| state.is(&record.ns)) {
            record.ns = state.namespace.clone();
            self.namespaces.insert(inum, record);
            return;
        }
        record.gone = Some(at);
        record.lives = None;
        self.gone.push_back(record);
        if self.gone.len() > MAX_GONE {
            let is_needed = |record: &NamespaceRecord| self.needed.contains(&record.ns.key());
            let oldest = self.gone.iter().position(|record| !is_needed(record)).unwrap_or(0);
            self.gone.remove(oldest);
        }
    }

    /// The record of this namespace, existing or gone. Another namespace may have its inode number by now.
    fn record_mut(&mut self, ns: &Namespace) -> Option<&mut NamespaceRecord> {
        self.record_of_mut(&SnapshotNamespace::of(ns))
    }

    fn record_of_mut(&mut self, ns: &SnapshotNamespace) -> Option<&mut NamespaceRecord> {
        let existing = self.namespaces.get_mut(&ns.inum).filter(|record| record.is_of(ns));
        existing.or_else(|| self.gone.iter_mut().rev().find(|gone| gone.is_of(ns)))
    }

    /// The namespace of a process. Another one may have its inode number by now.
    fn namespace_of(&self, process: &Process, world: &World) -> Option<SnapshotNamespace> {
        let state = world.namespace(process.ns).map(|state| &state.namespace);
        let existing = state.filter(|ns| !ns.is_younger_than(Some(process.start_boot_ns)));
        let gone = || self.gone.iter().rev().find(|gone| gone.had(process.ns, process.start_boot_ns));
        existing.or_else(|| gone().map(|gone| &gone.ns)).cloned()
    }

    /// If a container's first process ended after a moment, it only set the container up, whatever its name. Then the
    /// earliest process that is still alive is the main one.
    fn main_has_ended(&mut self, process: &Process, at: BootNs, world: &World) {
        let is_it = |main: &&mut MainProcess| main.process.key() == process.key();
        let Some(main) = self.mains.values_mut().find(is_it) else { return };
        main.ended = Some(at);
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

    /// If no event reported its end, its container's main process ended at the latest when it was removed.
    fn main_is_gone(&mut self, key: ProcessKey, at: BootNs) {
        if let Some(main) = self.mains.values_mut().find(|main| main.process.key() == key) {
            main.ended.get_or_insert(at);
        }
    }

    fn note_main(&mut self, key: ProcessKey, world: &World) {
        let Some(state) = world.process(key.pid) else { return };
        // A runtime's helpers are in the container's cgroup first, and then end.
        if is_runtime_helper(&state.process.comm) {
            return;
        }
        let Some(container) = state.process.container.as_ref().filter(|container| !container.is_unit())
        else {
            return;
        };
        let Some(id) = container.id.as_ref().or(container.name.as_ref()) else { return };
        let name = (container.runtime, id.as_bytes().to_vec());
        if self.mains.len() >= MAX_MAINS && !self.mains.contains_key(&name) {
            return;
        }
        let ended = state.ended.as_ref().and_then(|ended| ended.since);
        let main = || MainProcess { container: Arc::clone(container), process: state.process.clone(), ended };
        let known = self.mains.entry(name).or_insert_with(main);
        let was_set_up = known.ended.is_some_and(|at| {
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
        // The host's own processes do not count for any namespace.
        if process.pids.len() < 2 {
            return;
        }
        if !self.namespaces.contains_key(&process.ns) {
            self.note(process.ns, at, world);
        }
        if let Some(record) = self.namespaces.get_mut(&process.ns)
            && record.had(process.ns, process.start_boot_ns)
        {
            which(record.lives()).add(at);
        }
    }

    fn incident(
        &mut self,
        kind: IncidentKind,
        ns: Option<SnapshotNamespace>,
        process: &Process,
        sender: Option<&Process>,
        limit: Option<&ReachedLimit>,
        at: BootNs,
    ) {
        let key =
            (kind.clone(), ns.as_ref().map(SnapshotNamespace::key), process.key(), sender.map(Process::key));
        if let Some(known) = self.incidents.get_mut(&key) {
            known.last = known.last.max(at);
            known.count += 1;
            known.limit = limit.cloned().or(known.limit.take());
            return;
        }
        let incident = Incident {
            kind,
            ns,
            process: process.clone(),
            sender: sender.cloned(),
            limit: limit.cloned(),
            first: at,
            last: at,
            count: 1,
        };
        self.incidents.insert(key, incident);
        if self.incidents.len() > MAX_INCIDENTS {
            let oldest = self.incidents.iter().min_by_key(|(_, incident)| incident.last);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.incidents.remove(&oldest);
            }
        }
    }

    /// Forgets old entries, and containers without processes. Entries of `needed` namespaces stay. `longest` is the
    /// longest threshold of a finding about something that is over.
    pub fn forget(&mut self, now: BootNs, world: &World, needed: HashSet<NamespaceKey>, longest: Duration) {
        self.needed = needed;
        let remembered = REMEMBERED.max(longest.saturating_add(DETECTED)).as_nanos();
        let is_recent = |at: BootNs| u128::from(now.saturating_since(at)) < remembered;
        let is_needed = |ns: &SnapshotNamespace| self.needed.contains(&ns.key());
        self.incidents
            .retain(|_, incident| is_recent(incident.last) || incident.ns.as_ref().is_some_and(is_needed));
        self.gone.retain(|gone| gone.gone.is_some_and(is_recent) || is_needed(&gone.ns));
        if self.mains.values().any(|main| main.ended.is_some() || world.process(main.process.pid).is_none()) {
            let living: HashSet<_> = world
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

    /// The record of the existing namespace with this number.
    pub fn namespace(&self, inum: NsInum) -> Option<&NamespaceRecord> {
        self.namespaces.get(&inum)
    }

    /// Records of existing and gone namespaces.
    pub fn namespaces(&self) -> impl Iterator<Item = &NamespaceRecord> {
        self.gone.iter().chain(self.namespaces.values())
    }

    /// Records of gone namespaces, the earliest first.
    pub fn gone(&self) -> impl Iterator<Item = &NamespaceRecord> {
        self.gone.iter()
    }

    /// The record of this namespace, existing or gone.
    pub fn record_of(&self, ns: &SnapshotNamespace) -> Option<&NamespaceRecord> {
        let existing = self.namespace(ns.inum).filter(|record| record.is_of(ns));
        existing.or_else(|| self.gone.iter().rev().find(|gone| gone.is_of(ns)))
    }

    /// The record of the last namespace with this number, existing or gone.
    pub fn last_namespace(&self, inum: NsInum) -> Option<&NamespaceRecord> {
        self.namespace(inum).or_else(|| self.gone.iter().rev().find(|gone| gone.ns.inum == inum))
    }

    /// The remembered incidents.
    pub fn incidents(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.values()
    }

    /// When this process last reaped an orphan; `None` if no event shows that it did.
    pub fn last_reap(&self, pid: HostPid) -> Option<BootNs> {
        self.reaped.get(&pid).copied()
    }

    /// When a zombie was first found, if no event reported its end.
    pub fn zombie_since(&self, process: ProcessKey) -> Option<BootNs> {
        self.zombies.get(&process).copied()
    }

    /// Name of the program that forked this process, if an event showed it.
    pub fn forked_by(&self, process: ProcessKey) -> Option<&Name> {
        self.forkers.get(&process)
    }

    /// Since when a process's children are born in another namespace, and whether it has forked one since. `None` if no
    /// event shows it.
    pub fn elsewhere(&self, process: ProcessKey) -> Option<(BootNs, bool)> {
        self.elsewhere.get(&process).map(|elsewhere| (elsewhere.since, elsewhere.has_forked))
    }

    /// The main processes of containers that share a PID namespace.
    pub fn mains(&self) -> impl Iterator<Item = &MainProcess> {
        self.mains.values()
    }
}
