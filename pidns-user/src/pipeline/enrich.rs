//! Adds the container of its namespace to an event.

use std::sync::Arc;

use super::names_ahead::NamesAhead;
use crate::{
    container::ContainerTracker,
    event::{
        Body, Event, Process,
        container::Container,
        identity::{BootNs, NsInum},
    },
    filter::inner_namespace,
    model::World,
};

/// The source of containers.
pub enum ContainerSource {
    /// Containers are unknown, because the PIDs are not those of this /proc.
    Unknown,
    /// Containers are looked up on this machine.
    Tracked(Box<ContainerTracker>),
    /// The events of a recording name containers. If it was read before, this also has names from later events.
    Recorded(NamesAhead),
}

impl ContainerSource {
    /// Learns from an event. It must see a whole batch of events before any of them is passed on, because the event
    /// that creates a namespace also gets the container of its init. `sparing`: snapshots come all the time, so at each
    /// only some of the processes that are not PID 1 are read.
    pub(super) fn learn(&mut self, event: &Event, sparing: bool) {
        let Self::Tracked(tracker) = self else { return };
        match &event.body {
            Body::NamespaceCreate { ns, .. } => tracker.on_create(ns.inum, event.boot_ns),
            Body::NamespaceInit { ns, process } => tracker.track(ns.inum, process.key()),
            Body::ProcessExec { process, .. } if process.is_nested_init() => {
                tracker.track(process.ns, process.key());
            }
            Body::SnapshotProcess { process, .. } if process.is_nested_init() => {
                tracker.track_existing(process.ns, process.key());
            }
            // A new PID 1 is read at its namespace.init event.
            Body::ProcessFork { process, parent, .. } if process.ns != parent.ns && process.is_init() => {}
            Body::ProcessFork { process, parent, .. } if process.ns != parent.ns => {
                tracker.on_enter(process.key());
            }
            Body::ProcessFork { process, parent, .. } => tracker.on_fork(process.key(), parent.key()),
            Body::ProcessExec { process, .. } => tracker.on_exec(home(process), process.key()),
            Body::StreamResync { .. } if sparing => tracker.begin_snapshot(),
            Body::SnapshotProcess { process, .. } if sparing => {
                tracker.track_member_sparingly(home(process), process.key(), process.ppid);
            }
            Body::SnapshotProcess { process, .. } => {
                tracker.track_member(home(process), process.key(), process.ppid);
            }
            _ => {}
        }
    }

    /// Completes the containers of a recorded event with what later events know about them.
    pub(super) fn complete(&mut self, event: &mut Event) {
        if let Self::Recorded(ahead) = self {
            ahead.complete(event);
        }
    }

    /// Returns the container of the event's namespace. Adds it to the namespace if that has none, and adds the
    /// process's own container if that differs.
    pub(super) fn name(&mut self, event: &mut Event, world: Option<&World>) -> Option<Arc<Container>> {
        let Event { body, boot_ns, .. } = event;
        match self {
            Self::Unknown => None,
            Self::Tracked(tracker) => {
                if let Body::Finding { finding, .. } = body {
                    let ns = finding.ns.as_mut()?;
                    // A finding can be about a container that shares a namespace, or about a namespace that is gone and
                    // whose number another one has.
                    let at = ns.born_boot_ns.unwrap_or(*boot_ns);
                    let is_certain = ns.container.as_ref().is_some_and(|known| !known.by_cgroup_alone);
                    if ns.level > 0
                        && !is_certain
                        && let Some(container) = tracker.container_of(ns.inum, at)
                    {
                        ns.container = Some(container);
                    }
                    return ns.container.clone();
                }
                if let Some(process) = body.process_mut()
                    && !process.is_init()
                {
                    process.container = tracker.own_container_of(process.key(), home(process), *boot_ns);
                }
                let container = tracker.container_of(inner_namespace(body)?, *boot_ns)?;
                if let Body::SnapshotNamespace { ns, .. } = body {
                    ns.container = Some(Arc::clone(&container));
                } else if let Some(ns) = body.namespace_mut() {
                    ns.container = Some(Arc::clone(&container));
                }
                Some(container)
            }
            Self::Recorded(ahead) => {
                if let Body::Finding { finding, .. } = body {
                    // Another namespace may have its number by now.
                    let ns = finding.ns.as_ref()?;
                    let state = world.and_then(|world| world.namespace(ns.inum)).filter(|state| state.is(ns));
                    let named = ns.container.clone().or_else(|| state?.namespace.container.clone());
                    return named.or_else(|| ahead.namespace(ns.inum, ns.born_boot_ns.unwrap_or(*boot_ns)));
                }
                let inum = inner_namespace(body);
                let named = body.namespace().and_then(|ns| ns.container.clone());
                named
                    .or_else(|| world?.namespace(inum?)?.namespace.container.clone())
                    .or_else(|| ahead.namespace(inum?, *boot_ns))
            }
        }
    }

    /// Forgets a namespace that ended at this time. Call it only if its container is not needed any more.
    pub(super) fn forget(&mut self, inum: NsInum, at: BootNs) {
        if let Self::Tracked(tracker) = self {
            tracker.forget(inum, at);
        }
    }

    /// Notes that events were lost, so that an init may have been missed.
    pub(super) fn mark_stale(&mut self) {
        if let Self::Tracked(tracker) = self {
            tracker.mark_stale();
        }
    }

    /// Finds inits in /proc: at the start, and after a loss. It is for streams without snapshots, whose events would
    /// name the inits.
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
