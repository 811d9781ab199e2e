//! Who was there: processes and namespaces that are gone, the last of each up to a limit.

use std::collections::{HashMap, VecDeque};

use super::{namespace_state::NamespaceState, process_state::ProcessState};
use crate::event::identity::{BootNs, ProcessKey};
use crate::event::snapshot::SnapshotProcess;

/// Most of each that are remembered where nothing else is asked for; of more, those that went first are forgotten.
pub const LIMIT: usize = 10_000;

/// A process that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadProcess {
    /// As it was.
    pub state: ProcessState,
    /// When it was reaped; `None` where no event says that.
    pub gone_boot_ns: Option<BootNs>,
    /// The latest time by which it was known to be gone.
    pub known_boot_ns: BootNs,
}

impl DeadProcess {
    /// Whether an event reported its end. Else it was only thought to be gone.
    pub fn was_seen_to_end(&self) -> bool {
        self.gone_boot_ns.is_some() || self.state.ended.as_ref().is_some_and(|ended| ended.since.is_some())
    }

    /// In the form of a snapshot of the kernel, without a state, which it has no more. Its parent is the one it had when it
    /// ended: that one can be gone before it is known that it has reaped it.
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
            zombie_since_boot_ns: None,
            last_ran_boot_ns: None,
            ppid: self.state.ended.as_ref().and_then(|ended| ended.parent).or(self.state.parent),
            ..self.state.as_snapshot(false)
        }
    }
}

/// A namespace that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadNamespace {
    /// As it was.
    pub state: NamespaceState,
    /// When it went; `None` where no event says that.
    pub gone_boot_ns: Option<BootNs>,
    /// Whether an event reported that its last reference was gone; else only its processes are known to be.
    pub destroyed: bool,
}

/// Those that are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    limit: usize,
    /// In the order of their ends. The place of one that turned out not to be gone is empty.
    processes: VecDeque<Option<DeadProcess>>,
    /// The number of the first place.
    first: u64,
    /// The places of those in [`Self::processes`].
    places: HashMap<ProcessKey, u64>,
    namespaces: VecDeque<DeadNamespace>,
    /// Whether there were more.
    has_forgotten: bool,
}

impl History {
    /// Of no process yet, and of so many at most.
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

    /// How many of each are remembered at most.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Whether there were more than that.
    pub fn has_forgotten(&self) -> bool {
        self.has_forgotten
    }

    /// The process that is remembered under this identity.
    pub fn process(&self, key: ProcessKey) -> Option<&DeadProcess> {
        self.processes.get(self.index(key)?)?.as_ref()
    }

    /// The processes, the last to go first.
    pub fn processes(&self) -> impl Iterator<Item = &DeadProcess> {
        self.processes.iter().rev().flatten()
    }

    /// The namespaces, the last to go first.
    pub fn namespaces(&self) -> impl Iterator<Item = &DeadNamespace> {
        self.namespaces.iter().rev()
    }

    pub(super) fn add_process(&mut self, process: DeadProcess) {
        let key = process.state.key();
        // A stream that contradicts itself can bury one twice: the last time counts.
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

    /// When one that went with its namespace was reaped comes after that namespace's end. Returns whether it is such a one.
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

    /// It is not gone after all.
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
        // A snapshot may have named it with a start that /proc has rounded.
        let place = self.places.get(&key).or_else(|| self.places.get(&key.rounded_to_tick()));
        place.map(|place| (place - self.first) as usize)
    }
}
