//! `pidns-trace replay`: a recording printed as the live stream would have been.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use rustix::stdio::stdout;

use super::{ending::Ending, notices::Notices, recorded::Clock, trace};
use crate::{
    cli::ReplayArgs,
    commands::failure::Failure,
    event::container::Container,
    event::{Body, Event},
    filter::{Filter, FilterArgs, inner_namespace},
    model::World,
    output::sink::{Sink, Written},
    source::recording::{Damage, Recording},
    text::Count,
};

/// How long the next event is waited for until what was printed before is written out, and the end looked for.
const IDLE: Duration = Duration::from_millis(100);
/// Events that are read ahead.
const AHEAD: usize = 1_000;

/// Prints what the filters let through, up to the end or the damage.
pub fn run(args: &ReplayArgs) -> Result<ExitCode, Failure> {
    let ReplayArgs { file, speed, duration, count, quiet, filters, view } = args;
    let filter = Filter::of_recording(&FilterArgs::of(filters, false))?;
    let recording = Recording::open(file).map_err(|error| Failure::File { file: file.clone(), error })?;
    let mut view = trace::view(view);
    let mut sink = Sink::new(stdout());
    let ending = Ending::listen(sink.progress())?;
    let into_memory = |error| Failure::Io { what: "write to memory", error };
    view.begin(sink.buffer()).map_err(into_memory)?;
    let mut host = Host { filter, world: World::default() };
    let mut clock = Clock::default();
    let mut pause = Duration::ZERO;
    let mut began = false;
    let mut shown = 0;
    let mut unknown = 0;
    let events = read_ahead(recording)?;
    while !ending.comes_within(Duration::ZERO) {
        let event = match events.recv_timeout(IDLE) {
            Ok(Read::Event(event)) => *event,
            Ok(Read::Damage(damage)) => {
                // What stands before the damage goes first.
                return match flush(&mut sink)? {
                    Reader::Gone => Ok(ExitCode::SUCCESS),
                    Reader::There => Err(Failure::Recording { file: file.clone(), damage }),
                };
            }
            Ok(Read::End { unknown: left_out }) => {
                unknown = left_out;
                break;
            }
            // Who reads a recording while it is made sees what there is.
            Err(RecvTimeoutError::Timeout) => match flush(&mut sink)? {
                Reader::Gone => return Ok(ExitCode::SUCCESS),
                Reader::There => continue,
            },
            Err(RecvTimeoutError::Disconnected) => break,
        };
        pause += clock.follow(&event);
        if duration.is_some_and(|duration| clock.elapsed > duration) {
            break;
        }
        let Some(container) = host.shows(&event) else { continue };
        let pause = std::mem::take(&mut pause);
        let time = match speed {
            // For the first that is shown nobody waits.
            Some(speed) if began => {
                if flush(&mut sink)? == Reader::Gone {
                    return Ok(ExitCode::SUCCESS);
                }
                Duration::try_from_secs_f64(pause.as_secs_f64() / speed).unwrap_or(Duration::MAX)
            }
            _ => Duration::ZERO,
        };
        if ending.comes_within(time) {
            break;
        }
        view.event(&event, container.as_deref(), sink.buffer()).map_err(into_memory)?;
        if sink.end_event() && flush(&mut sink)? == Reader::Gone {
            return Ok(ExitCode::SUCCESS);
        }
        began = true;
        // As live, neither the frame of the stream counts nor what exists already.
        let name = event.body.name();
        shown += u64::from(!name.starts_with("stream.") && !name.starts_with("snapshot."));
        if count.is_some_and(|count| shown >= count) {
            break;
        }
    }
    flush(&mut sink)?;
    if unknown > 0 {
        let left_out = Count(unknown, "event", "events");
        Notices::new(*quiet)
            .notify(format_args!("{}: left out {left_out} that only a later version knows", file.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// What is read of a recording.
enum Read {
    Event(Box<Event>),
    Damage(Damage),
    /// With how many events of kinds that are not known here.
    End {
        unknown: u64,
    },
}

/// Reads in a thread of its own: a pipe can have nothing to say for ever, and then the end must come all the same.
fn read_ahead(mut recording: Recording) -> Result<Receiver<Read>, Failure> {
    let (tell, told) = mpsc::sync_channel(AHEAD);
    let read = move || {
        for event in recording.by_ref() {
            let read = match event {
                Ok(event) => Read::Event(Box::new(event)),
                Err(damage) => Read::Damage(damage),
            };
            // Nobody wants more.
            if tell.send(read).is_err() {
                return;
            }
        }
        let _ = tell.send(Read::End { unknown: recording.unknown() });
    };
    let io = |error| Failure::Io { what: "start a thread that reads", error };
    thread::Builder::new().name("recording".to_owned()).spawn(read).map_err(io)?;
    Ok(told)
}

/// Whether anybody reads on. Who has gone has seen enough.
#[derive(PartialEq, Eq)]
enum Reader {
    There,
    Gone,
}

fn flush(sink: &mut Sink) -> Result<Reader, Failure> {
    match sink.flush() {
        Written::All => Ok(Reader::There),
        Written::Closed => Ok(Reader::Gone),
        Written::Failed { error, unwritten } => Err(Failure::Output { error, unwritten }),
    }
}

/// What is chosen, and what exists by the events so far.
struct Host {
    filter: Filter,
    world: World,
}

impl Host {
    /// Follows an event; whether it is shown, and with which container.
    fn shows(&mut self, event: &Event) -> Option<Option<Arc<Container>>> {
        if matches!(event.body, Body::StreamStart { .. }) {
            // Of another recording behind the first: what exists is told anew.
            self.world = World::default();
        }
        let was_in = self.container(&event.body);
        let was_wanted = self.filter.matches_all(&event.body, was_in.as_deref(), &self.world);
        self.world.apply(event);
        let container = self.container(&event.body).or(was_in);
        let is_wanted = was_wanted || self.filter.matches_all(&event.body, container.as_deref(), &self.world);
        is_wanted.then_some(container)
    }

    /// The container that an event belongs to, as far as the recording tells by then.
    fn container(&self, body: &Body) -> Option<Arc<Container>> {
        let told = body.namespace().and_then(|ns| ns.container.clone());
        told.or_else(|| self.world.namespace(inner_namespace(body)?)?.namespace.container.clone())
    }
}
