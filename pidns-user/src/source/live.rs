//! A run of the live stream: from the ring buffer to the output, in one thread.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use pidns_ebpf::abi::{Header, Kind, Record};

use crate::{
    commands::failure::Failure,
    container::ContainerTracker,
    event::{Body, KernelCount, ThreadCount, Token},
    filter::{Filter, record_event},
    kernel::zombies::Zombies,
    kernel::{
        clock,
        load::{LoadError, Loaded},
        ring::Reader,
        stats::{MissedRuns, Totals},
    },
    output::View,
    output::sink::Sink,
    pipeline::printer::Teller,
    pipeline::resync::Existing,
    source::translate::{Translated, Translator},
};

/// How often losses are looked for.
const LOSS_INTERVAL: Duration = Duration::from_millis(100);
/// How often ends that no hook told are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// How long records that the kernel has counted are waited for at the end.
const LAST_RECORDS: Duration = Duration::from_millis(200);

/// What a run is made of.
pub struct Session {
    /// What to show.
    pub filter: Filter,
    /// How to show it.
    pub view: Box<dyn View + Send>,
    /// Where.
    pub sink: Sink,
    /// Events to stop after.
    pub count: Option<u64>,
    /// The first event.
    pub start: Body,
    /// What exists, where that is followed: in a recording, say.
    pub existing: Option<Existing>,
    /// What finds the containers of namespaces; none where the numbers of processes are not those of this /proc.
    pub containers: Option<ContainerTracker>,
    /// Set when the run is to end.
    pub stop: Arc<AtomicBool>,
}

/// How a run went.
#[derive(Debug, Default)]
pub struct Report {
    /// Events printed, by name.
    pub events: BTreeMap<&'static str, u64>,
    /// Events lost, by stage.
    pub lost: BTreeMap<&'static str, u64>,
    /// How long it ran.
    pub duration: Duration,
}

/// The state of a run.
struct Run {
    teller: Teller,
    /// Events to stop after.
    count: Option<u64>,
    translator: Translator,
    zombies: Zombies,
    lost: BTreeMap<&'static str, u64>,
    swept: BTreeMap<&'static str, u64>,
    shown: u64,
    /// Kept for its memory.
    translated: Vec<Translated>,
}

impl Session {
    /// Runs to the end.
    pub fn run(self, mut loaded: Loaded, mut reader: Reader, log: impl FnMut()) -> Result<Report, Failure> {
        let Self { filter, view, sink, count, start, existing, containers, stop } = self;
        let began = Instant::now();
        let asks_for_reaps = filter.event_mask() & (1 << Kind::ProcessReap as u32) != 0;
        let zombies_are_ours = loaded.ends_by_function() && (asks_for_reaps || existing.is_some());
        let teller = Teller::new(filter, view, sink, existing, containers, loaded.began_boot_ns);
        let mut run = Run::new(teller, count, loaded.observed_since_ns);
        run.zombies = Zombies::new(zombies_are_ours);
        run.begin(start);
        if let Err(failure) = run.stream(&mut loaded, &mut reader, &stop, log) {
            run.teller.fail(failure);
        }
        run.end(loaded, &mut reader, began);
        let Run { teller: Teller { events, failure, .. }, lost, .. } = run;
        match failure {
            Some(failure) => Err(failure),
            None => Ok(Report { events, lost, duration: began.elapsed() }),
        }
    }
}

impl Run {
    fn new(teller: Teller, count: Option<u64>, observed_since_ns: u64) -> Self {
        Self {
            teller,
            count,
            translator: Translator::new(observed_since_ns),
            zombies: Zombies::new(false),
            lost: BTreeMap::new(),
            swept: BTreeMap::new(),
            shown: 0,
            translated: Vec::new(),
        }
    }

    fn begin(&mut self, start: Body) {
        self.teller.begin();
        self.teller.tell_now(start);
        self.teller.look_around();
        self.ask_after_zombies();
        self.teller.flush();
    }

    fn stream(
        &mut self,
        loaded: &mut Loaded,
        reader: &mut Reader,
        stop: &AtomicBool,
        mut log: impl FnMut(),
    ) -> Result<(), Failure> {
        let mut looked = Instant::now();
        let mut swept = looked;
        let mut missed = MissedRuns::default();
        let mut more = false;
        while !self.teller.over && !stop.load(Ordering::Acquire) {
            if !more {
                reader
                    .wait(LOSS_INTERVAL)
                    .map_err(|error| Failure::Io { what: "wait for the ring buffer", error })?;
            }
            self.teller.read_wall_clock();
            more = reader.drain(|header, record| self.record(header, record));
            log();
            if looked.elapsed() >= LOSS_INTERVAL {
                looked = Instant::now();
                if self.teller.sink.reader_has_gone() {
                    self.teller.closed = true;
                    break;
                }
                // A second program may be about to take over what was counted just now: judge what the last look saw.
                let before = std::mem::replace(&mut missed, loaded.missed_runs());
                self.losses(before, &read(loaded)?);
            }
            // Not while records are waiting that may tell what a look would find.
            if !more && swept.elapsed() >= SWEEP_INTERVAL {
                swept = Instant::now();
                self.sweep(loaded, reader, false);
            }
            if !more {
                self.teller.look_again(false);
                self.ask_after_zombies();
            }
            self.teller.flush();
        }
        Ok(())
    }

    /// Takes the hooks away, then everything that they left.
    fn end(&mut self, mut loaded: Loaded, reader: &mut Reader, began: Instant) {
        let missed = loaded.missed_runs();
        loaded.detach();
        // Programs that were running may still send; the kernel's count says when all is here.
        let deadline = Instant::now() + LAST_RECORDS;
        let mut totals = Totals::default();
        loop {
            let more = reader.drain(|header, record| self.record(header, record));
            match read(&loaded) {
                Ok(read) => totals = read,
                Err(failure) => self.teller.fail(failure),
            }
            let sent: u64 = totals.kinds.values().map(|kind| kind.submitted).sum();
            if !more && (reader.received() >= sent || Instant::now() > deadline) {
                break;
            }
            if !more {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        reader.finish(|header, record| self.record(header, record));
        self.sweep(&mut loaded, reader, true);
        reader.finish(|header, record| self.record(header, record));
        self.conclude(totals, missed, reader.malformed(), began.elapsed());
    }

    /// Adds everything up, and writes the end.
    fn conclude(&mut self, totals: Totals, missed: MissedRuns, malformed: u64, duration: Duration) {
        self.account("ring", totals.lost());
        self.account("table", totals.unseen());
        self.account("hook", missed.lost(&totals));
        self.account("malformed", malformed);
        self.teller.over = false;
        self.teller.look_again(true);
        let refusals = (missed.refusals > 0).then_some(("refusals", missed.refusals));
        let refused = self.zombies.refused();
        let zombies = (refused > 0).then_some(("process.reap.zombie_ns", refused));
        let untracked = totals.untracked.iter().copied().chain(refusals).chain(zombies);
        let untracked = untracked.map(|(what, count)| (what.into(), count)).collect();
        let end = Body::StreamEnd {
            events: by_word(&self.teller.events),
            lost: by_word(&self.lost),
            kernel: Kind::ALL
                .iter()
                .map(|&kind| (record_event(kind), totals.kind(kind)))
                .filter(|(_, count)| count.submitted + count.lost > 0)
                .map(|(name, count)| {
                    (name.into(), KernelCount { submitted: count.submitted, lost: count.lost })
                })
                .collect(),
            threads: ThreadCount { created: totals.threads_created, ended: totals.threads_ended },
            swept: by_word(&self.swept),
            untracked,
            model: self.teller.existing.as_mut().map(Existing::count),
            duration_ns: duration.as_nanos() as u64,
        };
        self.teller.tell(clock::boottime_ns(), true, end);
        self.teller.finish();
    }

    /// Finds what has ended without a hook's word, and puts it among the records.
    fn sweep(&mut self, loaded: &mut Loaded, reader: &mut Reader, last: bool) {
        let swept = &mut self.swept;
        loaded.sweeper.sweep(&mut self.zombies, last, |kind, boot_ns, record| {
            *swept.entry(record_event(kind)).or_default() += 1;
            reader.insert(boot_ns, record);
        });
    }

    fn record(&mut self, header: Header, record: Record<'_>) {
        let record = self.zombies.follow(header, record);
        let mut translated = std::mem::take(&mut self.translated);
        self.translator.translate(header, record, |event| translated.push(event));
        for event in &translated {
            self.teller.take_note(&event.body);
        }
        for Translated { boot_ns, exact, body } in translated.drain(..) {
            // What follows a failure is told all the same, to be counted.
            if (!self.teller.over || self.teller.failure.is_some()) && self.teller.tell(boot_ns, exact, body)
            {
                self.shown += 1;
                self.teller.over |= self.count.is_some_and(|count| self.shown >= count);
            }
        }
        self.translated = translated;
    }

    /// No hook may ever tell of the reaping of a zombie that was there before: those that a look found are asked after.
    fn ask_after_zombies(&mut self) {
        for process in self.teller.found_zombies.drain(..) {
            self.zombies.found(&process);
        }
    }

    fn losses(&mut self, missed: MissedRuns, totals: &Totals) {
        self.account("ring", totals.lost());
        self.account("table", totals.unseen());
        self.account("hook", missed.lost(totals));
        if totals.untracked.iter().any(|(what, _)| *what == "process.exit.threads") {
            self.translator.peaks_are_incomplete();
        }
    }

    /// Reports what was lost at this stage since the last time.
    fn account(&mut self, stage: &'static str, total: u64) {
        let before = self.lost.get(stage).copied().unwrap_or(0);
        if total > before {
            self.lost.insert(stage, total);
            self.teller.doubt();
            if !self.teller.over {
                self.teller.tell_now(Body::StreamLost { stage: stage.into(), count: total - before });
            }
        }
    }
}

fn read(loaded: &Loaded) -> Result<Totals, Failure> {
    Ok(loaded.stats.read().map_err(LoadError::from)?)
}

fn by_word(counts: &BTreeMap<&'static str, u64>) -> BTreeMap<Token, u64> {
    counts.iter().map(|(&name, &count)| (name.into(), count)).collect()
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
