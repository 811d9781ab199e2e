//! The processes and namespaces that are gone: the latest ones of each, up to a limit.

use std::collections::{HashMap, VecDeque};

use super::{namespace_state::NamespaceState, process_state::ProcessState};
use crate::event::identity::{BootNs, ProcessKey};
use crate::event::snapshot::SnapshotProcess;

/// Default limit for each. Beyond it, the oldest are forgotten.
pub const LIMIT: usize = 10_000;

/// A process that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadProcess {
    /// Its last state.
    pub state: ProcessState,
    /// When it was reaped; `None` if no event reported it.
    pub gone_boot_ns: Option<BootNs>,
    /// The first time at which the model knew that it was gone.
    pub known_boot_ns: BootNs,
}

impl DeadProcess {
    /// Whether an event reported its end. Otherwise it is only assumed to be gone.
    pub fn was_seen_to_end(&self) -> bool {
        self.gone_boot_ns.is_some() || self.state.ended.as_ref().is_some_and(|ended| ended.since.is_some())
    }

    /// Converts it to the form of a snapshot, without a state. Its parent is the one that it had when it exited. That
    /// parent may end before the process's reap is reported, so the model's present parent may be another one.
    pub fn as_it_was(&self) -> SnapshotProcess {
        SnapshotProcess {
            state: None,
            threads: None,
            threads_live: None,
            frozen: false,
            freezer: None,
            tracer: None,
            subreaper: None,
            cgroup_id: None,
            cgroup: None,
            cgroup_set: None,
            zombie_since_boot_ns: None,
            last_ran_boot_ns: None,
            wchan: None,
            ppid: self.state.ended.as_ref().and_then(|ended| ended.parent).or(self.state.parent),
            ..self.state.as_snapshot(false)
        }
    }
}

/// A namespace that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadNamespace {
    /// Its last state.
    pub state: NamespaceState,
    /// When it ended; `None` if no event reported it.
    pub gone_boot_ns: Option<BootNs>,
    /// Whether an event reported that its last reference was dropped. Otherwise only its processes are known to be
    /// gone.
    pub destroyed: bool,
}

/// The gone processes and namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    limit: usize,
    /// In the order of their ends. `None` for a process that turned out to exist.
    processes: VecDeque<Option<DeadProcess>>,
    /// Number of the first entry.
    first: u64,
    /// Numbers of the entries in [`Self::processes`].
    places: HashMap<ProcessKey, u64>,
    namespaces: VecDeque<DeadNamespace>,
    /// Whether older ones were forgotten.
    has_forgotten: bool,
}

impl History {
    /// An empty history with this limit.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            processes: VecDeque::new(),
            first: 0,
            places: HashMap::new(),
            namespaces: VecDeque::new(),
            has_forgotten: false,
        }
    }

    /// The limit for each of processes and namespaces.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Whether older ones were forgotten.
    pub fn has_forgotten(&self) -> bool {
        self.has_forgotten
    }

    /// The remembered process with this identity.
    pub fn process(&self, key: ProcessKey) -> Option<&DeadProcess> {
        self.processes.get(self.index(key)?)?.as_ref()
    }

    /// The gone processes, the latest first.
    pub fn processes(&self) -> impl Iterator<Item = &DeadProcess> {
        self.processes.iter().rev().flatten()
    }

    /// The gone namespaces, the latest first.
    pub fn namespaces(&self) -> impl Iterator<Item = &DeadNamespace> {
        self.namespaces.iter().rev()
    }

    pub(super) fn add_process(&mut self, process: DeadProcess) {
        let key = process.state.key();
        // A contradictory stream can end a process twice. The last end counts.
        self.revived(key);
        self.places.insert(key, self.first + self.processes.len() as u64);
        self.processes.push_back(Some(process));
        if self.processes.len() > self.limit {
            self.first += 1;
            self.has_forgotten = true;
            if let Some(Some(forgotten)) = self.processes.pop_front() {
                self.places.remove(&forgotten.state.key());
            }
        }
    }

    /// Records the reap of a process that was removed with its namespace. That report may come after the namespace's
    /// end. Returns whether it was such a process.
    pub(super) fn reaped(&mut self, key: ProcessKey, at: BootNs) -> bool {
        let dead = self.index(key).and_then(|index| self.processes.get_mut(index)?.as_mut());
        match dead.filter(|dead| dead.gone_boot_ns.is_none() && dead.state.ended.is_some()) {
            Some(dead) => {
                dead.gone_boot_ns = Some(at);
                true
            }
            None => false,
        }
    }

    /// Removes a process that turned out to exist.
    pub(super) fn revived(&mut self, key: ProcessKey) {
        let place = self.index(key).and_then(|index| self.processes.get_mut(index));
        if let Some(raised) = place.and_then(Option::take) {
            self.places.remove(&raised.state.key());
        }
    }

    pub(super) fn add_namespace(&mut self, namespace: DeadNamespace) {
        self.namespaces.push_back(namespace);
        if self.namespaces.len() > self.limit {
            self.namespaces.pop_front();
            self.has_forgotten = true;
        }
    }

    fn index(&self, key: ProcessKey) -> Option<usize> {
        // A snapshot may have stored it with a start that /proc rounded.
        let place = self.places.get(&key).or_else(|| self.places.get(&key.rounded_to_tick()));
        place.map(|place| (place - self.first) as usize)
    }
}
