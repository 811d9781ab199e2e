//! A run of the live stream: from the ring buffer to the output, in one thread.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use pidns_ebpf::abi::{Header, Kind, Record};

use crate::{
    event::{Body, Event, KernelCount, ThreadCount},
    failure::Failure,
    kernel::{
        clock,
        load::{LoadError, Loaded},
        ring::Reader,
        stats::Totals,
    },
    output::View,
    selection::{Selection, record_event},
    sink::{Sink, Written},
    translate::{Translated, Translator},
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
    pub selection: Selection,
    /// How to show it.
    pub view: Box<dyn View + Send>,
    /// Where.
    pub sink: Sink,
    /// Events to stop after.
    pub count: Option<u64>,
    /// The first event.
    pub start: Body,
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
    /// Ends found by a look, by event.
    pub swept: BTreeMap<&'static str, u64>,
    /// Whether the output's reader has gone.
    pub closed: bool,
    /// How long it ran.
    pub duration: Duration,
}

/// The state of a run.
struct Run {
    session: Session,
    translator: Translator,
    report: Report,
    seq: u64,
    last_boot_ns: u64,
    wall_offset_ns: i128,
    shown: u64,
    over: bool,
    failure: Option<Failure>,
    /// Kept for its memory.
    translated: Vec<Translated>,
}

impl Session {
    /// Runs to the end.
    pub fn run(self, mut loaded: Loaded, mut reader: Reader, log: impl FnMut()) -> Result<Report, Failure> {
        let began = Instant::now();
        let mut run = Run {
            translator: Translator::new(loaded.observed_since_ns),
            report: Report::default(),
            seq: 0,
            last_boot_ns: loaded.began_boot_ns,
            wall_offset_ns: clock::wall_offset_ns(),
            shown: 0,
            over: false,
            failure: None,
            translated: Vec::new(),
            session: self,
        };
        run.begin();
        if let Err(failure) = run.stream(&mut loaded, &mut reader, log) {
            run.fail(failure);
        }
        run.end(loaded, &mut reader, began);
        run.report.duration = began.elapsed();
        match run.failure {
            Some(failure) => Err(failure),
            None => Ok(run.report),
        }
    }
}

impl Run {
    fn begin(&mut self) {
        if let Err(error) = self.session.view.begin(self.session.sink.buffer()) {
            self.fail(Failure::Output { error, unwritten: 0 });
        }
        let start = self.session.start.clone();
        self.emit(self.last_boot_ns, true, start);
        self.flush();
    }

    fn stream(
        &mut self,
        loaded: &mut Loaded,
        reader: &mut Reader,
        mut log: impl FnMut(),
    ) -> Result<(), Failure> {
        let mut looked = Instant::now();
        let mut swept = looked;
        let mut more = false;
        while !self.over && !self.session.stop.load(Ordering::Acquire) {
            if !more {
                reader
                    .wait(LOSS_INTERVAL)
                    .map_err(|error| Failure::Io { what: "wait for the ring buffer", error })?;
            }
            self.wall_offset_ns = clock::wall_offset_ns();
            more = reader.drain(|header, record| self.record(header, record));
            log();
            if looked.elapsed() >= LOSS_INTERVAL {
                looked = Instant::now();
                self.losses(loaded, &read(loaded)?);
            }
            if swept.elapsed() >= SWEEP_INTERVAL {
                swept = Instant::now();
                self.sweep(loaded, reader, false);
            }
            self.flush();
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
                Err(failure) => self.fail(failure),
            }
            let sent: u64 = totals.kinds.values().map(|kind| kind.submitted).sum();
            if !more && (reader.received() >= sent || Instant::now() > deadline) {
                break;
            }
            if !more {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.sweep(&mut loaded, reader, true);
        reader.finish(|header, record| self.record(header, record));
        self.account("ring", totals.lost());
        self.account("table", totals.unseen());
        self.account("hook", missed);
        self.account("malformed", reader.malformed());
        self.over = false;
        let end = Body::StreamEnd {
            events: self.report.events.clone(),
            lost: self.report.lost.clone(),
            kernel: Kind::ALL
                .iter()
                .map(|&kind| (record_event(kind), totals.kind(kind)))
                .filter(|(_, count)| count.submitted + count.lost > 0)
                .map(|(name, count)| (name, KernelCount { submitted: count.submitted, lost: count.lost }))
                .collect(),
            threads: ThreadCount { created: totals.threads_created, ended: totals.threads_ended },
            swept: self.report.swept.clone(),
            untracked: totals.untracked.into_iter().collect(),
            duration_ns: began.elapsed().as_nanos() as u64,
        };
        self.emit(clock::boottime_ns(), true, end);
        self.flush();
    }

    /// Finds what has ended without a hook's word, and puts it among the records.
    fn sweep(&mut self, loaded: &mut Loaded, reader: &mut Reader, last: bool) {
        loaded.sweeper.sweep(last, |kind, boot_ns, record| {
            *self.report.swept.entry(record_event(kind)).or_default() += 1;
            reader.insert(boot_ns, record);
        });
    }

    fn record(&mut self, header: Header, record: Record<'_>) {
        let mut translated = std::mem::take(&mut self.translated);
        self.translator.translate(header, record, |event| translated.push(event));
        for Translated { boot_ns, exact, body } in translated.drain(..) {
            if !self.session.selection.shows(&body) {
                continue;
            }
            if let Some(Failure::Output { unwritten, .. }) = &mut self.failure {
                *unwritten += 1;
            } else if !self.over {
                self.emit(boot_ns, exact, body);
                self.shown += 1;
                self.over |= self.session.count.is_some_and(|count| self.shown >= count);
            }
        }
        self.translated = translated;
    }

    fn losses(&mut self, loaded: &Loaded, totals: &Totals) {
        self.account("ring", totals.lost());
        self.account("table", totals.unseen());
        self.account("hook", loaded.missed_runs());
        if totals.untracked.iter().any(|(what, _)| *what == "process.exit.threads") {
            self.translator.peaks_are_incomplete();
        }
    }

    /// Reports what was lost at this stage since the last time.
    fn account(&mut self, stage: &'static str, total: u64) {
        let before = self.report.lost.get(stage).copied().unwrap_or(0);
        if total > before {
            self.report.lost.insert(stage, total);
            if !self.over {
                self.emit(self.last_boot_ns, true, Body::StreamLost { stage, count: total - before });
            }
        }
    }

    fn emit(&mut self, boot_ns: u64, exact: bool, body: Body) {
        if self.failure.is_some() || self.report.closed {
            return;
        }
        self.seq += 1;
        // A record that was held up between its time and its place for longer than the others were made to wait for
        // it comes too late to stand where it belongs; events are in order all the same.
        let boot_ns = boot_ns.max(self.last_boot_ns);
        self.last_boot_ns = boot_ns;
        let time = i128::from(boot_ns) + self.wall_offset_ns;
        let event = Event {
            seq: self.seq,
            time: Timestamp::from_nanosecond(time).unwrap_or(Timestamp::UNIX_EPOCH),
            boot_ns,
            exact,
            body,
        };
        if !matches!(event.body, Body::StreamEnd { .. }) {
            *self.report.events.entry(event.body.name()).or_default() += 1;
        }
        match self.session.view.event(&event, self.session.sink.buffer()) {
            Ok(()) => {
                if self.session.sink.end_event() {
                    self.flush();
                }
            }
            Err(error) => self.fail(Failure::Output { error, unwritten: 1 }),
        }
    }

    fn flush(&mut self) {
        match self.session.sink.flush() {
            Written::All => {}
            Written::Closed => {
                self.report.closed = true;
                self.over = true;
            }
            Written::Failed { error, unwritten } => self.fail(Failure::Output { error, unwritten }),
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
        self.over = true;
    }
}

fn read(loaded: &Loaded) -> Result<Totals, Failure> {
    Ok(loaded.stats.read().map_err(LoadError::from)?)
}
