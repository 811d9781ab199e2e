//! Takes what the pipeline makes of the events: counts it, and keeps up what a scrape reads.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use pidns_ebpf::abi::namespace_counters::NamespaceId;

use super::{
    Shared,
    host_state::{HostState, ZombieAges, id_of, runtime_of},
    labels::RuntimeLabel,
};
use crate::{
    event::Body,
    event::identity::{BootNs, NsInum},
    kernel::clock,
    model::{Change, World},
    pipeline::{Consumer, Update, Wants},
};

/// How often what exists is added up anew, at most.
const INTERVAL: Duration = Duration::from_secs(1);
/// Namespaces that were counted as destroyed and are remembered.
const DESTROYED: usize = 4_096;

/// A namespace, for when it is gone.
#[derive(Clone, Copy, Debug)]
struct Known {
    id: Option<NamespaceId>,
    born: Option<BootNs>,
    runtime: RuntimeLabel,
    /// Whether its container is known.
    is_named: bool,
}

/// Feeds the metrics.
pub struct MetricsConsumer {
    shared: std::sync::Arc<Shared>,
    known: HashMap<NsInum, Known>,
    destroyed: Destroyed,
    ages: ZombieAges,
    changed: bool,
    published: Option<Instant>,
    /// The last snapshot that the ledger knows.
    as_of: BootNs,
}

/// Namespaces that were counted as destroyed. One that is held after all is there again with the next snapshot.
#[derive(Debug, Default)]
struct Destroyed {
    set: HashSet<NamespaceId>,
    order: VecDeque<NamespaceId>,
}

impl Destroyed {
    /// Whether it was not counted before.
    fn is_new(&mut self, id: NamespaceId) -> bool {
        if !self.set.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > DESTROYED
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
        true
    }
}

impl MetricsConsumer {
    pub(super) fn new(shared: std::sync::Arc<Shared>) -> Self {
        Self {
            shared,
            known: HashMap::new(),
            destroyed: Destroyed::default(),
            ages: ZombieAges::default(),
            changed: false,
            published: None,
            as_of: BootNs::default(),
        }
    }

    fn learn(&mut self, world: &World, inum: NsInum) {
        let Some(state) = world.namespace(inum) else { return };
        let known = Known {
            id: id_of(state),
            born: state.namespace.born_boot_ns,
            runtime: runtime_of(&state.namespace),
            is_named: state.namespace.container.is_some(),
        };
        let before = self.known.insert(inum, known);
        if let Some(container) = &state.namespace.container
            && before.is_none_or(|before| !before.is_named)
        {
            self.shared.tally().named(container);
        }
        if let Some(id) = known.id
            && before.is_none_or(|before| before.id != known.id || before.runtime != known.runtime)
        {
            self.shared.ledger().belongs(id, known.runtime);
        }
    }

    fn forget(&mut self, inum: NsInum, at: BootNs) {
        let Some(known) = self.known.remove(&inum) else { return };
        if let Some(id) = known.id {
            self.shared.ledger().close(id);
        }
        if known.id.is_none_or(|id| self.destroyed.is_new(id)) {
            self.shared.tally().destroyed(known.born, at);
        }
    }

    fn publish(&mut self, world: &World) {
        self.changed = false;
        self.published = Some(Instant::now());
        let state = HostState::of(world, &mut self.ages);
        if state.as_of > self.as_of {
            self.as_of = state.as_of;
            let zombies = state.below().filter_map(|ns| Some((ns.id?, ns.population.zombies()))).collect();
            let host = state.namespaces.iter().find(|ns| ns.is_initial());
            let host_zombies = host.map_or(0, |host| host.population.zombies());
            self.shared.ledger().after_snapshot(host_zombies, &zombies);
        }
        self.shared.publish(state);
    }
}

impl Consumer for MetricsConsumer {
    fn update(&mut self, update: &Update<'_>) -> Wants {
        let Update { event, container, changes, world } = *update;
        let runtime = RuntimeLabel::of(container);
        self.shared.tally().count(event, runtime, clock::boottime_ns());
        let Some(world) = world else { return Wants::More };
        for change in changes {
            match change {
                Change::NamespaceRemoved(inum) => self.forget(*inum, event.boot_ns),
                Change::NamespaceAdded(inum) | Change::NamespaceUpdated(inum) => self.learn(world, *inum),
                Change::ProcessAdded(_)
                | Change::ProcessUpdated(_)
                | Change::ProcessEnded(_)
                | Change::ProcessRemoved(_) => {}
            }
        }
        // An init is what a namespace's id comes from, where the kernel gives it no number.
        if let Body::NamespaceInit { ns, .. } = &event.body {
            self.learn(world, ns.inum);
        }
        let is_snapshot = matches!(event.body, Body::SnapshotProcess { .. });
        self.changed |= is_snapshot || !changes.is_empty();
        Wants::More
    }

    fn tick(&mut self, world: Option<&World>) -> Wants {
        if let Some(world) = world
            && self.changed
            && !world.is_in_snapshot()
            && self.published.is_none_or(|published| published.elapsed() >= INTERVAL)
        {
            self.publish(world);
        }
        Wants::More
    }
}
