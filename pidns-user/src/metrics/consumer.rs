//! Updates the metrics from the events and the model.

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
    event::identity::{BootNs, NsInum},
    event::{Body, Namespace},
    kernel::clock,
    model::{Change, World},
    pipeline::{Consumer, Update, Wants},
};

/// Minimum time between two updates of the host's state for scrapes.
const INTERVAL: Duration = Duration::from_secs(1);
/// Minimum time between two removals of ended namespaces from the kernel's counters, because a removal reads all
/// counters.
const TIDY_INTERVAL: Duration = Duration::from_millis(100);
/// Maximum number of remembered ids of destroyed namespaces. A namespace has up to two.
const DESTROYED: usize = 8_192;

/// The data about a namespace that is needed when it is gone.
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

/// The consumer that updates the metrics.
pub struct MetricsConsumer {
    shared: std::sync::Arc<Shared>,
    known: HashMap<NsInum, Known>,
    destroyed: Destroyed,
    ages: ZombieAges,
    changed: bool,
    published: Option<Instant>,
    tidied: Instant,
    /// Time of the last snapshot that the ledger has.
    as_of: BootNs,
}

/// Namespaces that were counted as destroyed, so that none is counted twice. If something still held such a namespace,
/// the next snapshot lists it again, and it is destroyed a second time.
#[derive(Debug, Default)]
struct Destroyed {
    set: HashSet<NamespaceId>,
    order: VecDeque<NamespaceId>,
}

impl Destroyed {
    /// Remembers a namespace by all its ids. Returns whether none of them was known before.
    fn remember(&mut self, ids: &[NamespaceId]) -> bool {
        let is_new = !ids.iter().any(|id| self.set.contains(id));
        for id in ids {
            if self.set.insert(*id) {
                self.order.push_back(*id);
            }
        }
        while self.order.len() > DESTROYED {
            self.order.pop_front().map(|oldest| self.set.remove(&oldest));
        }
        is_new
    }
}

/// The ids that distinguish a namespace from others with the same inode number: its id in the model, and its birth
/// time.
fn ids(inum: NsInum, id: Option<NamespaceId>, born: Option<BootNs>) -> Vec<NamespaceId> {
    let born = born.map(|born| NamespaceId::new(born.0, inum.0));
    id.into_iter().chain(born.filter(|born| id != Some(*born))).collect()
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
            tidied: Instant::now(),
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

    /// Counts a namespace as gone. `has_ended`: whether an event reports that.
    fn forget(&mut self, inum: NsInum, has_ended: bool, at: BootNs) {
        let Some(known) = self.known.remove(&inum) else { return };
        if let Some(id) = known.id {
            self.shared.ledger().close(id);
        }
        let is_first = self.destroyed.remember(&ids(inum, known.id, known.born));
        // A namespace that a snapshot found without a process may have been counted at its teardown.
        if is_first && (known.id.is_some() || has_ended || known.is_announced) {
            self.shared.tally().destroyed(known.born, at);
        }
    }

    /// Counts a namespace whose end an event reports, but which the model does not know. It began and ended during a
    /// snapshot, and the snapshot found a later one with the same inode number.
    fn forget_unknown(&mut self, ns: &Namespace, at: BootNs) {
        let id = ns.kernel_id.map(|id| NamespaceId::new(id, ns.inum.0));
        let ids = ids(ns.inum, id, ns.born_boot_ns);
        if !ids.is_empty() && self.destroyed.remember(&ids) {
            self.shared.tally().destroyed(ns.born_boot_ns, at);
        }
    }

    fn publish(&mut self, world: &World) {
        self.changed = false;
        self.published = Some(Instant::now());
        // On older kernels the init distinguishes namespaces. If a snapshot finds the init, no change of the namespace
        // reports that, so all namespaces are checked.
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
        let ended = match &event.body {
            Body::NamespaceDestroy { ns, .. } => Some(ns),
            Body::NamespaceTeardown { ns, .. } if !world.sees_destructions() => Some(ns),
            _ => None,
        };
        for change in changes {
            match change {
                Change::NamespaceRemoved(inum) => {
                    let has_ended = ended.is_some_and(|ns| ns.inum == *inum);
                    self.forget(*inum, has_ended, event.boot_ns);
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
        if let Some(ns) = ended
            && !changes.contains(&Change::NamespaceRemoved(ns.inum))
        {
            self.forget_unknown(ns, event.boot_ns);
        }
        let is_snapshot = matches!(event.body, Body::SnapshotProcess { .. });
        self.changed |= is_snapshot || !changes.is_empty();
        Wants::More
    }

    fn tick(&mut self, world: Option<&World>) -> Wants {
        if self.tidied.elapsed() >= TIDY_INTERVAL {
            self.tidied = Instant::now();
            self.shared.ledger().tidy();
        }
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
