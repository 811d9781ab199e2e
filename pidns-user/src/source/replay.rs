//! A recording as a source: its events, up to a moment of it.

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

/// How long the next event is waited for: a pipe can be silent for ever, and the end must come all the same.
const IDLE: Duration = Duration::from_millis(100);
/// Events that are read ahead, and handed over together.
const AHEAD: usize = 1_000;

/// Where a recording is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// At its end.
    End,
    /// At this moment by the wall clock, as the events show it.
    Time(Timestamp),
    /// So long after its first event.
    Elapsed(Duration),
}

/// The moment at which a recording was left.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment {
    /// The last event before it, by both clocks.
    pub last: Option<(BootNs, Timestamp)>,
    /// How long it is behind that event.
    pub behind: Duration,
    /// In which of the file's streams it is, from 1: recordings can stand one behind the other in a file.
    pub stream: u64,
    /// Whether the recording goes on, or went on, beyond it. (One that ends before the moment has none.)
    pub is_within: bool,
    /// Of a moment before the first event, when that was.
    pub first: Option<Timestamp>,
}

/// Events of a recording.
pub struct Replay<I> {
    events: I,
    until: Until,
    clock: Clock,
    moment: Moment,
    over: bool,
    /// `seq` and time of the last event.
    last: Option<(u64, Timestamp, BootNs)>,
}

/// What a reader of events has for now.
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart at once, and a box would cost each event an allocation"
)]
pub enum Next {
    /// An event.
    Event(Event),
    /// Nothing yet.
    Nothing,
    /// The end.
    End,
    /// The rest cannot be read.
    Damage(Damage),
}

/// Reads events one by one.
pub trait EventReader {
    /// The next one; with `waits` it is waited for a short while.
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

/// Reads a recording for who wants no event to be waited for: ahead, or where no thread can be started, in the caller's.
pub enum Reading {
    /// In a thread of its own.
    Ahead(Ahead),
    /// In the caller's thread: a silent pipe is waited for.
    InTurn(Recording),
}

impl Reading {
    /// Begins to read.
    pub fn start(recording: Recording) -> Self {
        match Ahead::start(recording) {
            Ok(ahead) => Self::Ahead(ahead),
            Err(recording) => Self::InTurn(*recording),
        }
    }

    /// How many events were left out that only a later version knows, where it was read to its end.
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

/// Reads ahead in a thread of its own.
pub struct Ahead {
    read: Receiver<Read>,
    unknown: u64,
}

/// What the thread has read.
enum Read {
    Event(Box<Result<Event, Damage>>),
    /// The end, with how many events of kinds that are not known here.
    End(u64),
}

impl Ahead {
    /// Starts the thread. Gives the recording back where none can be started.
    fn start(recording: Recording) -> Result<Self, Box<Recording>> {
        let (give, read) = mpsc::sync_channel(AHEAD);
        let (hand_over, handed_over) = mpsc::channel::<Recording>();
        let work = move || {
            let Ok(mut recording) = handed_over.recv() else { return };
            for event in recording.by_ref() {
                // Nothing more is wanted.
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
    /// Up to this moment.
    pub fn new(events: I, until: Until) -> Self {
        let (clock, moment) = (Clock::default(), Moment::default());
        Self { events, until, clock, moment, over: false, last: None }
    }

    /// What its events are read from.
    pub fn events(&self) -> &I {
        &self.events
    }

    /// The moment at which it was left.
    pub fn moment(&self) -> Moment {
        self.moment
    }

    /// Whether the moment is before this event, which is then none of it.
    fn is_beyond(&mut self, event: &Event) -> bool {
        let since = self.clock.follow(event);
        let elapsed = self.clock.elapsed;
        let is_beyond = match self.until {
            // Not by the kernel's clock from the first event on: this one may have been set since, and is what is shown.
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
            // Before this event by the kernel's clock too, however far the other was set.
            self.moment.behind = behind.min(since.saturating_sub(Duration::from_nanos(1)));
            self.moment.is_within = true;
            self.moment.first = Some(event.time);
        }
        is_beyond
    }

    /// Whether the moment is the end of the recording, or before it.
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
            // Behind the first one only what is there already: a pipe may have one now and then.
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
                    // The moment may be behind the damage.
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

/// How long a recording has gone on, by its events.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    last: Option<(BootNs, Timestamp)>,
    /// Since its first event.
    pub elapsed: Duration,
}

impl Clock {
    /// Goes on to this event: how long that is since the one before.
    pub fn follow(&mut self, event: &Event) -> Duration {
        let since = self.last.map_or(Duration::ZERO, |(boot_ns, time)| match event.body {
            // Of another stream: the machine may have been started anew between the two.
            Body::StreamStart { .. } => between(time, event.time),
            _ => Duration::from_nanos(event.boot_ns.saturating_since(boot_ns)),
        });
        self.last = Some((event.boot_ns, event.time));
        self.elapsed += since;
        since
    }
}

/// Zero where the clock was set back.
fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
