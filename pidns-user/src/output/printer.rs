//! Prints the events that pass a filter, in one view, to one output. A recorder is a printer of all events as JSON.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    View,
    sink::{Sink, Written},
};
use crate::{
    event::{Body, Token},
    filter::Filter,
    model::World,
    pipeline::{Consumer, ConsumerError, Update, Wants},
    source::replay::Clock,
};

/// Interval of checks whether the reader is still there: without writes, no write fails.
const READER_INTERVAL: Duration = Duration::from_millis(100);

/// Meaning of the `seq` of a printed event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seq {
    /// Its number among the printed events.
    Printed,
    /// Its number in the recording.
    Recorded,
}

/// Replays a recording in real time, or faster.
pub struct Pace {
    speed: f64,
    /// Waits for the duration or until the end is requested. Returns whether it was requested.
    wait: Box<dyn FnMut(Duration) -> bool + Send>,
    clock: Clock,
    pause: Duration,
    has_begun: bool,
}

impl Pace {
    /// Replays at `speed` times real time.
    pub fn new(speed: f64, wait: impl FnMut(Duration) -> bool + Send + 'static) -> Self {
        let (clock, pause) = (Clock::default(), Duration::ZERO);
        Self { speed, wait: Box::new(wait), clock, pause, has_begun: false }
    }

    /// Time to wait before the next event. The first event is not delayed.
    fn due(&mut self) -> Duration {
        let pause = std::mem::take(&mut self.pause);
        match std::mem::replace(&mut self.has_begun, true) {
            true => Duration::try_from_secs_f64(pause.as_secs_f64() / self.speed).unwrap_or(Duration::MAX),
            false => Duration::ZERO,
        }
    }
}

/// Prints events in order.
pub struct Printer {
    filter: Filter,
    view: Box<dyn View + Send>,
    sink: Sink,
    seq: Seq,
    count: Option<u64>,
    pace: Option<Pace>,
    state: PrinterState,
    /// Whether the event passed the filter before the model changed.
    was_wanted: bool,
    printed: BTreeMap<&'static str, u64>,
    /// Number of printed events that count towards `count`.
    counted: u64,
    /// Number of printed events.
    number: u64,
    reader_checked: Instant,
    /// Whether the heading was written. A file that is no recording gets none.
    has_heading: bool,
}

/// State of the printer.
#[derive(Debug)]
enum PrinterState {
    Printing,
    /// It has printed the requested number of events: only the end of the stream follows.
    Counted,
    /// The reader is gone, or the end was requested during a pause.
    Closed,
    Failed(ConsumerError),
}

impl Printer {
    /// A printer of the events that pass the filter.
    pub fn new(filter: Filter, view: Box<dyn View + Send>, sink: Sink, seq: Seq) -> Self {
        Self {
            filter,
            view,
            sink,
            seq,
            count: None,
            pace: None,
            state: PrinterState::Printing,
            was_wanted: false,
            printed: BTreeMap::new(),
            counted: 0,
            number: 0,
            reader_checked: Instant::now(),
            has_heading: false,
        }
    }

    /// Stops after this many events. `stream.*` and `snapshot.*` events do not count.
    pub fn stop_after(mut self, count: Option<u64>) -> Self {
        self.count = count;
        self
    }

    /// Replays at this pace.
    pub fn at_pace(mut self, pace: Option<Pace>) -> Self {
        self.pace = pace;
        self
    }

    /// Number of printed events by name.
    pub fn printed(&self) -> &BTreeMap<&'static str, u64> {
        &self.printed
    }

    /// Whether the reader of the output is gone. That is no failure.
    pub fn has_lost_its_reader(&self) -> bool {
        matches!(self.state, PrinterState::Closed)
    }

    /// Whether to print the event.
    fn wants(&mut self, update: &Update<'_>) -> bool {
        let container = update.container.map(AsRef::as_ref);
        match update.world {
            None => self.filter.matches(&update.event.body, container),
            Some(world) => {
                std::mem::take(&mut self.was_wanted)
                    || self.filter.matches_all(&update.event.body, container, world)
            }
        }
    }

    fn print(&mut self, update: &Update<'_>) {
        let Update { event, container, .. } = *update;
        self.number += 1;
        let name = event.body.name();
        let is_end = matches!(event.body, Body::StreamEnd { .. });
        if !is_end {
            *self.printed.entry(name).or_default() += 1;
        }
        let before = self.sink.buffer().len();
        let container = container.map(AsRef::as_ref);
        let written = match self.seq {
            Seq::Recorded => self.view.event(event.seq, event, container, self.sink.buffer()),
            Seq::Printed if is_end => {
                let mut event = event.clone();
                if let Body::StreamEnd { events, .. } = &mut event.body {
                    *events = self.printed.iter().map(|(&name, &n)| (Token::from(name), n)).collect();
                }
                self.view.event(self.number, &event, container, self.sink.buffer())
            }
            Seq::Printed => self.view.event(self.number, event, container, self.sink.buffer()),
        };
        // A table has no line for stream.start and stream.end, nor for the fork of an init that it has already shown.
        let has_line = self.sink.buffer().len() > before;
        match written {
            Ok(()) if !has_line => {}
            Ok(()) => {
                if self.sink.end_event() {
                    self.flush();
                }
            }
            Err(error) => self.state = PrinterState::Failed(ConsumerError::Output { error, unwritten: 1 }),
        }
        self.counted += u64::from(has_line && !name.starts_with("stream.") && !name.starts_with("snapshot."));
        if self.count.is_some_and(|count| self.counted >= count)
            && matches!(self.state, PrinterState::Printing)
        {
            self.state = PrinterState::Counted;
        }
    }

    fn write_heading(&mut self) {
        if !std::mem::replace(&mut self.has_heading, true)
            && let Err(error) = self.view.begin(self.sink.buffer())
        {
            self.state = PrinterState::Failed(ConsumerError::Output { error, unwritten: 0 });
        }
    }

    fn flush(&mut self) {
        let written = self.sink.flush();
        self.check_written(written);
    }

    fn check_written(&mut self, written: Written) {
        match written {
            Written::All => {}
            Written::Closed => self.state = PrinterState::Closed,
            Written::Failed { error, unwritten } => {
                self.state = PrinterState::Failed(ConsumerError::Output { error, unwritten });
            }
        }
    }

    /// Waits until the event is due. Returns whether to print it.
    fn wait(&mut self) -> bool {
        let Some(time) = self.pace.as_mut().map(Pace::due) else { return true };
        self.flush();
        if time.is_zero() {
            return matches!(self.state, PrinterState::Printing);
        }
        let is_over = self.pace.as_mut().is_some_and(|pace| (pace.wait)(time));
        if is_over && matches!(self.state, PrinterState::Printing) {
            self.state = PrinterState::Closed;
        }
        matches!(self.state, PrinterState::Printing)
    }

    fn wanted_from_here(&self) -> Wants {
        match self.state {
            PrinterState::Printing => Wants::More,
            PrinterState::Counted | PrinterState::Closed => Wants::NoMore,
            PrinterState::Failed(_) => Wants::Count,
        }
    }
}

impl Consumer for Printer {
    fn begin(&mut self) {
        // The live stream can wait long for its first event.
        if self.seq == Seq::Printed {
            self.write_heading();
        }
    }

    fn prepare(&mut self, update: &Update<'_>) {
        // An exited process is gone after the event; a forked one did not exist before.
        let container = update.container.map(AsRef::as_ref);
        self.was_wanted =
            update.world.is_some_and(|world| self.filter.matches_all(&update.event.body, container, world));
    }

    fn update(&mut self, update: &Update<'_>) -> Wants {
        self.write_heading();
        if let Some(pace) = &mut self.pace {
            pace.pause += pace.clock.follow(update.event);
        }
        let is_wanted = self.wants(update);
        match &mut self.state {
            _ if !is_wanted => {}
            PrinterState::Printing => {
                if self.wait() {
                    self.print(update);
                }
            }
            PrinterState::Counted => self.print(update),
            PrinterState::Closed => {}
            // Count the events that are lost with the failure, except `stream.*`.
            PrinterState::Failed(ConsumerError::Output { unwritten, .. }) => {
                *unwritten += u64::from(!update.event.body.name().starts_with("stream."));
            }
            PrinterState::Failed(_) => {}
        }
        self.wanted_from_here()
    }

    fn tick(&mut self, _: Option<&World>) -> Wants {
        if matches!(self.state, PrinterState::Printing | PrinterState::Counted) {
            self.flush();
        }
        if matches!(self.state, PrinterState::Printing) && self.reader_checked.elapsed() >= READER_INTERVAL {
            self.reader_checked = Instant::now();
            if self.sink.reader_has_gone() {
                self.state = PrinterState::Closed;
            }
        }
        self.wanted_from_here()
    }

    fn finish(&mut self) -> Result<(), ConsumerError> {
        match std::mem::replace(&mut self.state, PrinterState::Closed) {
            PrinterState::Failed(error) => return Err(error),
            PrinterState::Closed => return Ok(()),
            state @ (PrinterState::Printing | PrinterState::Counted) => self.state = state,
        }
        let written = self.sink.finish();
        self.check_written(written);
        match std::mem::replace(&mut self.state, PrinterState::Counted) {
            PrinterState::Failed(error) => Err(error),
            state => {
                self.state = state;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{File, OpenOptions},
        io::{self, Read as _, Seek as _},
        os::fd::AsFd,
    };

    use jiff::Timestamp;
    use serde_json::Value;

    use super::*;
    use crate::{
        event::identity::{BootNs, HostPid, NsInum},
        event::{Event, KernelCount, Process, ThreadCount},
        filter::FilterArgs,
        output::Json,
    };

    fn printer(output: impl AsFd + Send + 'static, events: &str, count: Option<u64>) -> Printer {
        let args = FilterArgs { events: vec![events.to_owned()], ..FilterArgs::default() };
        let filter = Filter::new(&args, |_| Err(String::new())).unwrap();
        Printer::new(filter, Box::new(Json), Sink::new(output), Seq::Printed).stop_after(count)
    }

    fn event(body: Body) -> Event {
        Event { seq: 70, time: Timestamp::UNIX_EPOCH, boot_ns: BootNs(5), exact: true, body }
    }

    fn reap() -> Event {
        let process = Process {
            pid: HostPid(20),
            pids: vec![20, 2],
            comm: "sh".into(),
            start_boot_ns: BootNs(5),
            ppid: Some(HostPid(1)),
            uid: 0,
            ns: NsInum(4026532000),
            container: None,
        };
        event(Body::ProcessReap { process, zombie_ns: None })
    }

    fn end() -> Event {
        event(Body::StreamEnd {
            events: BTreeMap::new(),
            lost: BTreeMap::new(),
            kernel: BTreeMap::from([("process.reap".into(), KernelCount { submitted: 4, lost: 0 })]),
            threads: ThreadCount { created: 0, ended: 0 },
            swept: BTreeMap::new(),
            untracked: BTreeMap::new(),
            model: None,
            duration_ns: 1,
        })
    }

    fn give(printer: &mut Printer, event: &Event) -> Wants {
        printer.update(&Update { event, container: None, changes: &[], world: None })
    }

    fn lines(mut file: File) -> Vec<Value> {
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn printed_events_are_renumbered_and_counted_in_stream_end() {
        let file = tempfile::tempfile().unwrap();
        let mut printer = printer(file.try_clone().unwrap(), "process.reap", None);
        let lost = event(Body::StreamLost { stage: "ring".into(), count: 1 });
        for event in [&lost, &reap(), &reap(), &end()] {
            assert_eq!(give(&mut printer, event), Wants::More);
        }
        printer.finish().unwrap();
        let lines = lines(file);
        let seqs: Vec<_> = lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, [1, 2, 3, 4]);
        assert_eq!(lines[3]["events"], serde_json::json!({ "process.reap": 2, "stream.lost": 1 }));
    }

    #[test]
    fn only_stream_end_follows_after_the_count() {
        let file = tempfile::tempfile().unwrap();
        let mut printer = printer(file.try_clone().unwrap(), "process.reap", Some(2));
        let wants: Vec<_> = (0..2).map(|_| give(&mut printer, &reap())).collect();
        assert_eq!(wants, [Wants::More, Wants::NoMore]);
        give(&mut printer, &end());
        printer.finish().unwrap();
        let lines = lines(file);
        assert_eq!((lines.len(), &lines[2]["events"]["process.reap"]), (3, &Value::from(2)));
    }

    #[test]
    fn filtered_events_are_neither_printed_nor_counted() {
        let file = tempfile::tempfile().unwrap();
        let mut printer = printer(file.try_clone().unwrap(), "process.exit", Some(1));
        assert_eq!(give(&mut printer, &reap()), Wants::More, "it does not count");
        give(&mut printer, &end());
        printer.finish().unwrap();
        assert_eq!(lines(file).len(), 1);
    }

    #[test]
    fn events_lost_on_a_full_disk_are_counted() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut printer = printer(full, "all", None);
        give(&mut printer, &reap());
        assert_eq!(printer.tick(None), Wants::Count);
        give(&mut printer, &reap());
        give(&mut printer, &reap());
        give(&mut printer, &end());
        let Err(ConsumerError::Output { error, unwritten }) = printer.finish() else { panic!("no failure") };
        assert_eq!((error.raw_os_error(), unwritten), (Some(libc::ENOSPC), 3));
    }

    #[test]
    fn closed_reader_ends_the_stream_without_failure() {
        let (reader, writer) = io::pipe().unwrap();
        let mut printer = printer(writer, "all", None);
        drop(reader);
        assert_eq!(give(&mut printer, &reap()), Wants::More);
        assert_eq!(printer.tick(None), Wants::NoMore);
        give(&mut printer, &reap());
        assert!(printer.finish().is_ok() && printer.has_lost_its_reader());
        assert_eq!(printer.printed()["process.reap"], 1);
    }
}
