//! Who was there: processes and namespaces that are gone, the last ten thousand of each.

use std::collections::{HashMap, VecDeque};

use super::world::{Domain, Identity, Resident};
use crate::snapshot;

/// Most of each that are remembered; of more, those that went first are forgotten.
pub const LIMIT: usize = 10_000;

/// A process that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadProcess {
    /// As it was.
    pub resident: Resident,
    /// When it was reaped: CLOCK_BOOTTIME, nanoseconds; `None` where nobody saw that.
    pub gone_boot_ns: Option<u64>,
}

impl DeadProcess {
    /// In the form that a look at the kernel has, without a state, which it has no more.
    pub fn as_it_was(&self) -> snapshot::Process {
        snapshot::Process {
            state: None,
            threads: None,
            zombie_since_boot_ns: None,
            ..self.resident.as_looked_at()
        }
    }
}

/// A namespace that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadNamespace {
    /// As it was.
    pub domain: Domain,
    /// When its last reference went: CLOCK_BOOTTIME, nanoseconds; `None` where nobody saw that.
    pub gone_boot_ns: Option<u64>,
}

/// Those that are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    processes: VecDeque<DeadProcess>,
    /// How many of [`Self::processes`] are this one: a stream that contradicts itself can bury one twice.
    known: HashMap<Identity, usize>,
    namespaces: VecDeque<DeadNamespace>,
}

impl Past {
    /// Whether this process is remembered as gone.
    pub fn has(&self, identity: Identity) -> bool {
        self.known.contains_key(&identity)
    }

    /// The processes, the last to go first.
    pub fn processes(&self) -> impl Iterator<Item = &DeadProcess> {
        self.processes.iter().rev()
    }

    /// The namespaces, the last to go first.
    pub fn namespaces(&self) -> impl Iterator<Item = &DeadNamespace> {
        self.namespaces.iter().rev()
    }

    pub(super) fn buried(&mut self, process: DeadProcess) {
        *self.known.entry(process.resident.identity()).or_default() += 1;
        self.processes.push_back(process);
        if self.processes.len() > LIMIT
            && let Some(forgotten) = self.processes.pop_front()
        {
            let identity = forgotten.resident.identity();
            if let Some(times) = self.known.get_mut(&identity) {
                *times -= 1;
                if *times == 0 {
                    self.known.remove(&identity);
                }
            }
        }
    }

    /// When one that went with its namespace was reaped comes after that namespace's end. Returns whether it is such a one.
    pub(super) fn reaped(&mut self, identity: Identity, at: u64) -> bool {
        let mut since = self.processes.iter_mut().rev();
        let dead = since.find(|dead| dead.resident.identity() == identity);
        match dead.filter(|dead| dead.gone_boot_ns.is_none() && dead.resident.ended.is_some()) {
            Some(dead) => {
                dead.gone_boot_ns = Some(at);
                true
            }
            None => false,
        }
    }

    /// It is not gone after all.
    pub(super) fn raised(&mut self, identity: Identity) {
        if self.known.remove(&identity).is_some() {
            self.processes.retain(|process| process.resident.identity() != identity);
        }
    }

    pub(super) fn closed(&mut self, namespace: DeadNamespace) {
        self.namespaces.push_back(namespace);
        if self.namespaces.len() > LIMIT {
            self.namespaces.pop_front();
        }
    }
}
