//! The container of an event: that of the namespace that it belongs to.

use std::sync::Arc;

use crate::{
    container::ContainerTracker,
    event::{Body, Process, container::Container, identity::NsInum},
    filter::inner_namespace,
    model::World,
};

/// Where containers are known from.
pub enum ContainerSource {
    /// They are not known: the numbers of processes are not those of this /proc.
    Unknown,
    /// They are looked up on this machine.
    Tracked(Box<ContainerTracker>),
    /// The events name them: those of a recording.
    Recorded,
}

impl ContainerSource {
    /// Learns from an event, before any event of the same moment is handed on: the one that creates a namespace has the
    /// container of its init, too.
    pub(super) fn learn(&mut self, body: &Body) {
        let Self::Tracked(tracker) = self else { return };
        let is_init = |process: &Process| process.pids.len() > 1 && process.pids.last() == Some(&1);
        match body {
            Body::NamespaceCreate { ns, .. } => tracker.begins(ns.inum),
            Body::NamespaceInit { ns, process } => tracker.look_at(ns.inum, process.key()),
            Body::ProcessExec { process, .. } if is_init(process) => {
                tracker.look_at(process.ns, process.key());
            }
            Body::SnapshotProcess { process, .. } if is_init(process) => {
                tracker.look_at_existing(process.ns, process.key());
            }
            _ => {}
        }
    }

    /// The container that the event belongs to. Its namespace is given it, where it has none.
    pub(super) fn name(&mut self, body: &mut Body, world: Option<&World>) -> Option<Arc<Container>> {
        match self {
            Self::Unknown => None,
            Self::Tracked(tracker) => {
                let container = tracker.of(inner_namespace(body)?)?;
                if let Body::SnapshotNamespace { ns, .. } = body {
                    ns.container = Some(Arc::clone(&container));
                } else if let Some(ns) = body.namespace_mut() {
                    ns.container = Some(Arc::clone(&container));
                }
                Some(container)
            }
            Self::Recorded => {
                let named = body.namespace().and_then(|ns| ns.container.clone());
                named.or_else(|| world?.namespace(inner_namespace(body)?)?.namespace.container.clone())
            }
        }
    }

    /// A namespace is gone, and nothing more will be asked of it.
    pub(super) fn forget(&mut self, inum: NsInum) {
        if let Self::Tracked(tracker) = self {
            tracker.forget(inum);
        }
    }

    /// Events were lost: the init of a namespace may have been missed.
    pub(super) fn mark_stale(&mut self) {
        if let Self::Tracked(tracker) = self {
            tracker.mark_stale();
        }
    }

    /// Looks for the inits in /proc: at the start, and after a loss. Where snapshots are taken their events name the inits.
    pub(super) fn look_for_inits(&mut self, at_the_start: bool) {
        if let Self::Tracked(tracker) = self {
            if at_the_start {
                tracker.look_around();
            } else {
                tracker.look_again();
            }
        }
    }
}
