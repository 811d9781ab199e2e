//! Finds containers that a recording names only in later events. When a container starts, its runtime's files do not
//! exist yet, so its first events have no name.

use std::{collections::HashMap, sync::Arc};

use crate::event::{
    Body, Event,
    container::Container,
    identity::{BootNs, NsInum, ProcessKey},
};

/// Limit for namespaces, and for processes, whose containers are remembered. Later ones are not.
const MAX_NAMES: usize = 1_000_000;

/// A namespace that had its number from this time on.
#[derive(Debug)]
struct NumberedNamespace {
    from: BootNs,
    container: Option<Arc<Container>>,
}

/// Container names in a recording, collected by reading it once beforehand.
#[derive(Debug, Default)]
pub struct NamesAhead {
    /// Namespaces by stream in the file and inode number.
    lives: HashMap<(u64, NsInum), Vec<NumberedNamespace>>,
    processes: HashMap<(u64, ProcessKey), Option<Arc<Container>>>,
    /// Number of streams that have begun.
    stream: u64,
}

impl NamesAhead {
    /// Collects the names in the events of a recording.
    pub fn of<'a>(events: impl IntoIterator<Item = &'a Event>) -> Self {
        let mut names = Self::default();
        events.into_iter().for_each(|event| names.learn(event));
        names.rewound()
    }

    /// Collects the names in the next event.
    pub fn learn(&mut self, event: &Event) {
        self.stream += u64::from(matches!(event.body, Body::StreamStart { .. }));
        let named = match &event.body {
            Body::NamespaceCreate { ns, .. } => {
                let life = NumberedNamespace { from: event.boot_ns, container: ns.container.clone() };
                if self.lives.len() < MAX_NAMES {
                    self.lives.entry((self.stream, ns.inum)).or_default().push(life);
                }
                None
            }
            Body::SnapshotNamespace { ns, .. } => Some((ns.inum, &ns.container)),
            body => body.namespace().map(|ns| (ns.inum, &ns.container)),
        };
        if let Some((inum, Some(container))) = named
            && self.lives.len() < MAX_NAMES
        {
            let lives = self.lives.entry((self.stream, inum)).or_default();
            if lives.is_empty() {
                // The namespace is older than the recording.
                lives.push(NumberedNamespace { from: BootNs(0), container: None });
            }
            if let Some(life) = lives.last_mut() {
                fill(&mut life.container, container);
            }
        }
        if let Some(process) = event.body.process()
            && let Some(container) = &process.container
            && self.processes.len() < MAX_NAMES
        {
            fill(self.processes.entry((self.stream, process.key())).or_default(), container);
        }
    }

    /// Returns to the beginning, for use while the recording is read again.
    pub fn rewound(self) -> Self {
        Self { stream: 0, ..self }
    }

    /// Follows the recording while it is read again, and completes the containers of the event.
    pub(super) fn complete(&mut self, event: &mut Event) {
        let Event { body, boot_ns, .. } = event;
        self.stream += u64::from(matches!(body, Body::StreamStart { .. }));
        if self.lives.is_empty() && self.processes.is_empty() {
            return;
        }
        if let Some(process) = body.process_mut() {
            let ahead = self.process(process.key());
            complete(&mut process.container, ahead);
        }
        let (inum, at, container) = match body {
            Body::Finding { finding, .. } => {
                let Some(ns) = &mut finding.ns else { return };
                (ns.inum, ns.born_boot_ns.unwrap_or(*boot_ns), &mut ns.container)
            }
            Body::SnapshotNamespace { ns, .. } => (ns.inum, *boot_ns, &mut ns.container),
            body => {
                let Some(ns) = body.namespace_mut() else { return };
                (ns.inum, *boot_ns, &mut ns.container)
            }
        };
        complete(container, self.namespace(inum, at));
    }

    /// The container of the namespace that had this number at this time.
    pub(super) fn namespace(&self, inum: NsInum, at: BootNs) -> Option<Arc<Container>> {
        let lives = self.lives.get(&(self.stream, inum))?;
        lives.iter().rev().find(|life| life.from <= at)?.container.clone()
    }

    /// The container of a process, if it differs from that of its namespace's PID 1.
    pub(super) fn process(&self, process: ProcessKey) -> Option<Arc<Container>> {
        self.processes.get(&(self.stream, process)).cloned().flatten()
    }
}

/// Notes the container that an event names. A later event can know less about it, for example a finding that is over.
fn fill(known: &mut Option<Arc<Container>>, container: &Arc<Container>) {
    if !known.as_ref().is_some_and(|known| known.completes(container)) {
        *known = Some(Arc::clone(container));
    }
}

/// Adds the container of later events if this event has none, or knows less about the same one.
fn complete(own: &mut Option<Arc<Container>>, ahead: Option<Arc<Container>>) {
    if let Some(ahead) = ahead
        && own.as_ref().is_none_or(|own| ahead.completes(own))
    {
        *own = Some(ahead);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Namespace, identity::HostPid},
        text::Name,
    };

    const INUM: NsInum = NsInum(4026532000);

    fn event(at: u64, container: Option<&str>, creates: bool) -> Event {
        let container = container
            .map(|name| Arc::new(Container { name: Some(Name::from(name)), ..Container::default() }));
        let ns = Namespace {
            inum: INUM,
            level: 1,
            parent: Some(NsInum(4026531836)),
            born_boot_ns: None,
            kernel_id: None,
            user_ns: 1,
            owner_uid: 0,
            container,
        };
        let creator = crate::event::Process {
            pid: HostPid(1),
            pids: vec![1],
            comm: Name::from("sh"),
            start_boot_ns: BootNs(1),
            ppid: None,
            uid: 0,
            ns: NsInum(4026531836),
            container: None,
        };
        Event {
            seq: 1,
            time: jiff::Timestamp::UNIX_EPOCH,
            boot_ns: BootNs(at),
            exact: true,
            body: if creates {
                Body::NamespaceCreate { ns, via: None, creator }
            } else {
                Body::NamespaceTeardown { ns, killed: 0, nested: Vec::new(), duration_ns: 0 }
            },
        }
    }

    #[test]
    fn the_first_events_of_a_namespace_get_the_name_from_later_ones() {
        let events = [
            event(5, Some("before"), false),
            event(10, None, true),
            event(20, Some("web"), false),
            event(30, None, true),
            event(40, Some("next"), false),
        ];
        let names = NamesAhead::of(&events);
        let name = |at| names.namespace(INUM, BootNs(at)).and_then(|container| container.name.clone());
        for (at, expected) in [(1, "before"), (10, "web"), (29, "web"), (30, "next"), (99, "next")] {
            assert_eq!(name(at), Some(Name::from(expected)), "at {at}");
        }
        assert_eq!(names.namespace(NsInum(1), BootNs(10)), None);
    }
}
