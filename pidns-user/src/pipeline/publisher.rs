//! Hands out the state of the host, for those that read it in their own time: a scrape, a page, a screen.

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

/// The state of the host at one moment.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// The time of the last event.
    pub boot_ns: BootNs,
    /// The namespaces that exist, with how far each has come, by inode number.
    pub namespaces: Vec<NamespaceState>,
    /// The processes, and the namespaces again as a snapshot has them.
    pub snapshot: Option<Arc<Snapshot>>,
    /// When the processes were seen, where no event is about them. Members that came or went since are not in `snapshot`.
    /// `None` where events report them.
    pub processes_as_of_boot_ns: Option<BootNs>,
    /// Updates that led to this state.
    pub updates: u64,
}

/// Publishes the state of the host at most this often, and only after something has changed.
pub struct Publisher {
    every: Duration,
    published: Option<Instant>,
    updates: u64,
    changed: bool,
    out: watch::Sender<Arc<Published>>,
}

impl Publisher {
    /// Publishes at most this often; and who reads it.
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
        // A snapshot that confirms everything makes the state younger.
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
