//! `--from FILE --at TIME`: what existed at a moment of a recording.

use std::{path::Path, process::ExitCode, time::Duration};

use jiff::Timestamp;

use super::notices::Notices;
use crate::{
    cli::{Memory, Moment, SourceArgs},
    commands::failure::Failure,
    event::snapshot::{self, Snapshot},
    event::{Body, Event},
    explanation::{Subject, Timeline},
    model::{DeadProcess, HISTORY_LIMIT, World},
    source::recording::{Damage, Recording},
};

/// What existed, and what is remembered of what had.
pub(super) struct Recorded {
    /// At the moment.
    pub(super) snapshot: Snapshot,
    /// Processes that were gone by then, the last to go first.
    pub(super) dead: Vec<snapshot::Process>,
    /// Namespaces that were gone by then, likewise.
    pub(super) gone: Vec<snapshot::Namespace>,
    /// All that its events make.
    pub(super) world: World,
    /// The moment by the wall clock; `None` where there is no event.
    pub(super) time: Option<Timestamp>,
    /// In which of the file's streams the moment is, from 1; 0 where none has a beginning.
    pub(super) stream: u64,
    /// What kept the rest of the recording from being read, if it was wanted.
    pub(super) damage: Option<Failure>,
}

/// Reads the recording up to the moment; `None` where none was asked for.
pub(super) fn look(past: &SourceArgs, memory: Memory) -> Result<Option<Recorded>, Failure> {
    let SourceArgs { from, at, runtime_api: _ } = past;
    let Some(file) = from else { return Ok(None) };
    let recording = Recording::open(file).map_err(|error| Failure::File { file: file.clone(), error })?;
    let Replayed { mut world, last, behind, stream, damage } = replay(file, recording, *at, memory)?;
    match damage {
        // Of a look that the moment is right behind, no more follows.
        None => world.settle(),
        Some(_) if world.is_in_snapshot() => Notices::new(false).notify(format_args!(
            "{}: the damage is in the midst of what existed when all was looked at: processes and namespaces are missing \
             from what is shown",
            file.display()
        )),
        Some(_) => {}
    }
    let mut snapshot = world.snapshot();
    let nanoseconds = u64::try_from(behind.as_nanos()).unwrap_or(u64::MAX);
    snapshot.boot_ns = snapshot.boot_ns.saturating_add(nanoseconds);
    let time = last.and_then(|(_, time)| time.checked_add(behind).ok());
    let dead = world.history().processes().map(DeadProcess::as_it_was).collect();
    let gone = world.history().namespaces().map(|gone| gone.state.namespace.clone()).collect();
    Ok(Some(Recorded { snapshot, dead, gone, world, time, stream, damage }))
}

/// What a command on a recording comes to, of which a part may not be readable. What was asked for and is not there may stand
/// behind the damage: both are said then.
pub(super) fn with_damage(
    told: Result<ExitCode, Failure>,
    damage: Option<Failure>,
) -> Result<ExitCode, Failure> {
    match (told, damage) {
        (Ok(_), Some(damage)) => Err(damage),
        (Err(error @ Failure::NoMatch(_)), Some(damage)) => {
            Notices::new(false).notify(format_args!("{error}, before the damage"));
            Err(damage)
        }
        (told, _) => told,
    }
}

/// The same of a command that finds those that are gone, too: what is not there may only be forgotten.
pub(super) fn with_the_forgotten<T>(told: Result<T, Failure>, world: &World) -> Result<T, Failure> {
    match told {
        Err(Failure::NoMatch(words)) if world.history().has_forgotten() => Err(Failure::NoMatch(format!(
            "{words}; of what was gone by then the last {} are remembered: an earlier moment (--at) has others, and \
             --remember asks for more",
            world.history().limit()
        ))),
        told => told,
    }
}

/// What happened to somebody in this stream of the file up to this time (CLOCK_BOOTTIME, nanoseconds). The file is read
/// another time: who it is about is known only when it was read to the moment.
pub(super) fn history(file: &Path, subject: Subject, stream: u64, until: u64) -> Result<Timeline, Failure> {
    let recording = Recording::open(file).map_err(|error| Failure::File { file: file.to_owned(), error })?;
    let mut history = Timeline::new(subject);
    let mut at = 0;
    // Damage was met at the first reading.
    for event in recording.map_while(Result::ok) {
        at += u64::from(matches!(event.body, Body::StreamStart { .. }));
        if at > stream || (at == stream && event.boot_ns > until) {
            break;
        }
        if at == stream {
            history.follow(&event);
        }
    }
    Ok(history)
}

/// What the events up to the moment make.
struct Replayed {
    world: World,
    /// The last event before it, by both clocks.
    last: Option<(u64, Timestamp)>,
    /// How long the moment is behind that event.
    behind: Duration,
    /// In which stream that is, from 1: recordings can stand one behind the other in a file.
    stream: u64,
    /// What was met before the moment.
    damage: Option<Failure>,
}

fn replay(
    file: &Path,
    recording: impl Iterator<Item = Result<Event, Damage>>,
    at: Option<Moment>,
    Memory { remember }: Memory,
) -> Result<Replayed, Failure> {
    let empty = || World::remembering(remember.unwrap_or(HISTORY_LIMIT));
    let mut it = Replayed { world: empty(), last: None, behind: Duration::ZERO, stream: 0, damage: None };
    let no_match = |words: String| Failure::NoMatch(format!("{}: {words}", file.display()));
    let mut clock = Clock::default();
    for event in recording {
        let event = match event {
            Ok(event) => event,
            Err(damage) => {
                // The moment may be behind the damage.
                it.damage = Some(Failure::Recording { file: file.to_owned(), damage });
                return Ok(it);
            }
        };
        let since = clock.follow(&event);
        let elapsed = clock.elapsed;
        let is_later = match at {
            // Not by the kernel's clock from the first event on: this one may have been set since, and is what is shown.
            Some(Moment::At(time)) => event.time > time,
            Some(Moment::After(after)) => elapsed > after,
            None => false,
        };
        if is_later {
            let Some((_, last)) = it.last else {
                return Err(no_match(format!("it begins at {:.3}, after that", event.time)));
            };
            let behind = match at {
                Some(Moment::At(time)) => between(last, time),
                Some(Moment::After(after)) => since.saturating_sub(elapsed.saturating_sub(after)),
                None => Duration::ZERO,
            };
            // Before this event by the kernel's clock too, however far the other was set.
            return Ok(Replayed { behind: behind.min(since.saturating_sub(Duration::from_nanos(1))), ..it });
        }
        if matches!(event.body, Body::StreamStart { .. }) {
            it.stream += 1;
            // What exists is told anew.
            it.world = empty();
        }
        it.last = Some((event.boot_ns, event.time));
        it.world.apply(&event);
    }
    let is_behind = |last| match at {
        Some(Moment::At(time)) => time > last,
        Some(Moment::After(after)) => after > clock.elapsed,
        None => false,
    };
    match it.last {
        Some((_, last)) if is_behind(last) => Err(no_match(format!("it ends at {last:.3}, before that"))),
        _ => Ok(it),
    }
}

/// How long a recording has gone on, by its events.
#[derive(Default)]
pub(super) struct Clock {
    last: Option<(u64, Timestamp)>,
    /// Since its first event.
    pub(super) elapsed: Duration,
}

impl Clock {
    /// Goes on to this event: how long that is since the one before.
    pub(super) fn follow(&mut self, event: &Event) -> Duration {
        let since = self.last.map_or(Duration::ZERO, |(boot_ns, time)| match event.body {
            // Of another stream: the machine may have been started anew between the two.
            Body::StreamStart { .. } => between(time, event.time),
            _ => Duration::from_nanos(event.boot_ns.saturating_sub(boot_ns)),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::event::StreamFilter;

    fn lost(second: i64) -> Event {
        Event {
            seq: 1,
            time: Timestamp::new(1_000 + second, 0).unwrap(),
            boot_ns: (50 + second as u64) * 1_000_000_000,
            exact: true,
            body: Body::StreamLost { stage: "ring".into(), count: 1 },
        }
    }

    /// At which second by the kernel's clock the last event before the moment is, and the moment itself, in milliseconds.
    fn at(events: &[Event], moment: Option<Moment>) -> Result<(u64, u64), String> {
        let events = events.iter().cloned().map(Ok);
        let Replayed { last, behind, damage, .. } =
            replay(Path::new("f"), events, moment, Memory::default()).map_err(|error| error.to_string())?;
        assert!(damage.is_none());
        let (last, _) = last.expect("an event");
        let moment = Duration::from_nanos(last) + behind;
        Ok((last / 1_000_000_000, u64::try_from(moment.as_millis()).unwrap()))
    }

    fn by_clock(second: i64) -> Option<Moment> {
        Some(Moment::At(Timestamp::new(second, 0).unwrap()))
    }

    fn after(milliseconds: u64) -> Option<Moment> {
        Some(Moment::After(Duration::from_millis(milliseconds)))
    }

    #[test]
    fn a_moment_is_found_by_the_clock_and_from_the_start() {
        let events: Vec<Event> = (0..10).map(lost).collect();
        assert_eq!(at(&events, None), Ok((59, 59_000)));
        assert_eq!(at(&events, by_clock(1_003)), Ok((53, 53_000)));
        assert_eq!(at(&events, after(4_500)), Ok((54, 54_500)));
        assert_eq!(at(&events, after(9_000)), Ok((59, 59_000)));
        let refused = |moment| at(&events, moment).unwrap_err();
        assert!(refused(by_clock(999)).contains("it begins at 1970-01-01T00:16:40.000Z"));
        assert!(refused(by_clock(2_000)).contains("it ends at 1970-01-01T00:16:49.000Z"));
        assert!(refused(after(9_001)).contains("it ends at"));
    }

    #[test]
    fn a_clock_that_was_set_is_followed_as_the_events_show_it() {
        let mut events: Vec<Event> = (0..10).map(lost).collect();
        for event in &mut events[5..] {
            event.time += Duration::from_secs(100);
        }
        assert_eq!(at(&events, by_clock(1_107)), Ok((57, 57_000)));
        assert_eq!(at(&events, by_clock(1_050)), Ok((54, 54_999)), "before the first event that is later");
        assert_eq!(at(&events, after(7_000)), Ok((57, 57_000)), "it took no longer");
    }

    #[test]
    fn of_recordings_one_behind_the_other_each_begins_with_nothing() {
        let start = |second| {
            let body = Body::StreamStart {
                version: "".into(),
                host: None,
                kernel: None,
                boot_time: String::new(),
                hooks: BTreeMap::new(),
                filter: StreamFilter::default(),
            };
            Event { body, ..lost(second) }
        };
        let there = |second, inum| Event {
            body: Body::SnapshotNamespace {
                ns: snapshot::Namespace::bare(inum, 0),
                holders: Vec::new(),
                holders_left_out: 0,
            },
            ..lost(second)
        };
        // The machine was started anew in between: its clock begins at 0.
        let mut second = [start(7), there(8, 3)];
        for (event, boot_ns) in second.iter_mut().zip([1, 1_000_000_001]) {
            event.boot_ns = boot_ns;
        }
        let events = [vec![start(0), there(1, 2)], second.to_vec()].concat();
        let inums = |moment| {
            let events = events.iter().cloned().map(Ok);
            let Replayed { world, stream, .. } =
                replay(Path::new("f"), events, moment, Memory::default()).unwrap();
            (stream, world.namespaces().map(|entry| entry.namespace.inum).collect::<Vec<_>>())
        };
        assert_eq!(inums(None), (2, vec![3]));
        assert_eq!(inums(after(3_000)), (1, vec![2]));
        assert_eq!(inums(after(8_000)), (2, vec![3]));
        assert_eq!(inums(by_clock(1_005)), (1, vec![2]));
    }
}
