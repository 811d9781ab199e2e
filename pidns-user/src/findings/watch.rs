//! Runs the detectors while events arrive, and reports opened, changed and closed findings.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{
    DetectorInput, Ledger, Thresholds, creator_leftover, find, joined_leftover, namespace_leaked,
    pid_exhaustion, proc_mismatch,
    readings::{self, ReadRequest, Reader, Readings},
    teardown_blocked, thread_growth, zombies_not_reaped,
};
use crate::{
    event::{
        Body, Event,
        finding::{Diagnosis, Finding, Severity},
        identity::{BootNs, NsInum, ProcessKey},
        snapshot::Snapshot,
    },
    kernel::clock,
    model::{Change, Recent, World},
    pipeline::{Consumer, Update, Wants},
};

/// Interval between detections: a situation must be found within two seconds, and most thresholds are one. A detection
/// on a large host takes longer: it may use at most one part in `DETECTIONS_SHARE` of a CPU's time.
const INTERVAL: Duration = Duration::from_millis(500);
const DETECTIONS_SHARE: u32 = 20;
/// Interval between detections in a recording, and in the agent, which must use little CPU.
const SLOW_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest interval between readings of holders, which read the open files of all processes. They use at most
/// 1/`HOLDERS_SHARE` of the time.
const HOLDERS_INTERVAL: Duration = Duration::from_millis(500);
const HOLDERS_SHARE: u32 = 100;

/// Number of open findings, shared with other threads.
#[derive(Clone, Debug, Default)]
pub struct OpenFindings(Arc<Mutex<BTreeMap<(Diagnosis, Severity), u64>>>);

impl OpenFindings {
    /// The numbers by diagnosis and severity, without zeros.
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

/// Source of time.
#[derive(Clone, Copy)]
enum Clock {
    /// The host's clock, for a live stream.
    Live { detected: Option<Instant>, took: Duration, interval: Duration },
    /// The time of the events, for a recording.
    Recorded { detected: BootNs },
}

/// Which data a detection requests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reads {
    /// Everything that it needs, including data read before.
    All,
    /// Only data never read before. Otherwise a detection caused by new data would request data again, without end.
    Unread,
    /// Like `Unread`, but without detecting.
    First,
}

/// Detects findings in a stream.
pub struct FindingsWatch {
    thresholds: Thresholds,
    recent: Recent,
    ledger: Ledger,
    readings: Readings,
    /// Starts the reader of /proc, after the privileges were dropped.
    start_reader: Option<fn() -> Box<dyn Reader>>,
    reader: Option<Box<dyn Reader>>,
    wants: Wants,
    /// Whether there is only one detection, on a snapshot that includes the holders of namespaces.
    is_only_detection: bool,
    /// When holders were last read.
    holders_at: Option<BootNs>,
    clock: Clock,
    targets: BTreeSet<NsInum>,
    counts: OpenFindings,
    news: Vec<(BootNs, Body)>,
    /// Whether the last detection needs a newer snapshot.
    needs_snapshot: bool,
    /// Whether the findings come from the recording and are not detected.
    is_recorded: bool,
}

impl FindingsWatch {
    /// For a live stream; `reader` starts the parallel reading of /proc.
    pub fn live(thresholds: Thresholds, reader: fn() -> Box<dyn Reader>) -> Self {
        let clock = Clock::Live { detected: None, took: Duration::ZERO, interval: INTERVAL };
        Self::new(thresholds, Some(reader), clock)
    }

    /// Detects less often, to use less CPU.
    pub fn with_slow_interval(mut self) -> Self {
        if let Clock::Live { interval, .. } = &mut self.clock {
            *interval = SLOW_INTERVAL;
        }
        self
    }

    /// Starts to read /proc. A reading thread gets the caller's current privileges.
    pub fn start_reading(&mut self) {
        self.reader = self.start_reader.map(|start| start());
    }

    /// Uses this reader.
    #[cfg(test)]
    pub(super) fn read_with(&mut self, reader: Box<dyn Reader>) {
        self.reader = Some(reader);
    }

    /// For a stream that other consumers need: it ends when they have enough.
    pub fn alongside_others(mut self) -> Self {
        self.wants = Wants::Along;
        self
    }

    /// For a recording. Findings in it are repeated, because they were found with more data than the events contain.
    pub fn recorded(thresholds: Thresholds) -> Self {
        Self::new(thresholds, None, Clock::Recorded { detected: BootNs::default() })
    }

    /// For a single snapshot that includes the holders of namespaces.
    pub(super) fn once(thresholds: Thresholds, reader: Box<dyn Reader>) -> Self {
        let clock = Clock::Recorded { detected: BootNs::default() };
        Self { reader: Some(reader), is_only_detection: true, ..Self::new(thresholds, None, clock) }
    }

    /// Adds the mounted procs without processes that a snapshot found.
    pub(super) fn add_empty_procs(&mut self, snapshot: &Snapshot) {
        self.readings.empty_procs = Some(readings::empty_procs(snapshot));
    }

    pub(super) fn learn(&mut self, event: &Event, changes: &[Change], world: &World) {
        self.recent.update(event, changes, world);
    }

    /// Reads all data for one moment, then detects.
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
            is_only_detection: false,
            holders_at: None,
            clock,
            targets: BTreeSet::new(),
            counts: OpenFindings::default(),
            news: Vec::new(),
            needs_snapshot: false,
            is_recorded: false,
        }
    }

    /// Adds findings that are only detected for namespaces that the user asks about.
    pub fn for_targets(mut self, namespaces: BTreeSet<NsInum>) -> Self {
        self.targets = namespaces;
        self
    }

    /// The number of open findings, to be read while it runs.
    pub fn counts(&self) -> OpenFindings {
        self.counts.clone()
    }

    /// The open findings.
    pub fn open(&self) -> impl Iterator<Item = &Finding> {
        self.ledger.open()
    }

    /// Detects at the moment where the events of a recording end.
    pub fn detect_at(&mut self, world: &World, now: BootNs) {
        if !self.is_recorded {
            self.detect(world, now, Reads::All);
        }
    }

    pub(super) fn detect(&mut self, world: &World, now: BootNs, reads: Reads) {
        let needed = self.ledger.open().filter_map(|finding| Some(finding.ns.as_ref()?.key())).collect();
        self.recent.forget(now, world, needed, self.thresholds.longest_after_an_end());
        self.forget_readings(world);
        let (recent, readings, thresholds) = (&self.recent, &self.readings, &self.thresholds);
        let (open, targets, snapshot) = (self.ledger.keys(), &self.targets, std::cell::OnceCell::new());
        let (has_reader, is_only_detection) = (self.reader.is_some(), self.is_only_detection);
        let members = std::cell::OnceCell::new();
        let input = DetectorInput {
            world,
            recent,
            readings,
            thresholds,
            now,
            has_reader,
            is_only_detection,
            open,
            targets,
            snapshot,
            members,
        };
        // `First` only requests data.
        let found = if reads == Reads::First { Vec::new() } else { find(&input) };
        self.needs_snapshot = teardown_blocked::needs_snapshot_again(&input, &found);
        if let Some(reader) = &mut self.reader {
            let mut request = ReadRequest::default();
            teardown_blocked::add_requests(&input, &mut request);
            pid_exhaustion::add_requests(&input, &mut request);
            let pause = HOLDERS_INTERVAL.max(HOLDERS_SHARE * readings.holders_took);
            let may_read_holders =
                !self.is_only_detection && self.holders_at.is_none_or(|at| input.has_passed(at, pause));
            namespace_leaked::add_requests(&input, may_read_holders, &mut request);
            joined_leftover::add_requests(&input, &mut request);
            creator_leftover::add_requests(&input, &mut request);
            proc_mismatch::add_requests(&input, &mut request);
            thread_growth::add_requests(&input, &mut request);
            zombies_not_reaped::add_requests(&input, &mut request);
            if reads != Reads::All {
                request.leave_out(readings);
            }
            if reads == Reads::All || !request.is_empty() {
                reader.ask(request);
            }
        }
        for (state, finding) in self.ledger.update(found) {
            self.news.push((now, Body::Finding { state, finding: Box::new(finding) }));
        }
        self.counts.publish(self.ledger.open());
    }

    /// Drops data about processes and namespaces that are gone.
    fn forget_readings(&mut self, world: &World) {
        let recent = &self.recent;
        let Readings { activity, gone, usage, limits, holders, proc, .. } = &mut self.readings;
        activity.retain(|key, _| world.process(key.pid).is_some());
        let is_known =
            |key: &ProcessKey| world.process(key.pid).is_some_and(|state| state.key().is_same(*key));
        gone.retain(is_known);
        proc.retain(|key, _| world.process(key.pid).is_some());
        limits
            .retain(|inum, chain| world.namespace(*inum).is_some_and(|state| state.init == Some(chain.init)));
        usage.retain(|inum, _| limits.contains_key(inum));
        let is_empty = |inum| world.namespace(inum).is_none_or(|state| state.members == 0);
        holders.retain(|inum, (ns, _)| {
            is_empty(*inum) && recent.last_namespace(*inum).is_some_and(|last| last.is_of(ns))
        });
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
        let is_due = now.saturating_since(*detected) >= SLOW_INTERVAL.as_nanos() as u64;
        if let Some(world) = update.world
            && is_due
            && !self.is_recorded
            && !world.is_in_snapshot()
        {
            *detected = now;
            self.detect(world, now, Reads::All);
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
            // It is here.
            Body::StreamResync { .. } => self.needs_snapshot = false,
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

    fn needs_snapshot(&self) -> bool {
        self.needs_snapshot
    }

    fn own_events(&mut self, world: Option<&World>, now: BootNs) -> Vec<(BootNs, Body)> {
        if let Some(world) = world
            && !world.is_in_snapshot()
            && world.namespaces().next().is_some()
        {
            let is_new = self.take_readings();
            if let Clock::Live { detected, took, interval } = self.clock
                && let pause = interval.max(DETECTIONS_SHARE * took)
                && let is_due = detected.is_none_or(|detected| detected.elapsed() >= pause)
                && (is_new || is_due)
            {
                let (began, before) = (Instant::now(), clock::thread_cpu_time());
                // Detects at the time of the model: later events are not applied yet.
                self.detect(world, now, if is_due { Reads::All } else { Reads::Unread });
                let detected = if is_due { Some(began) } else { detected };
                let took = clock::thread_cpu_time().saturating_sub(before);
                self.clock = Clock::Live { detected, took, interval };
            }
        }
        std::mem::take(&mut self.news)
    }
}
