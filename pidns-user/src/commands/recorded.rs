//! `--from FILE --at TIME`: reads the state at a moment of a recording.

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
        replay::{Replay, ReplayEnd, Until},
    },
};

/// The objects that existed at the moment, and those that were gone.
pub(super) struct Recorded {
    /// The opened file, to read it again.
    pub(super) file: RecordingFile,
    /// The state at the moment.
    pub(super) snapshot: Snapshot,
    /// Processes that were gone at the moment, the last to go first.
    pub(super) dead: Vec<SnapshotProcess>,
    /// Namespaces that were gone at the moment, the last to go first.
    pub(super) gone: Vec<SnapshotNamespace>,
    /// The model at the moment.
    pub(super) world: World,
    /// The moment by the wall clock; `None` if there is no event.
    pub(super) time: Option<Timestamp>,
    /// Index of the file's stream that contains the moment, from 1; 0 before the first `stream.start`.
    pub(super) stream: u64,
    /// The damage that prevented reading the rest, if the rest was needed.
    pub(super) damage: Option<Failure>,
}

/// Opens a recording. Drops all privileges before reading its first byte, because its author may be hostile.
pub(super) fn open(path: &Path) -> Result<(RecordingFile, Recording), Failure> {
    let unread = |error| Failure::File { file: path.to_owned(), error };
    let file = RecordingFile::open(path).map_err(unread)?;
    capabilities::drop_all().map_err(|error| Failure::Io { what: "drop all capabilities", error })?;
    let recording = file.read().map_err(unread)?;
    Ok((file, recording))
}

/// The names of containers in the whole recording: the first events of a container do not contain its name. The
/// returned recording starts at the beginning again. If it can be read only once, no name is known ahead.
pub(super) fn names_ahead(
    path: &Path,
    file: &RecordingFile,
    recording: Recording,
) -> Result<(NamesAhead, Recording), Failure> {
    let mut names = NamesAhead::default();
    if !file.can_be_read_again() {
        return Ok((names, recording));
    }
    recording.naming().for_each(|event| names.learn(&event));
    let again = file.read().map_err(|error| Failure::File { file: path.to_owned(), error })?;
    Ok((names.rewound(), again))
}

/// Reads the recording up to the moment; `None` if the command reads no recording.
pub(super) fn read(past: &SourceArgs, memory: Memory) -> Result<Option<Recorded>, Failure> {
    read_with(past, memory, &mut [])
}

/// Like [`read`], and passes all events up to the moment to these consumers.
pub(super) fn read_with(
    past: &SourceArgs,
    memory: Memory,
    consumers: &mut [&mut dyn Consumer],
) -> Result<Option<Recorded>, Failure> {
    let SourceArgs { from, at, runtime_api: _ } = past;
    let Some(file) = from else { return Ok(None) };
    let (opened, recording) = open(file)?;
    let (names, recording) = names_ahead(file, &opened, recording)?;
    let (mut world, moment, damage) = replay(file, recording, names, *at, memory, consumers)?;
    match damage {
        // A snapshot that ends exactly at the moment is complete.
        None => drop(world.settle()),
        Some(_) if world.is_in_snapshot() => Notices::new(false).notify(format_args!(
            "{}: the damage is within a snapshot: the output lacks processes and namespaces",
            file.display()
        )),
        Some(_) => {}
    }
    let ReplayEnd { last, behind, stream, .. } = moment;
    let mut snapshot = world.snapshot();
    let nanoseconds = u64::try_from(behind.as_nanos()).unwrap_or(u64::MAX);
    snapshot.boot_ns = snapshot.boot_ns.saturating_add(nanoseconds);
    let time = last.and_then(|(_, time)| time.checked_add(behind).ok());
    let dead = world.history().processes().map(DeadProcess::as_it_was).collect();
    let gone = world.history().namespaces().map(|gone| gone.state.namespace.clone()).collect();
    Ok(Some(Recorded { file: opened, snapshot, dead, gone, world, time, stream, damage }))
}

/// Adds damage to the result of a command on a recording. If the command found nothing, the object may come after the
/// damage, so both are reported.
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

/// For a command that also finds objects that are gone: adds to the error "not found" that the model may have forgotten
/// the object.
pub(super) fn noting_forgotten<T>(result: Result<T, Failure>, world: &World) -> Result<T, Failure> {
    match result {
        Err(Failure::NoMatch(text)) if world.history().has_forgotten() => Err(Failure::NoMatch(format!(
            "{text}; only the last {} gone processes and namespaces are remembered: choose an earlier moment with --at, \
             or remember more with --remember",
            world.history().limit()
        ))),
        result => result,
    }
}

/// The subject's history in this stream of the file, up to this time. Reads the file again, because the subject is
/// known only after the first pass.
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
    // Damage was already reported by the first pass.
    pipeline.run(&mut [&mut follower], &AtomicBool::new(false));
    Ok(follower.timeline)
}

/// Builds the timeline of one stream of a file, up to a time.
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

/// Reads events up to the moment into a model. Returns the model, that moment, and the damage that ended the reading.
fn replay(
    file: &Path,
    recording: impl Iterator<Item = Result<Event, Damage>>,
    names: NamesAhead,
    at: Option<Until>,
    Memory { remember }: Memory,
    consumers: &mut [&mut dyn Consumer],
) -> Result<(World, ReplayEnd, Option<Failure>), Failure> {
    let source = Replay::new(recording, at.unwrap_or(Until::End));
    let pipeline = Pipeline::new(source, Follow::Everything, ContainerSource::Recorded(names))
        .with_model(World::remembering(remember.unwrap_or(HISTORY_LIMIT)));
    let (report, source, world) = pipeline.run(consumers, &AtomicBool::new(false));
    let moment = source.end();
    let no_match = |message: String| Err(Failure::NoMatch(format!("{}: {message}", file.display())));
    match (moment.last, moment.first) {
        (None, Some(first)) => return no_match(format!("it begins at {first:.3}, after the requested time")),
        (Some((_, last)), _) if !moment.is_within => {
            return no_match(format!("it ends at {last:.3}, before the requested time"));
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

    /// The second of the last event before the moment, and the moment in milliseconds, on the kernel's clock.
    fn at(events: &[Event], moment: Option<Until>) -> Result<(u64, u64), String> {
        let events = events.iter().cloned().map(Ok);
        let (_, ReplayEnd { last, behind, .. }, damage) =
            replay(Path::new("f"), events, NamesAhead::default(), moment, Memory::default(), &mut [])
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
    fn moment_can_be_a_wall_clock_time_or_an_elapsed_time() {
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
    fn end_of_a_replay_follows_a_wall_clock_that_was_set() {
        let mut events: Vec<Event> = (0..10).map(lost).collect();
        for event in &mut events[5..] {
            event.time += Duration::from_secs(100);
        }
        assert_eq!(at(&events, by_clock(1_107)), Ok((57, 57_000)));
        assert_eq!(at(&events, by_clock(1_050)), Ok((54, 54_999)), "before the first event that is later");
        assert_eq!(at(&events, after(7_000)), Ok((57, 57_000)), "it took no longer");
    }

    #[test]
    fn each_of_several_recordings_in_a_file_starts_with_an_empty_model() {
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
        // The host rebooted in between: its clock starts at 0 again.
        let mut second = [start(7), there(8, NsInum(3))];
        for (event, boot_ns) in second.iter_mut().zip([1, 1_000_000_001]) {
            event.boot_ns = BootNs(boot_ns);
        }
        let events = [vec![start(0), there(1, NsInum(2))], second.to_vec()].concat();
        let inums = |moment| {
            let events = events.iter().cloned().map(Ok);
            let (world, moment, _) =
                replay(Path::new("f"), events, NamesAhead::default(), moment, Memory::default(), &mut [])
                    .unwrap();
            (moment.stream, world.namespaces().map(|entry| entry.namespace.inum).collect::<Vec<_>>())
        };
        assert_eq!(inums(None), (2, vec![NsInum(3)]));
        assert_eq!(inums(after(3_000)), (1, vec![NsInum(2)]));
        assert_eq!(inums(after(8_000)), (2, vec![NsInum(3)]));
        assert_eq!(inums(by_clock(1_005)), (1, vec![NsInum(2)]));
    }
}
