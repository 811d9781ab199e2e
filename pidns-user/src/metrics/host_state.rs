//! What exists on the host, added up for a scrape.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use pidns_ebpf::abi::namespace_counters::NamespaceId;

use super::labels::{PROCESS_STATES, ProcessStateLabel, RuntimeLabel};
use crate::{
    event::container::Container,
    event::identity::{BootNs, HostPid, NsInum, ProcessKey},
    event::snapshot::SnapshotNamespace,
    model::{NamespaceState, Observation, Stage, World},
};

/// How far a namespace has come: the values of the label `state` of `pidns_namespaces`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NamespaceStateLabel {
    /// It has a process.
    Active,
    /// Its init is dead, and members are left.
    Draining,
    /// It has no process.
    Pinned,
}

impl NamespaceStateLabel {
    pub(super) const ALL: [Self; 3] = [Self::Active, Self::Draining, Self::Pinned];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Pinned => "pinned",
        }
    }

    /// Of a namespace with so many processes. A snapshot reports a namespace that is only held as alive, without processes: it is
    /// pinned.
    fn of(stage: &Stage, processes: u64) -> Self {
        match stage {
            Stage::Alive if processes == 0 => Self::Pinned,
            Stage::Alive => Self::Active,
            Stage::Dying { .. } => Self::Draining,
            Stage::Empty | Stage::Held { .. } => Self::Pinned,
        }
    }
}

/// Processes of a namespace or a runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Population {
    /// By [`ProcessStateLabel`].
    pub(super) states: [u64; PROCESS_STATES],
    pub(super) threads: u64,
}

impl Population {
    pub(super) fn processes(&self) -> u64 {
        self.states.iter().sum()
    }

    pub(super) fn zombies(&self) -> u64 {
        self.states[ProcessStateLabel::Zombie as usize]
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.states.iter_mut().zip(other.states).for_each(|(sum, more)| *sum += more);
        self.threads += other.threads;
    }
}

/// A namespace.
#[derive(Clone, Debug)]
pub(super) struct NamespaceSummary {
    pub(super) inum: NsInum,
    /// As the kernel side counts it; `None` for the initial one, and for one that has had no process.
    pub(super) id: Option<NamespaceId>,
    pub(super) parent: Option<NsInum>,
    pub(super) level: u32,
    pub(super) born: Option<BootNs>,
    pub(super) runtime: RuntimeLabel,
    pub(super) container: Option<Arc<Container>>,
    pub(super) state: NamespaceStateLabel,
    pub(super) init: Option<HostPid>,
    pub(super) population: Population,
    /// When the oldest zombie was first seen as one.
    pub(super) oldest_zombie: Option<BootNs>,
}

impl NamespaceSummary {
    pub(super) fn is_initial(&self) -> bool {
        self.level == 0
    }
}

/// What exists.
#[derive(Clone, Debug, Default)]
pub(super) struct HostState {
    /// Most processes first.
    pub(super) namespaces: Vec<NamespaceSummary>,
    /// When the last snapshot was begun; 0 before the first one.
    pub(super) as_of: BootNs,
}

/// When each zombie was first seen as one.
#[derive(Debug, Default)]
pub(super) struct ZombieAges(HashMap<ProcessKey, BootNs>);

/// The label of what a namespace belongs to.
pub(super) fn runtime_of(namespace: &SnapshotNamespace) -> RuntimeLabel {
    if namespace.level == 0 { RuntimeLabel::Host } else { RuntimeLabel::of(namespace.container.as_ref()) }
}

/// How the kernel side counts a namespace. One that has had no process has no counts, where the kernel gives it no number.
pub(super) fn id_of(state: &NamespaceState) -> Option<NamespaceId> {
    let NamespaceState { namespace, .. } = state;
    let id = namespace.kernel_id.or(state.init_start().map(|start| start.0))?;
    (namespace.level > 0).then(|| NamespaceId::new(id, namespace.inum.0))
}

impl HostState {
    pub(super) fn of(world: &World, ages: &mut ZombieAges) -> Self {
        let mut populations: HashMap<NsInum, (Population, Option<BootNs>)> = HashMap::new();
        let as_of = world.processes_as_of().unwrap_or(world.boot_ns());
        let mut zombies = HashMap::new();
        for process in world.processes() {
            let (population, oldest) = populations.entry(process.process.ns).or_default();
            let Observation { state: letter, threads, .. } = process.observed;
            let is_zombie = process.ended.is_some() && !world.is_exiting(process);
            let state = if is_zombie { ProcessStateLabel::Zombie } else { ProcessStateLabel::of(letter) };
            // A first thread that has ended, of a process that goes on, is in state Z too.
            let state = match state {
                ProcessStateLabel::Zombie if !is_zombie => ProcessStateLabel::Sleeping,
                state => state,
            };
            population.states[state as usize] += 1;
            population.threads += u64::from(threads.unwrap_or(1).max(1));
            if let Some(ended) = process.ended.as_ref().filter(|_| is_zombie) {
                let key = process.key();
                let since = ended.since.or_else(|| ages.0.get(&key).copied()).unwrap_or(as_of);
                zombies.insert(key, since);
                *oldest = Some(oldest.map_or(since, |oldest| oldest.min(since)));
            }
        }
        ages.0 = zombies;
        let mut namespaces: Vec<NamespaceSummary> = world
            .namespaces()
            .map(|state| {
                let NamespaceState { namespace, stage, init, .. } = state;
                let (population, oldest_zombie) =
                    populations.get(&namespace.inum).copied().unwrap_or_default();
                NamespaceSummary {
                    inum: namespace.inum,
                    id: id_of(state),
                    parent: namespace.parent,
                    level: namespace.level,
                    born: namespace.born_boot_ns,
                    runtime: runtime_of(namespace),
                    container: namespace.container.clone(),
                    state: NamespaceStateLabel::of(stage, population.processes()),
                    init: *init,
                    population,
                    oldest_zombie,
                }
            })
            .collect();
        namespaces.sort_by_key(|ns| (std::cmp::Reverse(ns.population.processes()), ns.inum));
        Self { namespaces, as_of }
    }

    /// Those below the initial one.
    pub(super) fn below(&self) -> impl Iterator<Item = &NamespaceSummary> {
        self.namespaces.iter().filter(|ns| !ns.is_initial())
    }

    /// The processes of each runtime, below the initial namespace.
    pub(super) fn by_runtime(&self) -> BTreeMap<RuntimeLabel, Population> {
        let mut populations: BTreeMap<_, Population> =
            RuntimeLabel::BELOW.iter().map(|runtime| (*runtime, Population::default())).collect();
        for ns in self.below() {
            populations.entry(ns.runtime).or_default().add(&ns.population);
        }
        populations
    }
}
