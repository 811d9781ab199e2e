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
mod tests {
    use crate::event::identity::HostPid;
    use pidns_ebpf::abi::{ProcessKey, ProcessPart, decode};

    use super::*;
    use crate::kernel::zombies::Unreaped;

    fn translation() -> Translation {
        Translation::new(Translator::new(BootNs(0)), Zombies::new(false), BootNs(1_000))
    }

    /// Reaps process 20, which has PID 2 in its namespace.
    fn reap(translation: &mut Translation, boot_ns: u64) -> Vec<Event> {
        let numbers = |numbers: &[u32]| numbers.iter().flat_map(|n| n.to_ne_bytes()).collect::<Vec<_>>();
        let record = [
            &boot_ns.to_ne_bytes()[..],
            &64u32.to_ne_bytes(),
            &[Kind::ProcessReap as u8, 0, 2, 0],
            &5u64.to_ne_bytes(),
            &numbers(&[20, 1, 0, 4026532000]),
            b"sh\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            &numbers(&[20, 2]),
        ]
        .concat();
        let (header, record) = decode(&record).unwrap();
        let mut events = Vec::new();
        translation.record(header, record, &mut |more| events.extend_from_slice(more));
        events
    }

    #[test]
    fn events_are_numbered_and_their_times_never_go_back() {
        let mut translation = translation();
        translation.numbers.wall_offset_ns = 1_700_000_000_000_000_000;
        let body = Body::StreamLost { stage: "ring".into(), count: 0 };
        let mut events = vec![translation.numbers.event(BootNs::default(), true, body)];
        for boot_ns in [3_000, 2_000, 4_000] {
            events.extend(reap(&mut translation, boot_ns));
        }
        let seqs: Vec<_> = events.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, [1, 2, 3, 4]);
        let times: Vec<_> = events.iter().map(|event| event.boot_ns).collect();
        assert_eq!(
            times,
            [1_000, 3_000, 3_000, 4_000].map(BootNs),
            "the start has the time of the first hook"
        );
        assert_eq!(events[3].time.to_string(), "2023-11-14T22:13:20.000004Z");
    }

    #[test]
    fn a_swept_end_is_ordered_among_the_records_by_its_time() {
        let mut translation = translation();
        let process = ProcessPart {
            start_boot_ns: 5,
            pid: 21,
            parent_pid: 1,
            uid: 0,
            ns_inum: 7,
            comm: *b"sh\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        };
        let zombie = Unreaped { process, exit_boot_ns: 1_500, pids: [21, 3].into() };
        translation.sweep(BootNs(2_500), Swept::Reaped(zombie));
        assert_eq!(reap(&mut translation, 2_000).len(), 1, "the swept end comes later");
        let events = reap(&mut translation, 3_000);
        let times: Vec<_> = events.iter().map(|event| event.boot_ns).collect();
        assert_eq!(times, [2_500, 3_000].map(BootNs));
        let Body::ProcessReap { process, zombie_ns } = &events[0].body else { panic!("{:?}", events[0]) };
        assert_eq!((process.pid, &process.pids[..], *zombie_ns), (HostPid(21), &[21, 3][..], Some(1_000)));
        assert!(!events[0].exact, "its time is that of the sweep");
        assert_eq!(translation.swept_count["process.reap"], 1);
    }

    #[test]
    fn an_end_that_a_hook_reports_after_the_sweep_is_counted_once() {
        let mut translation = translation();
        let swept = |pid| {
            let part =
                ProcessPart { start_boot_ns: 5, pid, parent_pid: 1, uid: 0, ns_inum: 7, comm: [b's'; 16] };
            Swept::Reaped(Unreaped { process: part, exit_boot_ns: 1_500, pids: [pid, 3].into() })
        };
        translation.sweep(BootNs(2_500), swept(21));
        translation.sweep(BootNs(2_500), swept(22));
        let header = Header {
            boot_ns: 3_000,
            size: 32,
            kind: Kind::ProcessReap as u8,
            flags: FLAG_INEXACT,
            pids: 0,
            other_pids: 0,
        };
        let mut events = Vec::new();
        let free = Record::ProcessFree(ProcessKey::new(21, 5));
        translation.record(header, free, &mut |more| events.extend_from_slice(more));
        assert_eq!(events.len(), 2, "each end is an event once: {events:?}");
        assert_eq!(translation.swept_count["process.reap"], 1, "no hook has reported the other one");
    }

    #[test]
    fn losses_are_reported_once_and_summed_at_the_end() {
        let mut translation = translation();
        let mut lost = Vec::new();
        let mut each = |events: &mut [Event]| {
            for event in events {
                let Body::StreamLost { stage, count } = &event.body else { panic!("{event:?}") };
                lost.push((stage.to_string(), *count));
            }
        };
        for total in [5, 5, 7] {
            translation.account("ring", total, &mut each);
        }
        let kinds = BTreeMap::from([(Kind::ProcessReap as u8, KindTotals { submitted: 30, lost: 9 })]);
        let untracked = vec![("process.reap", 4), ("process.exit.threads", 1)];
        let totals = Totals { kinds, threads_created: 6, untracked, ..Totals::default() };
        let mut missed = MissedRuns::default();
        missed.add(None, 3);
        translation.final_losses(missed, &totals, 0, &mut each);
        let expected = [("ring", 5), ("ring", 2), ("ring", 2), ("table", 4), ("hook", 3)];
        assert_eq!(lost, expected.map(|(stage, count)| (stage.to_owned(), count)));
        let end = serde_json::to_value(translation.end(&totals, missed, Duration::from_secs(1))).unwrap();
        assert_eq!(end["lost"], serde_json::json!({ "ring": 9, "table": 4, "hook": 3 }));
        let kernel = serde_json::json!({ "process.reap": { "submitted": 30, "lost": 9 } });
        assert_eq!(end["kernel"], kernel, "kinds without records are left out");
        let creations_with_init = KindTotals { submitted: 7, lost: 1 };
        let end = translation.end(&Totals { creations_with_init, ..totals }, missed, Duration::from_secs(1));
        let end = serde_json::to_value(end).unwrap();
        assert_eq!(end["kernel"]["namespace.create"], serde_json::json!({ "submitted": 7, "lost": 1 }));
        assert_eq!(end["threads"]["created"], 6);
        assert_eq!(end["duration_ns"], 1_000_000_000);
    }
}
