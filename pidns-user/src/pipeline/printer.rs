//! What becomes of what happens: its place among the events, its container, what it changes, and whether it is shown.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

use crate::{
    commands::failure::Failure,
    container::{self, ContainerTracker},
    event::container::Container,
    event::{Body, Event, Process},
    filter::{Filter, inner_namespace},
    kernel::clock,
    output::View,
    output::sink::{Sink, Written},
    pipeline::resync::Existing,
};

/// Tells events, in order.
pub(crate) struct Teller {
    pub(crate) filter: Filter,
    pub(crate) view: Box<dyn View + Send>,
    pub(crate) sink: Sink,
    /// What exists by the events so far, where that is followed: everything comes from the kernel then.
    pub(crate) existing: Option<Existing>,
    /// None where the numbers of processes are not those of this /proc.
    pub(crate) containers: Option<ContainerTracker>,
    /// How many were shown, by name.
    pub(crate) events: BTreeMap<&'static str, u64>,
    /// Whether the output's reader has gone.
    pub(crate) closed: bool,
    /// Whether nothing more is to be told.
    pub(crate) over: bool,
    pub(crate) failure: Option<Failure>,
    /// Zombies that a look has found since somebody took them from here.
    pub(crate) found_zombies: Vec<Process>,
    seq: u64,
    last_boot_ns: u64,
    pub(crate) wall_offset_ns: i128,
}

impl Teller {
    pub(crate) fn new(
        filter: Filter,
        view: Box<dyn View + Send>,
        sink: Sink,
        existing: Option<Existing>,
        containers: Option<ContainerTracker>,
        began_boot_ns: u64,
    ) -> Self {
        Self {
            filter,
            view,
            sink,
            existing,
            containers,
            events: BTreeMap::new(),
            closed: false,
            over: false,
            failure: None,
            found_zombies: Vec::new(),
            seq: 0,
            last_boot_ns: began_boot_ns,
            wall_offset_ns: clock::wall_offset_ns(),
        }
    }

    /// Writes what stands before the first event.
    pub(crate) fn begin(&mut self) {
        if let Err(error) = self.view.begin(self.sink.buffer()) {
            self.fail(Failure::Output { error, unwritten: 0 });
        }
    }

    /// The wall clock may have been set.
    pub(crate) fn read_wall_clock(&mut self) {
        self.wall_offset_ns = clock::wall_offset_ns();
    }

    /// Takes note of namespaces and their PID 1s, before what names them is told.
    pub(crate) fn take_note(&mut self, body: &Body) {
        let Some(containers) = &mut self.containers else { return };
        let identity =
            |process: &Process| container::Process { pid: process.pid, start_boot_ns: process.start_boot_ns };
        let is_init = |process: &Process| process.pids.len() > 1 && process.pids.last() == Some(&1);
        match body {
            Body::NamespaceCreate { ns, .. } => containers.begins(ns.inum),
            Body::NamespaceInit { ns, process } => containers.look_at(ns.inum, identity(process)),
            Body::ProcessExec { process, .. } | Body::SnapshotProcess { process, .. } if is_init(process) => {
                containers.look_at(process.ns, identity(process));
            }
            _ => {}
        }
    }

    /// Tells an event of the time of the one before it.
    pub(crate) fn tell_now(&mut self, body: Body) {
        self.tell(self.last_boot_ns, true, body);
    }

    /// Tells an event, unless it was not asked for; says whether it was.
    pub(crate) fn tell(&mut self, boot_ns: u64, exact: bool, mut body: Body) -> bool {
        if self.closed {
            return false;
        }
        let container = self.name(&mut body);
        // A record that was held up between its time and its place for longer than the others were made to wait for
        // it comes too late to stand where it belongs; events are in order all the same.
        let boot_ns = boot_ns.max(self.last_boot_ns);
        // What is not shown has its time too: what is told next came after it.
        self.last_boot_ns = boot_ns;
        let time = i128::from(boot_ns) + self.wall_offset_ns;
        let event = Event {
            seq: self.seq + 1,
            time: Timestamp::from_nanosecond(time).unwrap_or(Timestamp::UNIX_EPOCH),
            boot_ns,
            exact,
            body,
        };
        if !self.follow(&event, container.as_deref()) {
            return false;
        }
        if let Some(failure) = &mut self.failure {
            // What is lost with it is counted, but for what frames a stream.
            if let Failure::Output { unwritten, .. } = failure
                && !event.body.name().starts_with("stream.")
            {
                *unwritten += 1;
            }
            return false;
        }
        self.seq += 1;
        if !matches!(event.body, Body::StreamEnd { .. }) {
            *self.events.entry(event.body.name()).or_default() += 1;
        }
        let before = self.sink.buffer().len();
        match self.view.event(&event, container.as_deref(), self.sink.buffer()) {
            // A table has no line for stream.start and stream.end.
            Ok(()) if self.sink.buffer().len() == before => {}
            Ok(()) => {
                if self.sink.end_event() {
                    self.flush();
                }
            }
            Err(error) => self.fail(Failure::Output { error, unwritten: 1 }),
        }
        true
    }

    /// Looks at all that exists: to tell it, or to know the containers.
    pub(crate) fn look_around(&mut self) {
        match &mut self.existing {
            Some(existing) => {
                let told = existing.tell();
                self.tell_all(told);
            }
            None => {
                if let Some(containers) = &mut self.containers {
                    containers.look_around();
                }
            }
        }
    }

    /// Events were lost.
    pub(crate) fn doubt(&mut self) {
        if let Some(existing) = &mut self.existing {
            existing.doubt();
        } else if let Some(containers) = &mut self.containers {
            containers.doubt();
        }
    }

    /// Looks again where it is time to: after a loss, or to compare.
    pub(crate) fn look_again(&mut self, at_the_end: bool) {
        if let Some(existing) = &mut self.existing {
            let told = existing.look_again(at_the_end);
            self.tell_all(told);
        } else if let Some(containers) = &mut self.containers {
            containers.look_again();
        }
    }

    fn tell_all(&mut self, bodies: Result<Vec<Body>, Failure>) {
        match bodies {
            Ok(bodies) => {
                for body in &bodies {
                    self.take_note(body);
                    if let Body::SnapshotProcess {
                        process,
                        state: Some('Z'),
                        threads: None | Some(0..=1),
                        ..
                    } = body
                    {
                        self.found_zombies.push(process.clone());
                    }
                }
                for body in bodies {
                    self.tell_now(body);
                }
            }
            Err(failure) => self.fail(failure),
        }
    }

    /// Writes out what was told.
    pub(crate) fn flush(&mut self) {
        let written = self.sink.flush();
        self.judge(written);
    }

    /// Writes out what was told, and the end of the file.
    pub(crate) fn finish(&mut self) {
        let written = self.sink.finish();
        self.judge(written);
    }

    /// Ends it for this reason, if there is none yet.
    pub(crate) fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
        self.over = true;
    }

    /// The container that the event belongs to, which its namespace is given.
    fn name(&mut self, body: &mut Body) -> Option<Arc<Container>> {
        let container = self.containers.as_mut()?.of(inner_namespace(body)?)?;
        if let Body::SnapshotNamespace { ns, .. } = body {
            ns.container = Some(Arc::clone(&container));
        } else if let Some(ns) = body.namespace_mut() {
            ns.container = Some(Arc::clone(&container));
        }
        Some(container)
    }

    /// Changes what exists by the event; says whether it is to be shown.
    fn follow(&mut self, event: &Event, container: Option<&Container>) -> bool {
        let Some(existing) = &mut self.existing else { return self.filter.matches(&event.body, container) };
        // Of what ends, what was before it tells where it was; of what begins, what is after it.
        let world = existing.world();
        let was_wanted = self.filter.matches_all(&event.body, container, world);
        world.apply(event);
        if let Body::StreamStart { hooks, .. } = &event.body {
            // Whatever of it is shown.
            world.follow_everything(hooks);
        }
        was_wanted || self.filter.matches_all(&event.body, container, world)
    }

    fn judge(&mut self, written: Written) {
        match written {
            Written::All => {}
            Written::Closed => {
                self.closed = true;
                self.over = true;
            }
            Written::Failed { error, unwritten } => self.fail(Failure::Output { error, unwritten }),
        }
    }
}
