//! Publishes the host's state for readers that run at their own pace: scrapes and web pages.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{Consumer, Update, Wants};
use crate::{
    event::identity::BootNs,
    event::{Body, snapshot::Snapshot},
    model::{NamespaceState, World},
};

/// The host's state at one moment.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// The time of the last event.
    pub boot_ns: BootNs,
    /// The existing namespaces with their stages, by inode number.
    pub namespaces: Vec<NamespaceState>,
    /// The processes, and the namespaces again, in the form of a snapshot.
    pub snapshot: Option<Arc<Snapshot>>,
    /// When the processes were read, if no events report them. `snapshot` lacks processes that started since, and still
    /// lists those that have gone. `None` if events report processes.
    pub processes_as_of_boot_ns: Option<BootNs>,
    /// Number of updates that led to this state.
    pub updates: u64,
}

/// Publishes the host's state, at most once per interval and only after a change.
pub struct Publisher {
    every: Duration,
    published: Option<Instant>,
    updates: u64,
    changed: bool,
    out: watch::Sender<Arc<Published>>,
}

impl Publisher {
    /// Creates a publisher with this minimum interval, and a receiver.
    pub fn new(every: Duration) -> (Self, watch::Receiver<Arc<Published>>) {
        let (out, readers) = watch::channel(Arc::default());
        let publisher = Self { every, published: None, updates: 0, changed: false, out };
        (publisher, readers)
    }

    fn publish(&mut self, world: &World) {
        self.changed = false;
        self.published = Some(Instant::now());
        let published = Published {
            boot_ns: world.boot_ns(),
            namespaces: world.namespaces().cloned().collect(),
            snapshot: Some(Arc::new(world.snapshot())),
            processes_as_of_boot_ns: world.processes_as_of(),
            updates: self.updates,
        };
        self.out.send_replace(Arc::new(published));
    }
}

impl Consumer for Publisher {
    fn update(&mut self, update: &Update<'_>) -> Wants {
        self.updates += 1;
        // A snapshot without changes still makes the state more recent.
        let is_snapshot = matches!(update.event.body, Body::SnapshotProcess { .. });
        self.changed |= is_snapshot || !update.changes.is_empty();
        Wants::More
    }

    fn tick(&mut self, world: Option<&World>) -> Wants {
        let is_due = self.published.is_none_or(|published| published.elapsed() >= self.every);
        if let Some(world) = world
            && self.changed
            && is_due
        {
            self.publish(world);
        }
        Wants::More
    }
}
