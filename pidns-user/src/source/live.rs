//! The running kernel as a source: its records become events, in one thread, and what was lost on the way is reported.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use pidns_ebpf::abi::{Header, Kind, Record};

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
        zombies::Zombies,
    },
};

/// A record gets its time before its place in the ring, and waits there for others: for a few milliseconds.
const ON_THEIR_WAY_NS: u64 = 5_000_000;
/// How often losses are checked.
const LOSS_INTERVAL: Duration = Duration::from_millis(100);
/// How often ends that no hook reported are searched for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// How long records that the kernel has counted are waited for at the end.
const LAST_RECORDS: Duration = Duration::from_millis(200);

/// The loaded hooks, and what was read of them.
pub struct Live {
    loaded: Loaded,
    reader: RingReader,
    log: Option<KernelLog>,
    start: Option<Body>,
    stage: RunStage,
    began: Instant,
    losses_checked: Instant,
    swept_at: Instant,
    /// Left-out runs as they were counted at the last check.
    missed: MissedRuns,
    /// Whether the ring may have more.
    more: bool,
    /// The ring had nothing more that is older than this.
    read_until: BootNs,
    translation: Translation,
}

/// How far the run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RunStage {
    /// The hooks are there.
    Running,
    /// The end was asked for, and the hooks are away.
    Stopping,
    /// All has been handed over.
    Over,
}

/// From records to events: what that takes besides the loaded hooks.
struct Translation {
    translator: Translator,
    zombies: Zombies,
    /// What the last sweep found, until the records before it are through.
    swept: VecDeque<Translated>,
    /// How many ends were found by sweeping, by event.
    swept_count: BTreeMap<&'static str, u64>,
    lost: BTreeMap<&'static str, u64>,
    numbers: Numbers,
    cgroups: CgroupPaths,
    /// The events of one record; kept for its memory.
    events: Vec<Event>,
}

/// Gives events their place: a number, and a time that never goes back.
struct Numbers {
    seq: u64,
    last_boot_ns: BootNs,
    wall_offset_ns: i128,
}

impl Numbers {
    fn event(&mut self, boot_ns: BootNs, exact: bool, body: Body) -> Event {
        self.seq += 1;
        // A record that was held up between its time and its place for longer than the others were made to wait for it
        // comes too late to stand where it belongs; events are in order all the same.
        self.last_boot_ns = boot_ns.max(self.last_boot_ns);
        let time = i128::from(self.last_boot_ns.0) + self.wall_offset_ns;
        let time = Timestamp::from_nanosecond(time).unwrap_or(Timestamp::UNIX_EPOCH);
        Event { seq: self.seq, time, boot_ns: self.last_boot_ns, exact, body }
    }
}

impl Live {
    /// What these hooks send, behind `start`. `follows_reaps`: reapings are among what they were asked for.
    pub fn new(
        loaded: Loaded,
        reader: RingReader,
        log: Option<KernelLog>,
        start: Body,
        follows_reaps: bool,
    ) -> Self {
        let zombies = Zombies::new(loaded.ends_by_function() && follows_reaps);
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
            // The records up to the sweep are through.
            translation.swept_up_to(before, each);
        }
        if let Some(log) = &mut self.log {
            log.flush();
        }
        if self.losses_checked.elapsed() >= LOSS_INTERVAL {
            self.losses_checked = Instant::now();
            // A second program may be about to take over what was counted just now: go by what the last check saw.
            let missed = std::mem::replace(&mut self.missed, self.loaded.missed_runs());
            let totals = self.loaded.stats.read().map_err(LoadError::from)?;
            self.translation.losses(missed, &totals, each);
        }
        // Not while records are waiting that may report what a sweep would find.
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

    /// Takes everything that the hooks left.
    fn finish(&mut self, each: &mut dyn FnMut(&mut [Event])) -> Result<(), SourceError> {
        let translation = &mut self.translation;
        // Programs that were running may still send; the kernel's count says when all is here.
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
            // At once: what happens from here on is not to make the end longer.
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
        let record = self.zombies.follow(header, record);
        let (numbers, events) = (&mut self.numbers, &mut self.events);
        self.translator.translate(header, record, |Translated { boot_ns, exact, body }| {
            events.push(numbers.event(boot_ns, exact, body));
        });
        events.iter_mut().for_each(|event| self.cgroups.complete(event));
        each(events);
        events.clear();
    }

    fn sweep(&mut self, boot_ns: BootNs, swept: Swept) {
        let translated = self.translator.swept(boot_ns, swept);
        *self.swept_count.entry(translated.body.name()).or_default() += 1;
        self.swept.push_back(translated);
    }

    /// Hands over what a sweep found at this time or before.
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

    /// Reports what was lost at this stage since the last time.
    fn account(&mut self, stage: &'static str, total: u64, each: &mut dyn FnMut(&mut [Event])) {
        let before = self.lost.get(stage).copied().unwrap_or(0);
        if total > before {
            self.lost.insert(stage, total);
            let body = Body::StreamLost { stage: stage.into(), count: total - before };
            each(&mut [self.numbers.event(BootNs::default(), true, body)]);
        }
    }

    /// What the stream ends with; the counts of what was shown, and of the model, are others' to add.
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

/// How many events records of this kind report, or, of creations, records of others too.
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
    use pidns_ebpf::abi::decode;

    use super::*;
    use crate::kernel::zombies::Unreaped;

    fn translation() -> Translation {
        Translation::new(Translator::new(BootNs(0)), Zombies::new(false), BootNs(1_000))
    }

    /// The reaping of process 20, which is 2 in its namespace.
    fn reap(translation: &mut Translation, boot_ns: u64) -> Vec<Event> {
        let numbers = |numbers: &[u32]| numbers.iter().flat_map(|n| n.to_ne_bytes()).collect::<Vec<_>>();
        let record = [
            &boot_ns.to_ne_bytes()[..],
            &72u32.to_ne_bytes(),
            &[Kind::ProcessReap as u8, 0, 2, 0],
            &5u64.to_ne_bytes(),
            &numbers(&[20, 1, 0, 4026532000]),
            b"sh\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            &7u64.to_ne_bytes(),
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
        assert_eq!(times, [1_000, 3_000, 3_000, 4_000].map(BootNs), "the start's is that of the first hook");
        assert_eq!(events[3].time.to_string(), "2023-11-14T22:13:20.000004Z");
    }

    #[test]
    fn an_end_that_a_sweep_found_stands_among_the_records_by_its_time() {
        let mut translation = translation();
        let process = pidns_ebpf::abi::ProcessPart {
            start_boot_ns: 5,
            pid: 21,
            parent_pid: 1,
            uid: 0,
            ns_inum: 7,
            comm: *b"sh\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        };
        let zombie = Unreaped { process, exit_boot_ns: 1_500, pids: [21, 3].into() };
        translation.sweep(BootNs(2_500), Swept::Reaped(zombie));
        assert_eq!(reap(&mut translation, 2_000).len(), 1, "it comes later");
        let events = reap(&mut translation, 3_000);
        let times: Vec<_> = events.iter().map(|event| event.boot_ns).collect();
        assert_eq!(times, [2_500, 3_000].map(BootNs));
        let Body::ProcessReap { process, zombie_ns } = &events[0].body else { panic!("{:?}", events[0]) };
        assert_eq!((process.pid, &process.pids[..], *zombie_ns), (HostPid(21), &[21, 3][..], Some(1_000)));
        assert!(!events[0].exact, "the time is that of the sweep");
        assert_eq!(translation.swept_count["process.reap"], 1);
    }

    #[test]
    fn a_loss_is_reported_once_and_added_up_at_the_end() {
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
        assert_eq!(end["kernel"], kernel, "kinds that had none are left out");
        let creations_with_init = KindTotals { submitted: 7, lost: 1 };
        let end = translation.end(&Totals { creations_with_init, ..totals }, missed, Duration::from_secs(1));
        let end = serde_json::to_value(end).unwrap();
        assert_eq!(end["kernel"]["namespace.create"], serde_json::json!({ "submitted": 7, "lost": 1 }));
        assert_eq!(end["threads"]["created"], 6);
        assert_eq!(end["duration_ns"], 1_000_000_000);
    }
}
