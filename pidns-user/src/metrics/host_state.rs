//! The state of the host, summed up for a scrape.

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

/// The state of a namespace: the values of the label `state` of `pidns_namespaces`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NamespaceStateLabel {
    /// It has a process.
    Active,
    /// Its init is dead, and members are left.
    Draining,
    /// It has no process, or only a PID 1 that has ended and that its parent has not reaped.
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

    /// The state of a namespace with this many processes. A snapshot reports a namespace that is only held as alive;
    /// without processes it is pinned.
    fn of(stage: &Stage, processes: u64) -> Self {
        match stage {
            Stage::Alive if processes == 0 => Self::Pinned,
            Stage::Alive => Self::Active,
            // No member keeps it from ending.
            Stage::Dying { torn_down: true, .. } => Self::Pinned,
            Stage::Dying { .. } => Self::Draining,
            Stage::Empty | Stage::Held { .. } => Self::Pinned,
        }
    }
}

/// Numbers of processes and threads of a namespace or a runtime.
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

/// A namespace, as the metrics need it.
#[derive(Clone, Debug)]
pub(super) struct NamespaceSummary {
    pub(super) inum: NsInum,
    /// Its id in the kernel side's counters; `None` for the initial namespace, and if it has had no process.
    pub(super) id: Option<NamespaceId>,
    pub(super) parent: Option<NsInum>,
    pub(super) level: u32,
    pub(super) born: Option<BootNs>,
    pub(super) runtime: RuntimeLabel,
    pub(super) container: Option<Arc<Container>>,
    pub(super) state: NamespaceStateLabel,
    pub(super) init: Option<HostPid>,
    pub(super) population: Population,
    /// When the oldest zombie was first seen as a zombie.
    pub(super) oldest_zombie: Option<BootNs>,
}

impl NamespaceSummary {
    pub(super) fn is_initial(&self) -> bool {
        self.level == 0
    }
}

/// The state of the host.
#[derive(Clone, Debug, Default)]
pub(super) struct HostState {
    /// Sorted by the number of processes, the largest first.
    pub(super) namespaces: Vec<NamespaceSummary>,
    /// The start of the last snapshot; 0 before the first one.
    pub(super) as_of: BootNs,
}

/// When each zombie was first seen as a zombie.
#[derive(Debug, Default)]
pub(super) struct ZombieAges(HashMap<ProcessKey, BootNs>);

/// The runtime label of a namespace.
pub(super) fn runtime_of(namespace: &SnapshotNamespace) -> RuntimeLabel {
    if namespace.level == 0 { RuntimeLabel::Host } else { RuntimeLabel::of(namespace.container.as_ref()) }
}

/// The id of a namespace in the kernel side's counters. On kernels before 6.18 it has none until it has a process.
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
            // If only the first thread of a process has ended, its state is Z too.
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

    /// All namespaces except the initial one.
    pub(super) fn below(&self) -> impl Iterator<Item = &NamespaceSummary> {
        self.namespaces.iter().filter(|ns| !ns.is_initial())
    }

    /// The processes of each runtime in namespaces other than the initial one.
    pub(super) fn by_runtime(&self) -> BTreeMap<RuntimeLabel, Population> {
        let mut populations: BTreeMap<_, Population> =
            RuntimeLabel::BELOW.iter().map(|runtime| (*runtime, Population::default())).collect();
        for ns in self.below() {
            populations.entry(ns.runtime).or_default().add(&ns.population);
        }
        populations
    }
}
