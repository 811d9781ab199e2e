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
    event::{Body, Event, KernelCount, ThreadCount, Word},
    failure::Failure,
    kernel::{
        clock,
        load::{LoadError, Loaded},
        ring::Reader,
        stats::{MissedRuns, Totals},
    },
    model::Zombies,
    output::View,
    resync::{Existing, Look},
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
    /// In a recording: what looks at all that exists, at the start and after losses.
    pub look: Option<Look>,
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
    existing: Option<Existing>,
    translator: Translator,
    zombies: Zombies,
    /// Whether [`Self::zombies`] are to be kept: the kernel side does not, and their end is to be shown.
    zombies_are_ours: bool,
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
        let mut run = Run::new(self, loaded.began_boot_ns, loaded.observed_since_ns);
        run.zombies_are_ours = loaded.ends_by_function()
            && run.session.selection.event_mask() & (1 << Kind::ProcessReap as u32) != 0;
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
    fn new(mut session: Session, began_boot_ns: u64, observed_since_ns: u64) -> Self {
        Self {
            existing: session.look.take().map(Existing::new),
            session,
            translator: Translator::new(observed_since_ns),
            zombies: Zombies::default(),
            zombies_are_ours: false,
            report: Report::default(),
            seq: 0,
            last_boot_ns: began_boot_ns,
            wall_offset_ns: clock::wall_offset_ns(),
            shown: 0,
            over: false,
            failure: None,
            translated: Vec::new(),
        }
    }

    fn begin(&mut self) {
        if let Err(error) = self.session.view.begin(self.session.sink.buffer()) {
            self.fail(Failure::Output { error, unwritten: 0 });
        }
        let start = self.session.start.clone();
        self.emit(self.last_boot_ns, true, start);
        self.tell_existing();
        self.flush();
    }

    /// Looks at all that exists, and tells it.
    fn tell_existing(&mut self) {
        let Some(existing) = &mut self.existing else { return };
        match existing.tell() {
            Ok(bodies) => {
                for body in bodies {
                    self.emit(self.last_boot_ns, true, body);
                }
            }
            Err(failure) => self.fail(failure),
        }
    }

    /// Whether a loss has left it in doubt what exists, and it is time to look.
    fn is_look_due(&self, at_the_end: bool) -> bool {
        self.existing.as_ref().is_some_and(|existing| existing.is_due(at_the_end))
    }

    fn stream(
        &mut self,
        loaded: &mut Loaded,
        reader: &mut Reader,
        mut log: impl FnMut(),
    ) -> Result<(), Failure> {
        let mut looked = Instant::now();
        let mut swept = looked;
        let mut missed = MissedRuns::default();
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
                if self.session.sink.reader_has_gone() {
                    self.report.closed = true;
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
            if !more && self.is_look_due(false) {
                self.tell_existing();
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
        self.over = false;
        if self.is_look_due(true) {
            self.tell_existing();
        }
        let refusals = (missed.refusals > 0).then_some(("refusals", missed.refusals));
        let refused = self.zombies.refused();
        let zombies = (refused > 0).then_some(("process.reap.zombie_ns", refused));
        let untracked = totals.untracked.iter().copied().chain(refusals).chain(zombies);
        let untracked = untracked.map(|(what, count)| (what.into(), count)).collect();
        let end = Body::StreamEnd {
            events: by_word(&self.report.events),
            lost: by_word(&self.report.lost),
            kernel: Kind::ALL
                .iter()
                .map(|&kind| (record_event(kind), totals.kind(kind)))
                .filter(|(_, count)| count.submitted + count.lost > 0)
                .map(|(name, count)| {
                    (name.into(), KernelCount { submitted: count.submitted, lost: count.lost })
                })
                .collect(),
            threads: ThreadCount { created: totals.threads_created, ended: totals.threads_ended },
            swept: by_word(&self.report.swept),
            untracked,
            duration_ns: duration.as_nanos() as u64,
        };
        self.emit(clock::boottime_ns(), true, end);
        let written = self.session.sink.finish();
        self.judge(written);
    }

    /// Finds what has ended without a hook's word, and puts it among the records.
    fn sweep(&mut self, loaded: &mut Loaded, reader: &mut Reader, last: bool) {
        let swept = &mut self.report.swept;
        loaded.sweeper.sweep(&mut self.zombies, last, |kind, boot_ns, record| {
            *swept.entry(record_event(kind)).or_default() += 1;
            reader.insert(boot_ns, record);
        });
    }

    fn record(&mut self, header: Header, record: Record<'_>) {
        let record = if self.zombies_are_ours { self.zombies.follow(header, record) } else { record };
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
        let before = self.report.lost.get(stage).copied().unwrap_or(0);
        if total > before {
            self.report.lost.insert(stage, total);
            if let Some(existing) = &mut self.existing {
                existing.doubt();
            }
            if !self.over {
                self.emit(
                    self.last_boot_ns,
                    true,
                    Body::StreamLost { stage: stage.into(), count: total - before },
                );
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
        if let Some(existing) = &mut self.existing {
            existing.world().apply(&event);
        }
        let before = self.session.sink.buffer().len();
        match self.session.view.event(&event, self.session.sink.buffer()) {
            // A table has no line for stream.start and stream.end.
            Ok(()) if self.session.sink.buffer().len() == before => {}
            Ok(()) => {
                if self.session.sink.end_event() {
                    self.flush();
                }
            }
            Err(error) => self.fail(Failure::Output { error, unwritten: 1 }),
        }
    }

    fn flush(&mut self) {
        let written = self.session.sink.flush();
        self.judge(written);
    }

    fn judge(&mut self, written: Written) {
        match written {
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

fn by_word(counts: &BTreeMap<&'static str, u64>) -> BTreeMap<Word, u64> {
    counts.iter().map(|(&name, &count)| (name.into(), count)).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{File, OpenOptions},
        io::{self, Read as _, Seek as _},
        os::fd::AsFd,
    };

    use pidns_ebpf::abi::decode;
    use serde_json::Value;

    use super::*;
    use crate::{kernel::stats::KindTotals, output::Json, selection::Asked};

    fn run_to(output: impl AsFd + Send + 'static, events: &str, count: Option<u64>) -> Run {
        let asked = Asked { events: vec![events.to_owned()], ..Asked::default() };
        let session = Session {
            look: None,
            selection: Selection::new(&asked).unwrap(),
            view: Box::new(Json),
            sink: Sink::new(output),
            count,
            start: Body::StreamLost { stage: "stands in for the start".into(), count: 0 },
            stop: Arc::default(),
        };
        Run::new(session, 1_000, 0)
    }

    /// A run, and the file that it writes to.
    fn run(events: &str, count: Option<u64>) -> (Run, File) {
        let file = tempfile::tempfile().unwrap();
        (run_to(file.try_clone().unwrap(), events, count), file)
    }

    fn lines(mut file: File) -> Vec<Value> {
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn names(lines: &[Value]) -> Vec<&str> {
        lines.iter().map(|line| line["event"].as_str().unwrap()).collect()
    }

    /// The reaping of process 20, which is 2 in its namespace.
    fn reap(run: &mut Run, boot_ns: u64) {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>();
        let record = [
            &boot_ns.to_ne_bytes()[..],
            &72u32.to_ne_bytes(),
            &[Kind::ProcessReap as u8, 0, 2, 0],
            &5u64.to_ne_bytes(),
            &words(&[20, 1, 0, 4026532000]),
            b"sh\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            &7u64.to_ne_bytes(),
            &words(&[20, 2]),
        ]
        .concat();
        let (header, record) = decode(&record).unwrap();
        run.record(header, record);
    }

    fn conclude(run: &mut Run, totals: Totals) {
        run.conclude(totals, MissedRuns::default(), 0, Duration::from_secs(1));
    }

    #[test]
    fn events_are_numbered_and_their_times_never_go_back() {
        let (mut run, file) = run("all", None);
        run.wall_offset_ns = 1_700_000_000_000_000_000;
        run.begin();
        for boot_ns in [3_000, 2_000, 4_000] {
            reap(&mut run, boot_ns);
        }
        conclude(&mut run, Totals::default());
        let lines = lines(file);
        let reap = "process.reap";
        assert_eq!(names(&lines), ["stream.lost", reap, reap, reap, "stream.end"]);
        let seqs: Vec<_> = lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, [1, 2, 3, 4, 5]);
        let times: Vec<_> = lines[..4].iter().map(|line| line["boot_ns"].as_u64().unwrap()).collect();
        assert_eq!(times, [1_000, 3_000, 3_000, 4_000], "the start's is that of the first hook");
        assert_eq!(lines[3]["time"], "2023-11-14T22:13:20.000004000Z");
    }

    #[test]
    fn a_count_ends_the_run_and_what_follows_is_not_shown() {
        let (mut run, file) = run("process.reap", Some(2));
        run.begin();
        for boot_ns in [2_000, 3_000, 4_000, 5_000] {
            assert_eq!(run.over, boot_ns > 3_000, "before the record of {boot_ns}");
            reap(&mut run, boot_ns);
        }
        conclude(&mut run, Totals::default());
        let lines = lines(file);
        assert_eq!(names(&lines)[1..], ["process.reap", "process.reap", "stream.end"]);
        assert_eq!(lines[3]["events"]["process.reap"], 2);
    }

    #[test]
    fn what_was_not_asked_for_is_neither_shown_nor_counted() {
        let (mut run, file) = run("process.exit", Some(1));
        run.begin();
        reap(&mut run, 2_000);
        assert!(!run.over, "it does not count");
        conclude(&mut run, Totals::default());
        assert_eq!(names(&lines(file))[1..], ["stream.end"]);
    }

    #[test]
    fn a_loss_is_told_once_and_added_up_at_the_end() {
        let (mut run, file) = run("all", None);
        run.begin();
        for total in [5, 5, 7] {
            run.account("ring", total);
        }
        let kinds = BTreeMap::from([(Kind::ProcessReap as u8, KindTotals { submitted: 30, lost: 9 })]);
        let untracked = vec![("process.reap", 4), ("process.exit.threads", 1)];
        let totals = Totals { kinds, threads_created: 6, untracked, ..Totals::default() };
        let mut missed = MissedRuns::default();
        missed.add(None, 3);
        run.conclude(totals, missed, 0, Duration::from_secs(1));
        let lines = lines(file);
        let lost: Vec<_> = lines[1..lines.len() - 1]
            .iter()
            .map(|line| (line["stage"].as_str().unwrap(), line["count"].as_u64().unwrap()))
            .collect();
        assert_eq!(lost, [("ring", 5), ("ring", 2), ("ring", 2), ("table", 4), ("hook", 3)]);
        let end = lines.last().unwrap();
        assert_eq!(end["lost"], serde_json::json!({ "ring": 9, "table": 4, "hook": 3 }));
        assert_eq!(
            end["kernel"],
            serde_json::json!({ "process.reap": { "submitted": 30, "lost": 9 } }),
            "kinds that had none are left out"
        );
        assert_eq!(end["threads"]["created"], 6);
        assert_eq!(end["events"]["stream.lost"], 6, "with the line that stands in for the start");
        assert_eq!(end["duration_ns"], 1_000_000_000);
        assert_eq!(run.report.lost.values().sum::<u64>(), 16, "what --strict goes by");
    }

    #[test]
    fn of_a_full_disk_all_that_comes_after_it_is_counted_too() {
        let mut run = run_to(OpenOptions::new().write(true).open("/dev/full").unwrap(), "all", None);
        run.begin();
        assert!(run.over, "the start could not be written");
        reap(&mut run, 2_000);
        reap(&mut run, 3_000);
        conclude(&mut run, Totals::default());
        let Some(Failure::Output { error, unwritten }) = run.failure else { panic!("no failure") };
        assert_eq!((error.raw_os_error(), unwritten), (Some(libc::ENOSPC), 3));
    }

    #[test]
    fn a_reader_that_goes_ends_the_run_without_a_failure() {
        let (reader, writer) = io::pipe().unwrap();
        let mut run = run_to(writer, "all", None);
        run.begin();
        assert!(!run.over);
        drop(reader);
        reap(&mut run, 2_000);
        run.flush();
        assert!(run.over && run.report.closed);
        reap(&mut run, 3_000);
        conclude(&mut run, Totals::default());
        assert!(run.failure.is_none());
        assert_eq!(run.report.events["process.reap"], 1);
    }
}
