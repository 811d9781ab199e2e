//! `--from FILE --at TIME`: what existed at a moment of a recording.

use std::{path::Path, process::ExitCode, sync::atomic::AtomicBool};

use jiff::Timestamp;

use super::notices::Notices;
use crate::{
    cli::{Memory, SourceArgs},
    commands::failure::Failure,
    event::identity::BootNs,
    event::{
        Body, Event,
        snapshot::{Snapshot, SnapshotNamespace, SnapshotProcess},
    },
    explanation::{Subject, Timeline},
    kernel::capabilities,
    model::{DeadProcess, HISTORY_LIMIT, World},
    pipeline::{Consumer, ContainerSource, Follow, NamesAhead, Pipeline, Update, Wants},
    source::{
        recording::{Damage, Recording, RecordingFile},
        replay::{Moment, Replay, Until},
    },
};

/// The objects that existed at the moment, and those that were gone.
pub(super) struct Recorded {
    /// What was read.
    pub(super) file: RecordingFile,
    /// At the moment.
    pub(super) snapshot: Snapshot,
    /// Processes that were gone by then, the last to go first.
    pub(super) dead: Vec<SnapshotProcess>,
    /// Namespaces that were gone by then, the last to go first.
    pub(super) gone: Vec<SnapshotNamespace>,
    /// All that its events make.
    pub(super) world: World,
    /// The moment by the wall clock; `None` where there is no event.
    pub(super) time: Option<Timestamp>,
    /// In which of the file's streams the moment is, from 1; 0 where none has a beginning.
    pub(super) stream: u64,
    /// What kept the rest of the recording from being read, if it was wanted.
    pub(super) damage: Option<Failure>,
}

/// Opens a recording, and gives up all privileges before the first byte of it is read: its author may be hostile.
pub(super) fn open(path: &Path) -> Result<(RecordingFile, Recording), Failure> {
    let unread = |error| Failure::File { file: path.to_owned(), error };
    let file = RecordingFile::open(path).map_err(unread)?;
    capabilities::drop_all().map_err(|error| Failure::Io { what: "drop all capabilities", error })?;
    let recording = file.read().map_err(unread)?;
    Ok((file, recording))
}

/// Reads the recording up to the moment; `None` where none was asked for.
pub(super) fn read(past: &SourceArgs, memory: Memory) -> Result<Option<Recorded>, Failure> {
    read_with(past, memory, &mut [])
}

/// The same, with all events up to the moment for these consumers.
pub(super) fn read_with(
    past: &SourceArgs,
    memory: Memory,
    consumers: &mut [&mut dyn Consumer],
) -> Result<Option<Recorded>, Failure> {
    let SourceArgs { from, at, runtime_api: _ } = past;
    let Some(file) = from else { return Ok(None) };
    let (opened, recording) = open(file)?;
    let (mut world, moment, damage) = replay(file, recording, *at, memory, consumers)?;
    match damage {
        // Of a snapshot that the moment is right behind, no more follows.
        None => drop(world.settle()),
        Some(_) if world.is_in_snapshot() => Notices::new(false).notify(format_args!(
            "{}: the damage is in the midst of a snapshot: processes and namespaces are missing from what is shown",
            file.display()
        )),
        Some(_) => {}
    }
    let Moment { last, behind, stream, .. } = moment;
    let mut snapshot = world.snapshot();
    let nanoseconds = u64::try_from(behind.as_nanos()).unwrap_or(u64::MAX);
    snapshot.boot_ns = snapshot.boot_ns.saturating_add(nanoseconds);
    let time = last.and_then(|(_, time)| time.checked_add(behind).ok());
    let dead = world.history().processes().map(DeadProcess::as_it_was).collect();
    let gone = world.history().namespaces().map(|gone| gone.state.namespace.clone()).collect();
    Ok(Some(Recorded { file: opened, snapshot, dead, gone, world, time, stream, damage }))
}

/// What a command on a recording comes to, of which a part may not be readable. What was asked for and is not there may stand
/// behind the damage: both are reported then.
pub(super) fn with_damage(
    result: Result<ExitCode, Failure>,
    damage: Option<Failure>,
) -> Result<ExitCode, Failure> {
    match (result, damage) {
        (Ok(_), Some(damage)) => Err(damage),
        (Err(error @ Failure::NoMatch(_)), Some(damage)) => {
            Notices::new(false).notify(format_args!("{error}, before the damage"));
            Err(damage)
        }
        (result, _) => result,
    }
}

/// The same of a command that finds those that are gone, too: what is not there may only be forgotten.
pub(super) fn with_the_forgotten<T>(result: Result<T, Failure>, world: &World) -> Result<T, Failure> {
    match result {
        Err(Failure::NoMatch(text)) if world.history().has_forgotten() => Err(Failure::NoMatch(format!(
            "{text}; of what was gone by then the last {} are remembered: an earlier moment (--at) has others, and \
             --remember asks for more",
            world.history().limit()
        ))),
        result => result,
    }
}

/// What happened to the subject in this stream of the file up to this time. The file is read
/// another time: the subject is known only when it was read to the moment.
pub(super) fn timeline(
    path: &Path,
    file: &RecordingFile,
    subject: Subject,
    stream: u64,
    until: BootNs,
) -> Result<Timeline, Failure> {
    let recording = file.read().map_err(|error| Failure::File { file: path.to_owned(), error })?;
    let mut follower = TimelineOf { timeline: Timeline::new(subject), at: 0, stream, until };
    let pipeline = Pipeline::new(
        Replay::new(recording, Until::End),
        Follow::Nothing,
        ContainerSource::Recorded(NamesAhead::default()),
    );
    // Damage was met at the first reading.
    pipeline.run(&mut [&mut follower], &AtomicBool::new(false));
    Ok(follower.timeline)
}

/// Gathers a timeline of one of a file's streams, up to a time of it.
struct TimelineOf {
    timeline: Timeline,
    at: u64,
    stream: u64,
    until: BootNs,
}

impl Consumer for TimelineOf {
    fn update(&mut self, Update { event, .. }: &Update<'_>) -> Wants {
        self.at += u64::from(matches!(event.body, Body::StreamStart { .. }));
        if self.at > self.stream || (self.at == self.stream && event.boot_ns > self.until) {
            return Wants::NoMore;
        }
        if self.at == self.stream {
            self.timeline.follow(event);
        }
        Wants::More
    }
}

/// What the events up to the moment make of a recording, and what kept the rest from being read.
fn replay(
    file: &Path,
    recording: impl Iterator<Item = Result<Event, Damage>>,
    at: Option<Until>,
    Memory { remember }: Memory,
    consumers: &mut [&mut dyn Consumer],
) -> Result<(World, Moment, Option<Failure>), Failure> {
    let source = Replay::new(recording, at.unwrap_or(Until::End));
    let pipeline =
        Pipeline::new(source, Follow::Everything, ContainerSource::Recorded(NamesAhead::default()))
            .with_model(World::remembering(remember.unwrap_or(HISTORY_LIMIT)));
    let (report, source, world) = pipeline.run(consumers, &AtomicBool::new(false));
    let moment = source.moment();
    let no_match = |message: String| Err(Failure::NoMatch(format!("{}: {message}", file.display())));
    match (moment.last, moment.first) {
        (None, Some(first)) => return no_match(format!("it begins at {first:.3}, after that")),
        (Some((_, last)), _) if !moment.is_within => {
            return no_match(format!("it ends at {last:.3}, before that"));
        }
        _ => {}
    }
    let damage = report.error.map(|error| Failure::of_pipeline(error, Some(file)));
    Ok((world.unwrap_or_default(), moment, damage))
}

#[cfg(test)]
mod tests {
    use crate::event::identity::NsInum;
    use std::{collections::BTreeMap, time::Duration};

    use jiff::Timestamp;

    use super::*;
    use crate::event::StreamFilter;

    fn lost(second: i64) -> Event {
        Event {
            seq: 1,
            time: Timestamp::new(1_000 + second, 0).unwrap(),
            boot_ns: BootNs((50 + second as u64) * 1_000_000_000),
            exact: true,
            body: Body::StreamLost { stage: "ring".into(), count: 1 },
        }
    }

    /// At which second by the kernel's clock the last event before the moment is, and the moment itself, in milliseconds.
    fn at(events: &[Event], moment: Option<Until>) -> Result<(u64, u64), String> {
        let events = events.iter().cloned().map(Ok);
        let (_, Moment { last, behind, .. }, damage) =
            replay(Path::new("f"), events, moment, Memory::default(), &mut [])
                .map_err(|error| error.to_string())?;
        assert!(damage.is_none());
        let (last, _) = last.expect("an event");
        let moment = Duration::from_nanos(last.0) + behind;
        Ok((last.0 / 1_000_000_000, u64::try_from(moment.as_millis()).unwrap()))
    }

    fn by_clock(second: i64) -> Option<Until> {
        Some(Until::Time(Timestamp::new(second, 0).unwrap()))
    }

    fn after(milliseconds: u64) -> Option<Until> {
        Some(Until::Elapsed(Duration::from_millis(milliseconds)))
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
                hooked_boot_ns: None,
                hooks: BTreeMap::new(),
                filter: StreamFilter::default(),
            };
            Event { body, ..lost(second) }
        };
        let there = |second, inum| Event {
            body: Body::SnapshotNamespace {
                ns: SnapshotNamespace::bare(inum, 0),
                holders: Vec::new(),
                holders_left_out: 0,
            },
            ..lost(second)
        };
        // The machine was started anew in between: its clock begins at 0.
        let mut second = [start(7), there(8, NsInum(3))];
        for (event, boot_ns) in second.iter_mut().zip([1, 1_000_000_001]) {
            event.boot_ns = BootNs(boot_ns);
        }
        let events = [vec![start(0), there(1, NsInum(2))], second.to_vec()].concat();
        let inums = |moment| {
            let events = events.iter().cloned().map(Ok);
            let (world, moment, _) =
                replay(Path::new("f"), events, moment, Memory::default(), &mut []).unwrap();
            (moment.stream, world.namespaces().map(|entry| entry.namespace.inum).collect::<Vec<_>>())
        };
        assert_eq!(inums(None), (2, vec![NsInum(3)]));
        assert_eq!(inums(after(3_000)), (1, vec![NsInum(2)]));
        assert_eq!(inums(after(8_000)), (2, vec![NsInum(3)]));
        assert_eq!(inums(by_clock(1_005)), (1, vec![NsInum(2)]));
    }
}
