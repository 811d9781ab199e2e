//! The container of an event: that of the namespace that it belongs to.

use std::sync::Arc;

use super::names_ahead::NamesAhead;
use crate::{
    container::ContainerTracker,
    event::{Body, Event, Process, container::Container, identity::NsInum},
    filter::inner_namespace,
    model::World,
};

/// Where containers are known from.
pub enum ContainerSource {
    /// They are not known: the numbers of processes are not those of this /proc.
    Unknown,
    /// They are looked up on this machine.
    Tracked(Box<ContainerTracker>),
    /// The events name them: those of a recording; with what later ones name, where that was read before.
    Recorded(NamesAhead),
}

impl ContainerSource {
    /// Learns from an event, before any event of the same moment is handed on: the one that creates a namespace has the
    /// container of its init, too.
    /// `with_members`: of a snapshot's processes those too that are no PID 1.
    pub(super) fn learn(&mut self, body: &Body, with_members: bool) {
        let Self::Tracked(tracker) = self else { return };
        match body {
            Body::NamespaceCreate { ns, .. } => tracker.begins(ns.inum),
            Body::NamespaceInit { ns, process } => tracker.track(ns.inum, process.key()),
            Body::ProcessExec { process, .. } if process.is_nested_init() => {
                tracker.track(process.ns, process.key());
            }
            Body::SnapshotProcess { process, .. } if process.is_nested_init() => {
                tracker.track_existing(process.ns, process.key());
            }
            // A new PID 1 is read at its own event.
            Body::ProcessFork { process, parent, .. } if process.ns != parent.ns && process.is_init() => {}
            Body::ProcessFork { process, parent, .. } if process.ns != parent.ns => {
                tracker.enters(process.key());
            }
            Body::ProcessFork { process, parent, .. } => tracker.on_fork(process.key(), parent.key()),
            Body::ProcessExec { process, .. } => tracker.runs_program(home(process), process.key()),
            Body::SnapshotProcess { process, .. } if with_members => {
                tracker.track_member(home(process), process.key(), process.ppid);
            }
            _ => {}
        }
    }

    /// Follows the streams of a recording.
    pub(super) fn follow(&mut self, body: &Body) {
        if let Self::Recorded(ahead) = self {
            ahead.follow(body);
        }
    }

    /// The container that the namespace of the event belongs to. The namespace is given it, where it has none, and the process
    /// its own, where that is another one.
    pub(super) fn name(&mut self, event: &mut Event, world: Option<&World>) -> Option<Arc<Container>> {
        let Event { body, boot_ns, .. } = event;
        match self {
            Self::Unknown => None,
            Self::Tracked(tracker) => {
                if let Body::Finding { finding, .. } = body {
                    let ns = finding.ns.as_mut()?;
                    // A finding can be about a container that shares the namespace, or about a namespace that is gone.
                    let is_certain = ns.container.as_ref().is_some_and(|known| !known.by_cgroup_alone);
                    if ns.level > 0
                        && !is_certain
                        && let Some(container) = tracker.of(ns.inum)
                    {
                        ns.container = Some(container);
                    }
                    return ns.container.clone();
                }
                if let Some(process) = body.process_mut()
                    && !process.is_init()
                {
                    process.container = tracker.own_of(process.key(), home(process));
                }
                let container = tracker.of(inner_namespace(body)?)?;
                if let Body::SnapshotNamespace { ns, .. } = body {
                    ns.container = Some(Arc::clone(&container));
                } else if let Some(ns) = body.namespace_mut() {
                    ns.container = Some(Arc::clone(&container));
                }
                Some(container)
            }
            Self::Recorded(ahead) => {
                if let Some(process) = body.process_mut()
                    && process.container.is_none()
                {
                    process.container = ahead.process(process.key());
                }
                let named = match body {
                    Body::Finding { finding, .. } => finding.ns.as_ref().and_then(|ns| ns.container.clone()),
                    _ => body.namespace().and_then(|ns| ns.container.clone()),
                };
                let inum = inner_namespace(body);
                named
                    .or_else(|| world?.namespace(inum?)?.namespace.container.clone())
                    .or_else(|| ahead.namespace(inum?, *boot_ns))
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

    /// Finds the inits in /proc: at the start, and after a loss. Where snapshots are taken their events name the inits.
    pub(super) fn find_inits(&mut self, at_the_start: bool) {
        if let Self::Tracked(tracker) = self {
            if at_the_start {
                tracker.read_all();
            } else {
                tracker.resync_if_due();
            }
        }
    }
}

/// The namespace of a process; `None` for the host's own.
fn home(process: &Process) -> Option<NsInum> {
    (process.pids.len() > 1).then_some(process.ns)
}
