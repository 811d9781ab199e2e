//! The containers that a recording names later: at a container's start its runtime's files are not there yet, so that its first
//! events are without.

use std::{collections::HashMap, sync::Arc};

use crate::event::{
    Body, Event,
    container::Container,
    identity::{BootNs, NsInum, ProcessKey},
};

/// Most namespaces, and most processes, whose containers are remembered: of more the later ones are not.
const MOST: usize = 1_000_000;

/// A namespace that had its number from some time on.
#[derive(Debug)]
struct Life {
    from: BootNs,
    container: Option<Arc<Container>>,
}

/// What a recording names, by a first reading of it.
#[derive(Debug, Default)]
pub struct NamesAhead {
    /// Of each stream in the file, the namespaces by their number.
    lives: HashMap<(u64, NsInum), Vec<Life>>,
    processes: HashMap<(u64, ProcessKey), Arc<Container>>,
    /// How many streams have begun.
    stream: u64,
}

impl NamesAhead {
    /// Reads them from the events of a recording.
    pub fn of<'a>(events: impl IntoIterator<Item = &'a Event>) -> Self {
        let mut names = Self::default();
        events.into_iter().for_each(|event| names.learn(event));
        names.rewound()
    }

    /// Learns from the next event.
    pub fn learn(&mut self, event: &Event) {
        self.follow(&event.body);
        let named = match &event.body {
            Body::NamespaceCreate { ns, .. } => {
                let life = Life { from: event.boot_ns, container: ns.container.clone() };
                if self.lives.len() < MOST {
                    self.lives.entry((self.stream, ns.inum)).or_default().push(life);
                }
                None
            }
            Body::SnapshotNamespace { ns, .. } => Some((ns.inum, &ns.container)),
            body => body.namespace().map(|ns| (ns.inum, &ns.container)),
        };
        if let Some((inum, Some(container))) = named
            && self.lives.len() < MOST
        {
            let lives = self.lives.entry((self.stream, inum)).or_default();
            if lives.is_empty() {
                // It was there before.
                lives.push(Life { from: BootNs(0), container: None });
            }
            if let Some(life) = lives.last_mut() {
                life.container = Some(Arc::clone(container));
            }
        }
        if let Some(process) = event.body.process()
            && let Some(container) = &process.container
            && self.processes.len() < MOST
        {
            self.processes.insert((self.stream, process.key()), Arc::clone(container));
        }
    }

    /// At the beginning again, to be asked while the recording is read another time.
    pub fn rewound(self) -> Self {
        Self { stream: 0, ..self }
    }

    /// Follows the recording.
    pub(super) fn follow(&mut self, body: &Body) {
        self.stream += u64::from(matches!(body, Body::StreamStart { .. }));
    }

    /// The container of the namespace that has this number at this time.
    pub(super) fn namespace(&self, inum: NsInum, at: BootNs) -> Option<Arc<Container>> {
        let lives = self.lives.get(&(self.stream, inum))?;
        lives.iter().rev().find(|life| life.from <= at)?.container.clone()
    }

    /// What a process runs in, where that is not what its namespace's PID 1 runs in.
    pub(super) fn process(&self, process: ProcessKey) -> Option<Arc<Container>> {
        self.processes.get(&(self.stream, process)).cloned()
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
    fn the_first_events_of_a_namespace_get_the_name_that_later_ones_have() {
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
