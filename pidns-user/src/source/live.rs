//! The running kernel as a source. One thread turns its records into events and reports losses.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use pidns_ebpf::abi::{FLAG_INEXACT, Header, Kind, Record};

use super::{
    Progress, Source, SourceError,
    kinds::event_of,
    refusals::CgroupPaths,
    translate::{Translated, Translator},
};
use crate::{
    event::identity::BootNs,
    event::{Body, Event, KernelCount, Process, ThreadCount, Token},
    kernel::{
        clock,
        error::LoadError,
        load::Loaded,
        log::KernelLog,
        ring::RingReader,
        stats::{KindTotals, MissedRuns, Totals},
        sweep::Swept,
        zombies::{Followed, Zombies},
    },
};

/// Longest time from a record's timestamp until it can be read from the ring.
const ON_THEIR_WAY_NS: u64 = 5_000_000;
/// Interval of checks for losses.
const LOSS_INTERVAL: Duration = Duration::from_millis(100);
/// The same while no record comes: each check reads a file for each program.
const IDLE_LOSS_INTERVAL: Duration = Duration::from_secs(1);
/// Interval of sweeps, which search for ends that no hook reported.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// The end waits at most this long for records that the kernel has already counted.
const LAST_RECORDS: Duration = Duration::from_millis(200);

/// The loaded hooks, and the state of reading them.
pub struct Live {
    loaded: Loaded,
    reader: RingReader,
    log: Option<KernelLog>,
    start: Option<Body>,
    stage: RunStage,
    began: Instant,
    losses_checked: Instant,
    /// Number of records received until then.
    received_then: u64,
    swept_at: Instant,
    /// Missed runs at the last check.
    missed: MissedRuns,
    /// Whether the ring may have more.
    more: bool,
    /// All events up to this time were read.
    read_until: BootNs,
    translation: Translation,
}

/// Stage of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RunStage {
    /// The hooks are attached.
    Running,
    /// The end was requested, and the hooks are detached.
    Stopping,
    /// All events were passed on.
    Over,
}

/// Turns records into events. Contains all state for that except the loaded hooks, so that tests need no kernel.
struct Translation {
    translator: Translator,
    zombies: Zombies,
    /// Results of the last sweep that wait for earlier records.
    swept: VecDeque<Translated>,
    /// Number of ends that sweeps found, by event.
    swept_count: BTreeMap<&'static str, u64>,
    lost: BTreeMap<&'static str, u64>,
    numbers: Numbers,
    cgroups: CgroupPaths,
    /// Events of the current record. Kept to reuse the memory.
    events: Vec<Event>,
}

/// Gives each event a number, and a time that is never before the previous one.
struct Numbers {
    seq: u64,
    last_boot_ns: BootNs,
    wall_offset_ns: i128,
}

impl Numbers {
    fn event(&mut self, boot_ns: BootNs, exact: bool, body: Body) -> Event {
        self.seq += 1;
        // A record can be delayed for longer than later records wait. Then it gets the time of the previous event, so
        // that events stay in order.
        self.last_boot_ns = boot_ns.max(self.last_boot_ns);
        let time = i128::from(self.last_boot_ns.0) + self.wall_offset_ns;
        let time = Timestamp::from_nanosecond(time).unwrap_or(Timestamp::UNIX_EPOCH);
        Event { seq: self.seq, time, boot_ns: self.last_boot_ns, exact, body }
    }
}

impl Live {
    /// A source of the events of these hooks. `start` is the first event. `follows_reaps`: the hooks were asked to
    /// report reaps.
    pub fn new(
        loaded: Loaded,
        reader: RingReader,
        log: Option<KernelLog>,
        start: Body,
        follows_reaps: bool,
    ) -> Self {
        let zombies = Zombies::new(follows_reaps);
        let translation =
            Translation::new(Translator::new(loaded.observed_since_ns), zombies, loaded.began_boot_ns);
        let now = Instant::now();
        Self {
            loaded,
            reader,
            log,
            start: Some(start),
            stage: RunStage::Running,
            began: now,
            losses_checked: now,
            received_then: 0,
            swept_at: now,
            missed: MissedRuns::default(),
            more: false,
            read_until: BootNs::default(),
            translation,
        }
    }

    fn run(&mut self, each: &mut dyn FnMut(&mut [Event])) -> Result<Progress, SourceError> {
        if !self.more {
            self.reader.wait(LOSS_INTERVAL).map_err(SourceError::Wait)?;
        }
        let translation = &mut self.translation;
        translation.numbers.wall_offset_ns = clock::wall_offset_ns();
        let before = clock::boottime_ns();
        self.more = self.reader.drain(|header, record| translation.record(header, record, each));
        if !self.more {
            self.read_until = before.saturating_sub(ON_THEIR_WAY_NS);
            // All records before the sweep have been passed on.
            translation.swept_up_to(before, each);
        }
        if let Some(log) = &mut self.log {
            log.flush();
        }
        let received = self.reader.received();
        let is_idle = received == self.received_then;
        if self.losses_checked.elapsed() >= if is_idle { IDLE_LOSS_INTERVAL } else { LOSS_INTERVAL } {
            self.losses_checked = Instant::now();
            self.received_then = received;
            // A second program may still replace a missed run that was just counted. So use the counts of the last
            // check.
            let missed = std::mem::replace(&mut self.missed, self.loaded.missed_runs());
            let totals = self.loaded.stats.read().map_err(LoadError::from)?;
            self.translation.losses(missed, &totals, each);
        }
        // Records that still wait may report the ends that a sweep would find.
        if !self.more && self.swept_at.elapsed() >= SWEEP_INTERVAL {
            self.swept_at = Instant::now();
            self.sweep(false);
        }
        Ok(if self.more { Progress::More } else { Progress::Idle })
    }

    fn sweep(&mut self, last: bool) {
        let (boot_ns, swept) = self.loaded.sweeper.sweep(&mut self.translation.zombies, last);
        for swept in swept {
            self.translation.sweep(boot_ns, swept);
        }
    }

    /// Reads the remaining records of the hooks.
    fn finish(&mut self, each: &mut dyn FnMut(&mut [Event])) -> Result<(), SourceError> {
        let translation = &mut self.translation;
        // Programs that are still running may send more. The kernel's counters tell when all records have arrived.
        let deadline = Instant::now() + LAST_RECORDS;
        loop {
            let more = self.reader.drain(|header, record| translation.record(header, record, each));
            let totals = self.loaded.stats.read().map_err(LoadError::from)?;
            let sent: u64 = totals.kinds.values().map(|kind| kind.submitted).sum();
            if !more && (self.reader.received() >= sent || Instant::now() > deadline) {
                break;
            }
            if !more {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.reader.finish(|header, record| translation.record(header, record, each));
        translation.swept_up_to(BootNs(u64::MAX), each);
        self.sweep(true);
        self.translation.swept_up_to(BootNs(u64::MAX), each);
        let totals = self.loaded.stats.read().map_err(LoadError::from)?;
        self.translation.final_losses(self.missed, &totals, self.reader.malformed(), each);
        Ok(())
    }
}

impl Source for Live {
    fn read(&mut self, each: &mut dyn FnMut(&mut [Event])) -> Result<Progress, SourceError> {
        if let Some(start) = self.start.take() {
            each(&mut [self.translation.numbers.event(BootNs::default(), true, start)]);
            return Ok(Progress::Idle);
        }
        match self.stage {
            RunStage::Running => self.run(each),
            RunStage::Stopping => {
                self.stage = RunStage::Over;
                self.finish(each)?;
                Ok(Progress::End)
            }
            RunStage::Over => Ok(Progress::End),
        }
    }

    fn hold(&mut self, waits: bool) -> Result<(), SourceError> {
        if waits {
            self.reader.wait(LOSS_INTERVAL).map_err(SourceError::Wait)?;
        }
        self.reader.hold();
        self.more = true;
        Ok(())
    }

    fn stop(&mut self) {
        if self.stage == RunStage::Running {
            self.stage = RunStage::Stopping;
            // Detach at once, so that new events do not delay the end.
            self.missed = self.loaded.missed_runs();
            self.loaded.detach();
        }
    }

    fn now(&self) -> BootNs {
        self.read_until.max(self.translation.numbers.last_boot_ns)
    }

    fn event_at(&mut self, boot_ns: BootNs, body: Body) -> Event {
        self.translation.numbers.event(boot_ns, true, body)
    }

    fn found_zombie(&mut self, process: &Process) {
        self.translation.zombies.found(process);
    }

    fn end(&mut self) -> Option<Event> {
        let totals = self.loaded.stats.read().unwrap_or_default();
        let end = self.translation.end(&totals, self.missed, self.began.elapsed());
        Some(self.translation.numbers.event(clock::boottime_ns(), true, end))
    }

    fn is_live(&self) -> bool {
        true
    }
}

impl Translation {
    fn new(translator: Translator, zombies: Zombies, began_boot_ns: BootNs) -> Self {
        Self {
            translator,
            zombies,
            swept: VecDeque::new(),
            swept_count: BTreeMap::new(),
            lost: BTreeMap::new(),
            numbers: Numbers { seq: 0, last_boot_ns: began_boot_ns, wall_offset_ns: clock::wall_offset_ns() },
            cgroups: CgroupPaths::default(),
            events: Vec::new(),
        }
    }

    fn record(&mut self, header: Header, record: Record<'_>, each: &mut dyn FnMut(&mut [Event])) {
        if !self.swept.is_empty() {
            self.swept_up_to(BootNs(header.boot_ns), each);
        }
        let (numbers, events) = (&mut self.numbers, &mut self.events);
        let mut put = |Translated { boot_ns, exact, body }| events.push(numbers.event(boot_ns, exact, body));
        match self.zombies.follow(header, record) {
            Followed::Other(record) => self.translator.translate(header, record, put),
            Followed::Reaped(process) => {
                let exact = header.flags & FLAG_INEXACT == 0;
                put(Translator::reaped(BootNs(header.boot_ns), exact, process));
            }
            Followed::Unknown => {
                // The kernel frees a task more than a second late if the machine has no time for that. So a hook did
                // report this end.
                if let Some(count) = self.swept_count.get_mut(event_of(Kind::ProcessReap)) {
                    *count = count.saturating_sub(1);
                }
            }
        }
        events.iter_mut().for_each(|event| self.cgroups.complete(event));
        each(events);
        events.clear();
    }

    fn sweep(&mut self, boot_ns: BootNs, swept: Swept) {
        let translated = self.translator.swept(boot_ns, swept);
        *self.swept_count.entry(translated.body.name()).or_default() += 1;
        self.swept.push_back(translated);
    }

    /// Passes on the ends that a sweep found at this time or before.
    fn swept_up_to(&mut self, boot_ns: BootNs, each: &mut dyn FnMut(&mut [Event])) {
        while let Some(first) = self.swept.front()
            && first.boot_ns <= boot_ns
            && let Some(Translated { boot_ns, exact, body }) = self.swept.pop_front()
        {
            each(&mut [self.numbers.event(boot_ns, exact, body)]);
        }
    }

    fn losses(&mut self, missed: MissedRuns, totals: &Totals, each: &mut dyn FnMut(&mut [Event])) {
        self.account("ring", totals.lost(), each);
        self.account("table", totals.unseen(), each);
        self.account("hook", missed.lost(totals), each);
        if totals.untracked.iter().any(|(what, _)| *what == "process.exit.threads") {
            self.translator.peaks_are_incomplete();
        }
    }

    fn final_losses(
        &mut self,
        missed: MissedRuns,
        totals: &Totals,
        malformed: u64,
        each: &mut dyn FnMut(&mut [Event]),
    ) {
        self.losses(missed, totals, each);
        self.account("malformed", malformed, each);
    }

    /// Reports new losses at this stage.
    fn account(&mut self, stage: &'static str, total: u64, each: &mut dyn FnMut(&mut [Event])) {
        let before = self.lost.get(stage).copied().unwrap_or(0);
        if total > before {
            self.lost.insert(stage, total);
            let body = Body::StreamLost { stage: stage.into(), count: total - before };
            each(&mut [self.numbers.event(BootNs::default(), true, body)]);
        }
    }

    /// Makes the stream.end event. Other code adds the counts of shown events and of the model.
    fn end(&self, totals: &Totals, missed: MissedRuns, duration: Duration) -> Body {
        let refusals = (missed.refusals > 0).then_some(("refusals", missed.refusals));
        let refused = self.zombies.refused();
        let zombies = (refused > 0).then_some(("process.reap.zombie_ns", refused));
        let untracked = totals.untracked.iter().copied().chain(refusals).chain(zombies);
        Body::StreamEnd {
            events: BTreeMap::new(),
            lost: by_token(&self.lost),
            kernel: Kind::ALL
                .iter()
                .map(|&kind| (event_of(kind), events_of(kind, totals)))
                .filter(|(_, count)| count.submitted + count.lost > 0)
                .map(|(name, count)| {
                    (name.into(), KernelCount { submitted: count.submitted, lost: count.lost })
                })
                .collect(),
            threads: ThreadCount { created: totals.threads_created, ended: totals.threads_ended },
            swept: by_token(&self.swept_count),
            untracked: untracked.map(|(what, count)| (what.into(), count)).collect(),
            model: None,
            duration_ns: duration.as_nanos() as u64,
        }
    }
}

/// Number of events that records of this kind report. For creations, other records count too.
fn events_of(kind: Kind, totals: &Totals) -> KindTotals {
    let KindTotals { mut submitted, mut lost } = totals.kind(kind);
    if kind == Kind::NamespaceCreate {
        submitted += totals.creations_with_init.submitted;
        lost += totals.creations_with_init.lost;
    }
    KindTotals { submitted, lost }
}

fn by_token(counts: &BTreeMap<&'static str, u64>) -> BTreeMap<Token, u64> {
    counts.iter().map(|(&name, &count)| (name.into(), count)).collect()
}

#[cfg(test)]
mod tests;
