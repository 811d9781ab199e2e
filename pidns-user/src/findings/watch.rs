//! Runs the detectors while events come, and reports what was opened, changed and closed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{
    Ledger, Scene, Thresholds, find, joined_leftover, namespace_leaked, pid_exhaustion, proc_mismatch,
    readings::{Reader, Readings, Wanted},
    teardown_blocked, thread_growth, zombies_not_reaped,
};
use crate::{
    event::{
        Body, Event,
        finding::{Diagnosis, Finding, Severity},
        identity::{BootNs, NsInum, ProcessKey},
    },
    model::{Change, Recent, World},
    pipeline::{Consumer, Update, Wants},
};

/// How often the detectors run.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often the holders of namespaces are read, which reads the open files of all processes; and of the time at most this part.
const HOLDERS_INTERVAL: Duration = Duration::from_millis(500);
const HOLDERS_SHARE: u32 = 100;

/// How many findings are open, for those that read it in their own time.
#[derive(Clone, Debug, Default)]
pub struct OpenFindings(Arc<Mutex<BTreeMap<(Diagnosis, Severity), u64>>>);

impl OpenFindings {
    /// By diagnosis and severity; none where there is none.
    pub fn counts(&self) -> BTreeMap<(Diagnosis, Severity), u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn publish<'a>(&self, open: impl Iterator<Item = &'a Finding>) {
        let mut counts = BTreeMap::new();
        for finding in open {
            *counts.entry((finding.id, finding.severity)).or_default() += 1;
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }
}

/// Where time comes from.
enum Clock {
    /// The machine's, of a stream that is live.
    Live { detected: Option<Instant> },
    /// The events', of a recording.
    Recorded { detected: BootNs },
}

/// What a detection asks to be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    /// All that it needs, what was read before too.
    Anew,
    /// What was never read: else a detection caused by new readings would ask for the next ones, without end.
    Unread,
    /// The same, and finds nothing yet.
    First,
}

/// Finds what goes wrong in a stream.
pub struct FindingsWatch {
    thresholds: Thresholds,
    recent: Recent,
    ledger: Ledger,
    readings: Readings,
    /// Starts what reads /proc, when the privileges are those that it is to have.
    start_reader: Option<fn() -> Box<dyn Reader>>,
    reader: Option<Box<dyn Reader>>,
    wants: Wants,
    /// Whether there is one detection alone, on a snapshot with the holders of namespaces.
    at_once: bool,
    /// When holders were read last.
    holders_at: Option<BootNs>,
    clock: Clock,
    asked: BTreeSet<NsInum>,
    counts: OpenFindings,
    news: Vec<(BootNs, Body)>,
    /// Whether the findings are those of the recording, and none are detected.
    is_recorded: bool,
}

impl FindingsWatch {
    /// Of a stream that is live: `reader` starts what reads /proc beside it.
    pub fn live(thresholds: Thresholds, reader: fn() -> Box<dyn Reader>) -> Self {
        Self::new(thresholds, Some(reader), Clock::Live { detected: None })
    }

    /// Starts to read /proc. A thread that does has the privileges that the caller has now.
    pub fn start_reading(&mut self) {
        self.reader = self.start_reader.map(|start| start());
    }

    /// Reads with this.
    #[cfg(test)]
    pub(super) fn read_with(&mut self, reader: Box<dyn Reader>) {
        self.reader = Some(reader);
    }

    /// For a stream that others ask for: it ends when they have enough.
    pub fn beside_others(mut self) -> Self {
        self.wants = Wants::Along;
        self
    }

    /// Of a recording. Where it was recorded what was wrong, that is repeated: it was found with more data than the events have.
    pub fn recorded(thresholds: Thresholds) -> Self {
        Self::new(thresholds, None, Clock::Recorded { detected: BootNs::default() })
    }

    /// Of one snapshot, which has the holders of namespaces.
    pub(super) fn once(thresholds: Thresholds, reader: Box<dyn Reader>) -> Self {
        let clock = Clock::Recorded { detected: BootNs::default() };
        Self { reader: Some(reader), at_once: true, ..Self::new(thresholds, None, clock) }
    }

    pub(super) fn learn(&mut self, event: &Event, changes: &[Change], world: &World) {
        self.recent.update(event, changes, world);
    }

    /// Reads all that can be read of one moment, then detects.
    pub(super) fn detect_once(&mut self, world: &World, now: BootNs) {
        let mut before = None;
        while before != Some(self.readings.count()) {
            before = Some(self.readings.count());
            self.detect(world, now, Reads::First);
            self.take_readings();
        }
        self.detect(world, now, Reads::Unread);
    }

    fn new(thresholds: Thresholds, start_reader: Option<fn() -> Box<dyn Reader>>, clock: Clock) -> Self {
        Self {
            thresholds,
            recent: Recent::default(),
            ledger: Ledger::default(),
            readings: Readings::default(),
            start_reader,
            reader: None,
            wants: Wants::More,
            at_once: false,
            holders_at: None,
            clock,
            asked: BTreeSet::new(),
            counts: OpenFindings::default(),
            news: Vec::new(),
            is_recorded: false,
        }
    }

    /// With the findings that are detected only where these namespaces are asked about.
    pub fn asking_about(mut self, namespaces: BTreeSet<NsInum>) -> Self {
        self.asked = namespaces;
        self
    }

    /// How many are open, to be read while it runs.
    pub fn counts(&self) -> OpenFindings {
        self.counts.clone()
    }

    /// The findings that are open, and what happened lately.
    pub fn open(&self) -> impl Iterator<Item = &Finding> {
        self.ledger.open()
    }

    /// Detects at the moment of a recording at which its events end.
    pub fn detect_at(&mut self, world: &World, now: BootNs) {
        if !self.is_recorded {
            self.detect(world, now, Reads::Anew);
        }
    }

    fn detect(&mut self, world: &World, now: BootNs, reads: Reads) {
        self.recent.forget(now, world);
        self.forget_readings(world);
        let (recent, readings, thresholds) = (&self.recent, &self.readings, &self.thresholds);
        let (open, asked, snapshot) = (self.ledger.keys(), &self.asked, std::cell::OnceCell::new());
        let (can_read, at_once) = (self.reader.is_some(), self.at_once);
        let scene =
            Scene { world, recent, readings, thresholds, now, can_read, at_once, open, asked, snapshot };
        // At once all is read first.
        let found = if reads == Reads::First { Vec::new() } else { find(&scene) };
        if let Some(reader) = &mut self.reader {
            let mut wanted = Wanted::default();
            teardown_blocked::want(&scene, &mut wanted);
            pid_exhaustion::want(&scene, &mut wanted);
            let pause = HOLDERS_INTERVAL.max(HOLDERS_SHARE * readings.holders_took);
            let may_read_holders = !self.at_once && self.holders_at.is_none_or(|at| scene.is_over(at, pause));
            namespace_leaked::want(&scene, may_read_holders, &mut wanted);
            joined_leftover::want(&scene, &mut wanted);
            proc_mismatch::want(&scene, &mut wanted);
            thread_growth::want(&scene, &mut wanted);
            zombies_not_reaped::want(&scene, &mut wanted);
            if reads != Reads::Anew {
                wanted.leave_out(readings);
            }
            if reads == Reads::Anew || !wanted.is_empty() {
                reader.ask(wanted);
            }
        }
        for (state, finding) in self.ledger.update(found) {
            self.news.push((now, Body::Finding { state, finding: Box::new(finding) }));
        }
        self.counts.publish(self.ledger.open());
    }

    /// What was read of those that are gone is of no use.
    fn forget_readings(&mut self, world: &World) {
        let recent = &self.recent;
        let Readings { doing, gone, limits, holders, proc, .. } = &mut self.readings;
        doing.retain(|key, _| world.process(key.pid).is_some());
        let is_known =
            |key: &ProcessKey| world.process(key.pid).is_some_and(|state| state.key().is_same(*key));
        gone.retain(is_known);
        proc.retain(|key, _| world.process(key.pid).is_some());
        limits.retain(|inum, _| world.namespace(*inum).is_some());
        let is_empty = |inum| world.namespace(inum).is_none_or(|state| state.members == 0);
        holders.retain(|inum, _| is_empty(*inum) && recent.last_namespace(*inum).is_some());
    }

    fn take_readings(&mut self) -> bool {
        let Some(read) = self.reader.as_mut().and_then(|reader| reader.take()) else { return false };
        if !read.holders.is_empty() {
            self.holders_at = Some(read.at);
        }
        self.readings.merge(read);
        true
    }
}

impl Consumer for FindingsWatch {
    fn prepare(&mut self, update: &Update<'_>) {
        let Clock::Recorded { detected } = &mut self.clock else { return };
        let now = update.event.boot_ns;
        let is_due = now.saturating_since(*detected) >= INTERVAL.as_nanos() as u64;
        if let Some(world) = update.world
            && is_due
            && !self.is_recorded
            && !world.is_in_snapshot()
        {
            *detected = now;
            self.detect(world, now, Reads::Anew);
        }
    }

    fn update(&mut self, update: &Update<'_>) -> Wants {
        let Update { event, changes, world, .. } = *update;
        match &event.body {
            Body::StreamStart { filter, .. } => {
                self.is_recorded = matches!(self.clock, Clock::Recorded { .. })
                    && filter.events.iter().any(|name| name == "finding");
                self.ledger = Ledger::default();
            }
            Body::Finding { state, finding } if self.is_recorded => self.ledger.replay(*state, finding),
            _ => {}
        }
        if let Some(world) = world {
            self.recent.update(event, changes, world);
        }
        self.wants
    }

    fn tick(&mut self, _world: Option<&World>) -> Wants {
        self.wants
    }

    fn own_events(&mut self, world: Option<&World>, now: BootNs) -> Vec<(BootNs, Body)> {
        if let Some(world) = world
            && !world.is_in_snapshot()
            && world.namespaces().next().is_some()
        {
            let is_new = self.take_readings();
            if let Clock::Live { detected } = &mut self.clock
                && let is_due = detected.is_none_or(|detected| detected.elapsed() >= INTERVAL)
                && (is_new || is_due)
            {
                if is_due {
                    *detected = Some(Instant::now());
                }
                // As the model is: of what has happened since nothing is known yet.
                self.detect(world, now, if is_due { Reads::Anew } else { Reads::Unread });
            }
        }
        std::mem::take(&mut self.news)
    }
}
