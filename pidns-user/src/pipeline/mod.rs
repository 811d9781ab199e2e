//! Drives a source of events: finds containers, updates the model, repairs it with snapshots, and feeds the consumers.
//! The live stream, a recording and a test's list all run through here.

pub mod consumer;
pub mod enrich;
pub mod follow;
pub mod names_ahead;
pub mod publisher;
pub mod resync;
pub mod snapshot_events;
pub mod threaded_consumer;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

pub use self::{
    consumer::{Consumer, ConsumerError, Update, Wants},
    enrich::ContainerSource,
    follow::Follow,
    names_ahead::NamesAhead,
    publisher::{Published, Publisher},
    resync::Resync,
    threaded_consumer::ThreadedConsumer,
};
use crate::{
    event::{Body, Event, Process, identity::BootNs},
    model::{Change, World},
    source::{Progress, Source, SourceError, observer::SnapshotError},
};

/// Why a pipeline ended before its source did.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// No snapshot can be taken.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// The outcome of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// Events lost, by stage.
    pub lost: BTreeMap<String, u64>,
    /// Duration of the run.
    pub duration: Duration,
    /// Whether it ended before the first snapshot was ready, so that consumers did not get one.
    pub without_snapshot: bool,
    /// Whether it ended before a snapshot repaired a loss of events. Then the model may be wrong.
    pub without_repair: bool,
    /// The error that ended it before its source ended.
    pub error: Option<PipelineError>,
    /// Errors of consumers, in the order in which the consumers were given.
    pub failures: Vec<ConsumerError>,
}

/// A source, and the steps that process its events.
pub struct Pipeline<S> {
    source: S,
    steps: EventSteps,
    resync: Option<Resync>,
}

/// The steps that every event goes through.
struct EventSteps {
    containers: ContainerSource,
    world: Option<World>,
    follow: Follow,
    /// Whether the source is the running kernel. It sends only the events that `follow` needs.
    is_live: bool,
    /// Whether events were lost since this was last checked.
    lost: bool,
    lost_by_stage: BTreeMap<String, u64>,
    /// Zombies that snapshots found and the source does not know yet.
    found_zombies: Vec<Process>,
    has_begun: bool,
}

/// The consumers of a run, and the events that each still wants.
struct Consumers<'a, 'b> {
    all: &'a mut [&'b mut dyn Consumer],
    wants: Vec<Wants>,
    /// Set when the end is requested.
    stop: &'a AtomicBool,
    /// Whether the source has ended. The last events then go to all consumers, even those that want no more.
    at_the_end: bool,
}

impl<S: Source> Pipeline<S> {
    /// Creates a pipeline. [`Self::run`] runs it.
    pub fn new(source: S, follow: Follow, containers: ContainerSource) -> Self {
        let steps = EventSteps {
            is_live: source.is_live(),
            containers,
            world: follow.has_model().then(World::default),
            follow,
            lost: false,
            lost_by_stage: BTreeMap::new(),
            found_zombies: Vec::new(),
            has_begun: false,
        };
        Self { source, steps, resync: None }
    }

    /// Adds snapshots, which seed the model and repair it after a loss.
    pub fn with_snapshots(mut self, resync: Resync) -> Self {
        self.resync = Some(resync);
        self
    }

    /// Replaces the model, for example by one that remembers more objects that are gone.
    pub fn with_model(mut self, world: World) -> Self {
        self.steps.world = Some(world);
        self
    }

    /// Runs until the source ends, `stop` is set, or no consumer wants more. Without consumers, it runs until the source
    /// ends or `stop` is set. Returns the source and the model.
    pub fn run(
        mut self,
        consumers: &mut [&mut dyn Consumer],
        stop: &AtomicBool,
    ) -> (Report, S, Option<World>) {
        let began = Instant::now();
        let wants = vec![Wants::More; consumers.len()];
        let mut consumers = Consumers { all: consumers, wants, stop, at_the_end: false };
        consumers.each(|consumer| consumer.begin());
        let mut error = self.stream(&mut consumers).err();
        if let Err(another) = self.drain(&mut consumers) {
            error.get_or_insert(another);
        }
        consumers.at_the_end = true;
        if let Err(another) = self.conclude(&mut consumers) {
            error.get_or_insert(another);
        }
        let without_snapshot = self.resync.as_ref().is_some_and(Resync::is_first_missing);
        let without_repair = self.resync.as_ref().is_some_and(Resync::is_repair_missing);
        let failures = consumers.all.iter_mut().filter_map(|consumer| consumer.finish().err());
        let report = Report {
            failures: failures.collect(),
            lost: self.steps.lost_by_stage,
            duration: began.elapsed(),
            without_snapshot,
            without_repair,
            error,
        };
        (report, self.source, self.steps.world)
    }

    /// Runs until the source ends, `stop` is set, or no consumer wants more.
    fn stream(&mut self, consumers: &mut Consumers<'_, '_>) -> Result<(), PipelineError> {
        while !consumers.stop.load(Ordering::Acquire) && !consumers.are_done() {
            let events_wait = self.resync.as_ref().is_some_and(Resync::holds_events);
            let progress = if events_wait {
                self.source.hold(true)?;
                Progress::Idle
            } else {
                let steps = &mut self.steps;
                match self.source.read(&mut |events| steps.events(events, consumers)) {
                    // Damage after the last wanted event does not matter.
                    Err(_) if consumers.are_done() => break,
                    read => read?,
                }
            };
            self.update_from_snapshots(consumers, progress != Progress::More)?;
            // While events wait for a snapshot, consumers add no events of their own: those would come before the
            // snapshot.
            if !self.resync.as_ref().is_some_and(Resync::holds_events) {
                consumers.tick(self.steps.world.as_ref());
                for (boot_ns, body) in consumers.own_events(self.steps.world.as_ref(), self.source.now()) {
                    let mut event = self.source.event_at(boot_ns, body);
                    self.steps.event(&mut event, false, consumers);
                }
                if let Some(resync) = &mut self.resync {
                    resync.hasten(consumers.all.iter().any(|consumer| consumer.needs_snapshot()));
                }
            }
            if progress == Progress::End {
                break;
            }
        }
        Ok(())
    }

    /// Reads the events that remain after stopping the source.
    fn drain(&mut self, consumers: &mut Consumers<'_, '_>) -> Result<(), PipelineError> {
        self.source.stop();
        // If events wait for a snapshot, it comes first. If it takes too long, it is given up.
        let snapshot = self.last_snapshot(false, consumers);
        let steps = &mut self.steps;
        while self.source.read(&mut |events| steps.events(events, consumers))? != Progress::End {}
        snapshot
    }

    /// Repairs the model if events were lost, then reports the end of the stream.
    fn conclude(&mut self, consumers: &mut Consumers<'_, '_>) -> Result<(), PipelineError> {
        let repaired = self.last_snapshot(true, consumers);
        if let Some(mut end) = self.source.end() {
            if let Body::StreamEnd { model, lost, .. } = &mut end.body {
                self.steps.lost_by_stage = lost.iter().map(|(stage, n)| (stage.to_string(), *n)).collect();
                if let (Some(resync), Some(world)) = (&self.resync, &mut self.steps.world) {
                    *model = Some(resync.count(world));
                }
            }
            self.steps.event(&mut end, false, consumers);
        }
        repaired
    }

    /// Takes snapshots when they are due, and applies those that are ready. Without snapshots, reads /proc after a loss.
    /// `is_caught_up`: the source has nothing more for now.
    fn update_from_snapshots(
        &mut self,
        consumers: &mut Consumers<'_, '_>,
        is_caught_up: bool,
    ) -> Result<(), PipelineError> {
        let (Some(resync), Some(world)) = (&mut self.resync, &self.steps.world) else {
            // A lost event may have reported a new PID 1, and no snapshot will name it: find it in /proc.
            if std::mem::take(&mut self.steps.lost) {
                self.steps.containers.mark_stale();
            }
            if is_caught_up && self.steps.has_begun {
                self.steps.containers.find_inits(false);
            }
            return Ok(());
        };
        if std::mem::take(&mut self.steps.lost) {
            resync.mark_stale();
        }
        if !self.steps.has_begun {
            return Ok(());
        }
        let source = &mut self.source;
        let bodies = resync.step(world, is_caught_up, &mut hold_regularly(source, consumers.stop));
        self.apply_snapshot(bodies, consumers)
    }

    /// Waits a short while for the snapshot that events wait for. With `repairs`, also takes one if events were lost.
    fn last_snapshot(
        &mut self,
        repairs: bool,
        consumers: &mut Consumers<'_, '_>,
    ) -> Result<(), PipelineError> {
        let (Some(resync), Some(world)) = (&mut self.resync, &self.steps.world) else { return Ok(()) };
        if std::mem::take(&mut self.steps.lost) {
            resync.mark_stale();
        }
        let source = &mut self.source;
        let bodies = resync.last_step(world, repairs, &mut hold_regularly(source, consumers.stop));
        self.apply_snapshot(bodies, consumers)
    }

    /// Passes the notices and events of a snapshot on.
    fn apply_snapshot(
        &mut self,
        bodies: Result<Vec<Body>, SnapshotError>,
        consumers: &mut Consumers<'_, '_>,
    ) -> Result<(), PipelineError> {
        for notice in self.resync.iter_mut().flat_map(Resync::take_notices) {
            consumers.each(|consumer| consumer.notice(&notice));
        }
        let bodies = bodies?;
        if bodies.is_empty() {
            return Ok(());
        }
        if let (Some(world), Some(resync)) = (&mut self.steps.world, &self.resync) {
            world.processes_are_as_of(resync.snapshot_boot_ns());
            world.set_snapshots_have_holders(resync.has_holders());
        }
        self.emit(bodies, consumers);
        for process in self.steps.found_zombies.drain(..) {
            self.source.found_zombie(&process);
        }
        Ok(())
    }

    /// Sends the pipeline's own events through the same steps as the source's. After the last event of a complete
    /// snapshot, objects that it did not list are gone.
    fn emit(&mut self, bodies: Vec<Body>, consumers: &mut Consumers<'_, '_>) {
        let mut events: Vec<Event> =
            bodies.into_iter().map(|body| self.source.event_at(BootNs::default(), body)).collect();
        // Reading a container takes several file reads, and there can be thousands of processes. The agent only
        // follows namespaces, and takes snapshots all the time. So only some of the processes are read at each
        // snapshot (`sparing`).
        let sparing = matches!(self.steps.follow, Follow::Namespaces { .. });
        let mut between = hold_regularly(&mut self.source, consumers.stop);
        for event in &events {
            self.steps.containers.learn(event, sparing);
            between();
        }
        let count = events.len();
        for (number, event) in events.iter_mut().enumerate() {
            self.steps.event(event, number + 1 == count, consumers);
            between();
        }
    }
}

/// Makes a function to call repeatedly during long work. It keeps the ring from overflowing, and stops the source if
/// the end is requested.
fn hold_regularly<'a>(source: &'a mut impl Source, stop: &'a AtomicBool) -> impl FnMut() + 'a {
    const EVERY: Duration = Duration::from_millis(5);
    let mut last = Instant::now();
    move || {
        if last.elapsed() >= EVERY {
            last = Instant::now();
            if stop.load(Ordering::Acquire) {
                source.stop();
            }
            // If the source cannot be read, its next read reports that.
            let _ = source.hold(false);
        }
    }
}

impl EventSteps {
    /// Handles events that the source passed on together.
    fn events(&mut self, events: &mut [Event], consumers: &mut Consumers<'_, '_>) {
        for event in &*events {
            self.containers.learn(event, false);
        }
        for event in events {
            self.event(event, false, consumers);
        }
    }

    /// Handles one event. `ends_snapshot`: this is the last event of a snapshot.
    fn event(&mut self, event: &mut Event, ends_snapshot: bool, consumers: &mut Consumers<'_, '_>) {
        self.containers.complete(event);
        match &event.body {
            Body::StreamStart { .. } => self.begin(),
            Body::StreamLost { .. } => self.lost = true,
            // A zombie with more than one thread is left out: its other threads may still run.
            Body::SnapshotProcess { process, state: Some('Z'), threads: None | Some(0..=1), .. }
                if self.is_live && self.follow == Follow::Everything =>
            {
                self.found_zombies.push(process.clone());
            }
            _ => {}
        }
        if consumers.none_wants_it() {
            return;
        }
        if consumers.wants.is_empty() {
            // Without consumers, the caller wants only the model.
            if let Some(world) = &mut self.world {
                world.apply(event);
            }
            return;
        }
        let container_before = self.containers.name(event, self.world.as_ref());
        let container = container_before.as_ref();
        let Some(world) = &mut self.world else {
            consumers.update(&Update { event, container, changes: &[], world: None });
            return;
        };
        consumers.prepare(&Update { event, container, changes: &[], world: Some(world) });
        let mut changes = world.apply(event);
        if ends_snapshot {
            changes.extend(world.settle());
        }
        if self.is_live {
            self.follow.adapt(world, event);
        }
        if matches!(self.follow, Follow::Namespaces { .. }) {
            // The agent can run for months, so containers of namespaces that are gone must be forgotten. No later event
            // needs them.
            for change in &changes {
                if let Change::NamespaceRemoved(inum) = change
                    && world.namespace(*inum).is_none()
                {
                    self.containers.forget(*inum, event.boot_ns);
                }
            }
        }
        let container = match self.containers {
            // The event may have just named the container.
            ContainerSource::Recorded(_) => self.containers.name(event, Some(world)).or(container_before),
            ContainerSource::Unknown | ContainerSource::Tracked(_) => container_before,
        };
        consumers.update(&Update {
            event,
            container: container.as_ref(),
            changes: &changes,
            world: Some(world),
        });
    }

    fn begin(&mut self) {
        if self.has_begun
            && let Some(world) = &mut self.world
        {
            // Another recording follows the first. It brings its own snapshot.
            *world = world.cleared();
        }
        self.has_begun = true;
        if self.follow == Follow::Nothing {
            self.containers.find_inits(true);
        }
    }
}

impl Consumers<'_, '_> {
    fn each(&mut self, mut call: impl FnMut(&mut dyn Consumer)) {
        self.all.iter_mut().for_each(|consumer| call(*consumer));
    }

    /// Whether no consumer wants this event. A consumer that counts after a failure still gets it.
    fn none_wants_it(&self) -> bool {
        !self.at_the_end && self.are_done() && !self.wants.contains(&Wants::Count)
    }

    /// Whether there are consumers and none of them wants more.
    fn are_done(&self) -> bool {
        !self.wants.is_empty() && !self.wants.contains(&Wants::More)
    }

    fn prepare(&mut self, update: &Update<'_>) {
        for (consumer, wants) in self.all.iter_mut().zip(&self.wants) {
            if *wants != Wants::NoMore || self.at_the_end {
                consumer.prepare(update);
            }
        }
    }

    fn update(&mut self, update: &Update<'_>) {
        for (consumer, wants) in self.all.iter_mut().zip(&mut self.wants) {
            if *wants != Wants::NoMore || self.at_the_end {
                *wants = consumer.update(update);
            }
        }
    }

    fn own_events(&mut self, world: Option<&World>, now: BootNs) -> Vec<(BootNs, Body)> {
        self.all.iter_mut().flat_map(|consumer| consumer.own_events(world, now)).collect()
    }

    fn tick(&mut self, world: Option<&World>) {
        for (consumer, wants) in self.all.iter_mut().zip(&mut self.wants) {
            let now = consumer.tick(world);
            if *wants == Wants::More {
                *wants = now;
            }
        }
    }
}

#[cfg(test)]
mod tests;
