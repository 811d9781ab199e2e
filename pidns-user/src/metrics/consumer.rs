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
    /// Whether an event reported its creation or its init.
    is_announced: bool,
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
    /// Remembers one; whether it was not known before.
    fn remember(&mut self, id: NamespaceId) -> bool {
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

    fn learn(&mut self, world: &World, inum: NsInum, is_announced: bool) {
        let Some(state) = world.namespace(inum) else { return };
        let before = self.known.get(&inum).copied();
        let is_same = before.is_some_and(|before| before.id.is_none() || before.id == id_of(state));
        let known = Known {
            is_announced: is_announced || (is_same && before.is_some_and(|before| before.is_announced)),
            id: id_of(state),
            born: state.namespace.born_boot_ns,
            runtime: runtime_of(&state.namespace),
            is_named: state.namespace.container.is_some(),
        };
        self.known.insert(inum, known);
        if let Some(container) = &state.namespace.container
            && before.is_none_or(|before| !before.is_named)
        {
            self.shared.tally().named(container);
        }
        if let Some(id) = known.id
            && before.is_none_or(|before| before.id != known.id || before.runtime != known.runtime)
        {
            self.shared.ledger().assign_runtime(id, known.runtime);
        }
    }

    /// A namespace is gone; with the last reference to it, if it `was_destroyed`.
    fn forget(&mut self, inum: NsInum, was_destroyed: bool, at: BootNs) {
        let Some(known) = self.known.remove(&inum) else { return };
        if let Some(id) = known.id {
            self.shared.ledger().close(id);
        }
        let is_first_end = match known.id {
            Some(id) => self.destroyed.remember(id),
            // One that was found without a process may have been counted with its teardown.
            None => was_destroyed || known.is_announced,
        };
        if is_first_end {
            self.shared.tally().destroyed(known.born, at);
        }
    }

    fn publish(&mut self, world: &World) {
        self.changed = false;
        self.published = Some(Instant::now());
        // The init that a snapshot finds is what older kernels' namespaces are told apart by, and no change of the namespace.
        for inum in world.namespaces().map(|state| state.namespace.inum).collect::<Vec<_>>() {
            self.learn(world, inum, false);
        }
        let state = HostState::of(world, &mut self.ages);
        if state.as_of > self.as_of {
            self.as_of = state.as_of;
            let zombies = state.below().filter_map(|ns| Some((ns.id?, ns.population.zombies()))).collect();
            let host = state.namespaces.iter().find(|ns| ns.is_initial());
            let host_zombies = host.map_or(0, |host| host.population.zombies());
            let existing = state.namespaces.iter().map(|ns| ns.inum).collect();
            self.shared.ledger().after_snapshot(host_zombies, &zombies, &existing);
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
                Change::NamespaceRemoved(inum) => {
                    let was_destroyed = matches!(event.body, Body::NamespaceDestroy { .. });
                    self.forget(*inum, was_destroyed, event.boot_ns);
                }
                Change::NamespaceAdded(inum) | Change::NamespaceUpdated(inum) => {
                    self.learn(world, *inum, false);
                }
                Change::ProcessAdded(_)
                | Change::ProcessUpdated(_)
                | Change::ProcessEnded(_)
                | Change::ProcessRemoved(_) => {}
            }
        }
        if let Body::NamespaceCreate { ns, .. } | Body::NamespaceInit { ns, .. } = &event.body {
            self.learn(world, ns.inum, true);
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
