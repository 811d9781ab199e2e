//! A recording as a source: its events up to a moment.

use std::{
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use jiff::Timestamp;

use super::{
    Progress, Source, SourceError,
    recording::{Damage, Recording},
};
use crate::event::identity::BootNs;
use crate::event::{Body, Event};

/// Longest wait for the next event. A pipe can be silent forever, and the replay must still end when a signal
/// stops it.
const IDLE: Duration = Duration::from_millis(100);
/// Number of events that are read ahead, and passed on together.
const AHEAD: usize = 1_000;

/// The moment at which a replay stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The end of the recording.
    End,
    /// This moment of the wall clock, as the events show it.
    Time(Timestamp),
    /// This long after the first event.
    Elapsed(Duration),
}

/// The moment at which a replay stopped.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplayEnd {
    /// Times of the last event before the moment, by both clocks.
    pub last: Option<(BootNs, Timestamp)>,
    /// Time from that event to the moment.
    pub behind: Duration,
    /// Number of the stream in the file, from 1: a file can contain several recordings, one after the other.
    pub stream: u64,
    /// Whether the recording reaches the moment. False if it ends before.
    pub is_within: bool,
    /// Time of the first event, if the moment is before it.
    pub first: Option<Timestamp>,
}

/// Replays the events of a recording.
pub struct Replay<I> {
    events: I,
    until: Until,
    clock: Clock,
    moment: ReplayEnd,
    over: bool,
    /// `seq` and time of the last event.
    last: Option<(u64, Timestamp, BootNs)>,
}

/// The result of reading an event.
#[expect(
    clippy::large_enum_variant,
    reason = "it is destructured at once, and a box would cost each event an allocation"
)]
pub enum Next {
    /// An event.
    Event(Event),
    /// No event yet.
    Nothing,
    /// The end of the recording.
    End,
    /// The rest cannot be read.
    Damage(Damage),
}

/// Reads events one at a time.
pub trait EventReader {
    /// Returns the next event. With `waits`, it waits a short while for it.
    fn next(&mut self, waits: bool) -> Next;
}

impl<T: Iterator<Item = Result<Event, Damage>>> EventReader for T {
    fn next(&mut self, _: bool) -> Next {
        match Iterator::next(self) {
            Some(Ok(event)) => Next::Event(event),
            Some(Err(damage)) => Next::Damage(damage),
            None => Next::End,
        }
    }
}

/// Reads a recording without blocking: in its own thread or, if no thread can be started, in the caller's.
pub enum Reading {
    /// In its own thread.
    Ahead(Ahead),
    /// In the caller's thread. Here a silent pipe blocks.
    InTurn(Recording),
}

impl Reading {
    /// Starts reading.
    pub fn start(recording: Recording) -> Self {
        match Ahead::start(recording) {
            Ok(ahead) => Self::Ahead(ahead),
            Err(recording) => Self::InTurn(*recording),
        }
    }

    /// Number of omitted events whose kinds only a later version knows. Valid after the end was read.
    pub fn unknown(&self) -> u64 {
        match self {
            Self::Ahead(ahead) => ahead.unknown,
            Self::InTurn(recording) => recording.unknown(),
        }
    }
}

impl EventReader for Reading {
    fn next(&mut self, waits: bool) -> Next {
        match self {
            Self::Ahead(ahead) => ahead.next(waits),
            Self::InTurn(recording) => EventReader::next(recording, waits),
        }
    }
}

/// Reads ahead in its own thread.
pub struct Ahead {
    read: Receiver<Read>,
    unknown: u64,
}

/// A result of the thread.
enum Read {
    Event(Box<Result<Event, Damage>>),
    /// The end, with the number of events whose kinds are unknown.
    End(u64),
}

impl Ahead {
    /// Starts the thread. Returns the recording if none can be started.
    fn start(recording: Recording) -> Result<Self, Box<Recording>> {
        let (give, read) = mpsc::sync_channel(AHEAD);
        let (hand_over, handed_over) = mpsc::channel::<Recording>();
        let work = move || {
            let Ok(mut recording) = handed_over.recv() else { return };
            for event in recording.by_ref() {
                // The reader was dropped.
                if give.send(Read::Event(Box::new(event))).is_err() {
                    return;
                }
            }
            let _ = give.send(Read::End(recording.unknown()));
        };
        if thread::Builder::new().name("recording".to_owned()).spawn(work).is_err() {
            return Err(Box::new(recording));
        }
        hand_over.send(recording).map_err(|unsent| Box::new(unsent.0))?;
        Ok(Self { read, unknown: 0 })
    }
}

impl EventReader for Ahead {
    fn next(&mut self, waits: bool) -> Next {
        match self.read.recv_timeout(if waits { IDLE } else { Duration::ZERO }) {
            Ok(Read::Event(read)) => match *read {
                Ok(event) => Next::Event(event),
                Err(damage) => Next::Damage(damage),
            },
            Ok(Read::End(unknown)) => {
                self.unknown = unknown;
                Next::End
            }
            Err(RecvTimeoutError::Timeout) => Next::Nothing,
            Err(RecvTimeoutError::Disconnected) => Next::End,
        }
    }
}

impl<I: EventReader> Replay<I> {
    /// Replays these events until this moment.
    pub fn new(events: I, until: Until) -> Self {
        let (clock, moment) = (Clock::default(), ReplayEnd::default());
        Self { events, until, clock, moment, over: false, last: None }
    }

    /// The reader of the events.
    pub fn events(&self) -> &I {
        &self.events
    }

    /// The moment at which the replay stopped.
    pub fn end(&self) -> ReplayEnd {
        self.moment
    }

    /// Whether this event is after the moment, so that the replay must stop before it.
    fn is_beyond(&mut self, event: &Event) -> bool {
        let since = self.clock.follow(event);
        let elapsed = self.clock.elapsed;
        let is_beyond = match self.until {
            // Compare the time of the event itself. The wall clock may have been set during the recording, and this
            // time is what users see.
            Until::Time(time) => event.time > time,
            Until::Elapsed(after) => elapsed > after,
            Until::End => false,
        };
        if is_beyond {
            let behind = match (self.until, self.moment.last) {
                (Until::Time(time), Some((_, last))) => between(last, time),
                (Until::Elapsed(after), _) => since.saturating_sub(elapsed.saturating_sub(after)),
                _ => Duration::ZERO,
            };
            // The moment is before this event by the kernel's clock too, even if the wall clock was set in between.
            self.moment.behind = behind.min(since.saturating_sub(Duration::from_nanos(1)));
            self.moment.is_within = true;
            self.moment.first = Some(event.time);
        }
        is_beyond
    }

    /// Whether the moment is at or before the end of the recording.
    fn has_reached_the_moment(&self) -> bool {
        match (self.until, self.moment.last) {
            (Until::Time(time), Some((_, last))) => time <= last,
            (Until::Elapsed(after), Some(_)) => after <= self.clock.elapsed,
            _ => true,
        }
    }
}

impl<I: EventReader> Source for Replay<I> {
    fn read(&mut self, each: &mut dyn FnMut(&mut [Event])) -> Result<Progress, SourceError> {
        for number in 0..AHEAD {
            if self.over {
                return Ok(Progress::End);
            }
            // Wait only for the first event, because a pipe may deliver one now and then.
            match self.events.next(number == 0) {
                Next::Event(event) if self.is_beyond(&event) => self.over = true,
                Next::Event(mut event) => {
                    self.moment.stream += u64::from(matches!(event.body, Body::StreamStart { .. }));
                    self.moment.last = Some((event.boot_ns, event.time));
                    each(std::slice::from_mut(&mut event));
                    self.last = Some((event.seq, event.time, event.boot_ns));
                }
                Next::Nothing => return Ok(Progress::Idle),
                Next::End => {
                    self.over = true;
                    self.moment.is_within = self.has_reached_the_moment();
                }
                Next::Damage(damage) => {
                    self.over = true;
                    // The moment may be after the damage.
                    self.moment.is_within = true;
                    return Err(damage.into());
                }
            }
        }
        Ok(Progress::More)
    }

    fn stop(&mut self) {
        self.over = true;
    }

    fn now(&self) -> BootNs {
        self.last.map(|(.., boot_ns)| boot_ns).unwrap_or_default()
    }

    fn event_at(&mut self, _boot_ns: BootNs, body: Body) -> Event {
        let (seq, time, boot_ns) = self.last.unwrap_or((0, Timestamp::UNIX_EPOCH, BootNs::default()));
        Event { seq: seq + 1, time, boot_ns, exact: true, body }
    }
}

/// Measures how long a recording has been running, by its events.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    last: Option<(BootNs, Timestamp)>,
    /// Time since its first event.
    pub elapsed: Duration,
}

impl Clock {
    /// Advances to this event. Returns the time since the previous one.
    pub fn follow(&mut self, event: &Event) -> Duration {
        let since = self.last.map_or(Duration::ZERO, |(boot_ns, time)| match event.body {
            // A new stream: the machine may have rebooted in between.
            Body::StreamStart { .. } => between(time, event.time),
            _ => Duration::from_nanos(event.boot_ns.saturating_since(boot_ns)),
        });
        self.last = Some((event.boot_ns, event.time));
        self.elapsed += since;
        since
    }
}

/// Time between both, or zero if the clock was set back.
fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
