//! `--from FILE --at TIME`: what existed at a moment of a recording.

use std::{path::Path, process::ExitCode, time::Duration};

use jiff::Timestamp;

use crate::{
    cli::{Moment, Past},
    event::Event,
    explanation::{History, Subject},
    failure::Failure,
    model::{DeadProcess, World},
    recording::Recording,
    snapshot::{self, Snapshot},
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
    /// What kept the rest of the recording from being read, if it was wanted.
    pub(super) damage: Option<Failure>,
}

/// Reads the recording up to the moment; `None` where none was asked for.
pub(super) fn look(past: &Past) -> Result<Option<Recorded>, Failure> {
    let Past { from, at, runtime_api: _ } = past;
    let Some(file) = from else { return Ok(None) };
    let recording = Recording::open(file).map_err(|error| Failure::File { file: file.clone(), error })?;
    let Replayed { world, limit, last, damage } = replay(file, recording, *at)?;
    let mut snapshot = world.snapshot();
    snapshot.boot_ns = limit.unwrap_or(snapshot.boot_ns);
    let since = last.map_or(0, |(boot_ns, _)| snapshot.boot_ns.saturating_sub(boot_ns));
    let time = last.and_then(|(_, time)| time.checked_add(Duration::from_nanos(since)).ok());
    let dead = world.past().processes().map(DeadProcess::as_it_was).collect();
    let gone = world.past().namespaces().map(|gone| gone.domain.namespace.clone()).collect();
    Ok(Some(Recorded { snapshot, dead, gone, world, time, damage }))
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
            eprintln!("pidns-trace: {error}, before the damage");
            Err(damage)
        }
        (told, _) => told,
    }
}

/// What happened to somebody up to this time (CLOCK_BOOTTIME, nanoseconds). The file is read another time: who it is about is
/// known only when it was read to the moment.
pub(super) fn history(file: &Path, subject: Subject, until: u64) -> Result<History, Failure> {
    let recording = Recording::open(file).map_err(|error| Failure::File { file: file.to_owned(), error })?;
    let mut history = History::new(subject);
    // Damage was met at the first reading.
    for event in recording.map_while(Result::ok).take_while(|event| event.boot_ns <= until) {
        history.follow(&event);
    }
    Ok(history)
}

/// What the events up to the moment make.
struct Replayed {
    world: World,
    /// The moment, if one was asked for: CLOCK_BOOTTIME, nanoseconds.
    limit: Option<u64>,
    /// The last event before it, by both clocks.
    last: Option<(u64, Timestamp)>,
    /// What was met before the moment.
    damage: Option<Failure>,
}

fn replay(
    file: &Path,
    recording: impl Iterator<Item = Result<Event, crate::recording::Damage>>,
    at: Option<Moment>,
) -> Result<Replayed, Failure> {
    let mut it = Replayed { world: World::default(), limit: None, last: None, damage: None };
    let no_match = |words: String| Failure::NoMatch(format!("{}: {words}", file.display()));
    for event in recording {
        let event = match event {
            Ok(event) => event,
            Err(damage) => {
                // The moment may be behind the damage.
                it.limit = None;
                it.damage = Some(Failure::Recording { file: file.to_owned(), damage });
                return Ok(it);
            }
        };
        if let (Some(at), None) = (at, it.limit) {
            let limit = it.limit.insert(boot_ns_of(at, &event));
            if *limit < event.boot_ns {
                return Err(no_match(format!("it begins at {:.3}, after that", event.time)));
            }
        }
        if it.limit.is_some_and(|limit| event.boot_ns > limit) {
            return Ok(it);
        }
        it.last = Some((event.boot_ns, event.time));
        it.world.apply(&event);
    }
    match (it.limit, it.last) {
        (Some(limit), Some((_, last))) if limit > it.world.boot_ns() => {
            Err(no_match(format!("it ends at {last:.3}, before that")))
        }
        _ => Ok(it),
    }
}

/// When the moment is by the kernel's clock, given the recording's first event: CLOCK_BOOTTIME, nanoseconds.
fn boot_ns_of(moment: Moment, first: &Event) -> u64 {
    let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    match moment {
        Moment::After(duration) => first.boot_ns.saturating_add(nanoseconds(duration)),
        Moment::At(time) => {
            let since = i128::from(first.boot_ns) + between(first.time, time);
            u64::try_from(since.max(0)).unwrap_or(u64::MAX)
        }
    }
}

/// Nanoseconds.
fn between(from: Timestamp, to: Timestamp) -> i128 {
    to.as_nanosecond() - from.as_nanosecond()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Body;

    fn lost(second: i64) -> Event {
        Event {
            seq: 1,
            time: Timestamp::new(1_000 + second, 0).unwrap(),
            boot_ns: (50 + second as u64) * 1_000_000_000,
            exact: true,
            body: Body::StreamLost { stage: "ring".into(), count: 1 },
        }
    }

    fn at(moment: Option<Moment>) -> Result<(u64, Option<u64>), String> {
        let events = (0..10).map(|second| Ok(lost(second)));
        let Replayed { world, limit, last, damage } =
            replay(Path::new("f"), events, moment).map_err(|error| error.to_string())?;
        assert!(damage.is_none());
        assert_eq!(last.map(|(boot_ns, _)| boot_ns), Some(world.boot_ns()));
        Ok((world.boot_ns() / 1_000_000_000, limit.map(|ns| ns / 1_000_000_000)))
    }

    #[test]
    fn a_moment_is_found_by_the_clock_and_from_the_start() {
        let time = |second| Some(Moment::At(Timestamp::new(second, 0).unwrap()));
        assert_eq!(at(None), Ok((59, None)));
        assert_eq!(at(time(1_003)), Ok((53, Some(53))));
        assert_eq!(at(Some(Moment::After(Duration::from_millis(4_500)))), Ok((54, Some(54))));
        assert!(at(time(999)).unwrap_err().contains("it begins at 1970-01-01T00:16:40.000Z"));
        assert!(at(time(2_000)).unwrap_err().contains("it ends at 1970-01-01T00:16:49.000Z"));
    }
}
