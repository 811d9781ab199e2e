//! Keeps the model consistent with the kernel. Snapshots initialize it, repair it after lost events, verify it, and
//! refresh its processes.

use std::time::{Duration, Instant};

use super::snapshot_events::{bodies, corrections};
use crate::{
    event::identity::BootNs,
    event::snapshot::Snapshot,
    event::{Body, ModelCount},
    model::{Forest, World, drift},
    source::{
        observer::{Notice, Observed, SnapshotError},
        snapshots::Snapshots,
    },
};

/// Minimum pause between two repairs. It is also at least ten times the duration of the last snapshot, so that repairs
/// do not take all the time.
const PAUSE: Duration = Duration::from_secs(1);
/// All events before a snapshot should be here after this time: the ring is read every 20 ms, records wait 2 ms.
const SETTLED_AFTER: Duration = Duration::from_millis(100);
/// Until this time after a snapshot, a difference may still be due to late events. A program on a function can be
/// preempted after it has reserved its place in the ring and before it has filled it. Until it runs again, which takes
/// long on a busy CPU, it delays all records behind it.
const LATE_UNTIL: Duration = Duration::from_secs(2);
/// The end of the stream waits at most this long for a snapshot that is being taken.
const AT_THE_END: Duration = Duration::from_millis(500);
/// The end of the stream waits at most this long for a snapshot after a loss.
const LAST_REPAIR: Duration = Duration::from_secs(1);

/// One in this many snapshots that refresh processes also reads holders, which takes several times as long.
const WITH_HOLDERS: u32 = 4;

/// Purpose of the snapshot that is being taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// The first snapshot, on which events build.
    First,
    /// Correct the model after a loss, or after a comparison that found a difference.
    Repair,
    /// Compare the model with it.
    Compare,
    /// Update the processes, because no events report them.
    Refresh,
}

/// A snapshot to compare with the model when all events before it have arrived.
struct Check {
    snapshot: Snapshot,
    taken: Instant,
    /// Delay before the comparison.
    due: Duration,
}

/// Decides when to take a snapshot, and what the model learns from it.
pub struct Resync {
    snapshots: Box<dyn Snapshots>,
    /// The snapshot that is being taken.
    taking: Option<(Purpose, Instant)>,
    /// Whether events were lost since the last snapshot for the model.
    stale: bool,
    /// When the model got its last snapshot. `took` is how long that took.
    last: Option<Instant>,
    took: Duration,
    /// Interval of snapshots that refresh processes, if no events report them.
    refresh: Option<Duration>,
    /// Whether a consumer needs the next of them early.
    hastened: bool,
    /// Interval of comparisons with a snapshot.
    verify: Option<Duration>,
    check: Option<Check>,
    checked: Instant,
    checks: u64,
    drift: u64,
    notices: Vec<Notice>,
    /// Whether a snapshot was given up at the end. Its thread is still running.
    has_given_up: bool,
    snapshot_boot_ns: BootNs,
    /// Whether the last snapshot read holders. `without_holders` is the number of snapshots since one did.
    with_holders: bool,
    without_holders: u32,
}

impl Resync {
    /// The first call of `step` takes the first snapshot. Compares and refreshes at these intervals.
    pub fn new(snapshots: Box<dyn Snapshots>, verify: Option<Duration>, refresh: Option<Duration>) -> Self {
        Self {
            snapshots,
            taking: None,
            stale: false,
            last: None,
            took: Duration::ZERO,
            refresh,
            hastened: false,
            verify,
            check: None,
            checked: Instant::now(),
            checks: 0,
            drift: 0,
            notices: Vec::new(),
            has_given_up: false,
            snapshot_boot_ns: BootNs::default(),
            with_holders: true,
            without_holders: 0,
        }
    }

    /// Notes that events were lost. The next snapshot shows the consequences; one that is already being taken does not.
    pub fn mark_stale(&mut self) {
        self.stale = true;
        self.check = None;
    }

    /// Sets whether the next snapshot that refreshes processes comes early: a second after the last one, or as soon as
    /// that is affordable.
    pub fn hasten(&mut self, is_needed: bool) {
        self.hastened = is_needed;
    }

    /// Whether events must wait for the snapshot that is being taken. It comes before the events after its start.
    pub fn holds_events(&self) -> bool {
        matches!(self.taking, Some((Purpose::First | Purpose::Repair | Purpose::Refresh, _)))
    }

    /// Returns the notices since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Begins a snapshot if one is due. If one is ready, returns its events. `is_caught_up`: the source has nothing more
    /// for now. If the snapshot is taken in this thread, `between` is called every few milliseconds.
    pub fn step(
        &mut self,
        world: &World,
        is_caught_up: bool,
        between: &mut dyn FnMut(),
    ) -> Result<Vec<Body>, SnapshotError> {
        // The first snapshot comes before all events after the stream's start.
        if self.taking.is_none() && (is_caught_up || self.last.is_none()) {
            self.compare(world);
            if let Some(purpose) = self.due() {
                self.begin(purpose);
            }
        }
        self.finish(world, Duration::ZERO, between)
    }

    /// At the end of the stream, waits for the snapshot that events wait for. With `repairs`, also takes a snapshot if
    /// events were lost. Gives up a snapshot that takes longer than `AT_THE_END` or `LAST_REPAIR`.
    pub fn last_step(
        &mut self,
        world: &World,
        repairs: bool,
        between: &mut dyn FnMut(),
    ) -> Result<Vec<Body>, SnapshotError> {
        const TURN: Duration = Duration::from_millis(5);
        if repairs && self.stale && !self.holds_events() && !self.has_given_up {
            self.begin(Purpose::Repair);
        }
        let deadline = Instant::now() + if repairs { LAST_REPAIR } else { AT_THE_END };
        while self.holds_events() {
            let bodies = self.finish(world, TURN, between)?;
            if !bodies.is_empty() {
                return Ok(bodies);
            }
            if Instant::now() > deadline {
                self.has_given_up = true;
                self.taking = None;
            }
            between();
        }
        Ok(Vec::new())
    }

    /// Whether events were lost that no snapshot could repair, because the last one took too long.
    pub fn is_repair_missing(&self) -> bool {
        self.last.is_some() && (self.stale || self.has_given_up)
    }

    /// Whether the end came before the first snapshot was ready.
    pub fn is_first_missing(&self) -> bool {
        self.last.is_none()
    }

    /// When the model's last snapshot began.
    pub fn snapshot_boot_ns(&self) -> BootNs {
        self.snapshot_boot_ns
    }

    /// Whether that snapshot read the holders of namespaces. A namespace without processes exists only because of them.
    pub fn has_holders(&self) -> bool {
        self.with_holders
    }

    fn due(&self) -> Option<Purpose> {
        let Some(last) = self.last else { return Some(Purpose::First) };
        if self.stale && last.elapsed() >= PAUSE.max(10 * self.took) {
            return Some(Purpose::Repair);
        }
        let refresh = self.refresh.map(|every| if self.hastened { every.min(PAUSE) } else { every });
        if refresh.is_some_and(|every| last.elapsed() >= every.max(10 * self.took)) {
            return Some(Purpose::Refresh);
        }
        let compares = !self.stale && self.check.is_none();
        (compares && self.verify.is_some_and(|every| self.checked.elapsed() >= every))
            .then_some(Purpose::Compare)
    }

    fn begin(&mut self, purpose: Purpose) {
        if purpose == Purpose::Compare {
            self.checked = Instant::now();
        } else {
            self.stale = false;
            self.check = None;
        }
        self.taking = Some((purpose, Instant::now()));
        let with_holders = match purpose {
            Purpose::Compare => false,
            Purpose::Refresh => self.without_holders + 1 >= WITH_HOLDERS,
            Purpose::First | Purpose::Repair => true,
        };
        if purpose != Purpose::Compare {
            self.with_holders = with_holders;
            self.without_holders = if with_holders { 0 } else { self.without_holders + 1 };
        }
        self.snapshots.begin(with_holders);
    }

    /// Returns the events of the snapshot that is being taken, if it is ready within this time.
    fn finish(
        &mut self,
        world: &World,
        wait: Duration,
        between: &mut dyn FnMut(),
    ) -> Result<Vec<Body>, SnapshotError> {
        let Some((purpose, began)) = self.taking else { return Ok(Vec::new()) };
        let Some(taken) = self.snapshots.poll(wait, between) else { return Ok(Vec::new()) };
        self.taking = None;
        let Observed { snapshot, notices } = taken?;
        self.notices.extend(notices);
        if purpose == Purpose::Compare {
            // A loss in the meantime needs a repair instead.
            if !self.stale {
                self.check = Some(Check { snapshot, taken: Instant::now(), due: SETTLED_AFTER });
            }
            return Ok(Vec::new());
        }
        self.snapshot_boot_ns = snapshot.boot_ns;
        self.took = began.elapsed();
        self.last = Some(Instant::now());
        let corrections =
            (purpose != Purpose::First).then(|| corrections(world, &snapshot, self.with_holders));
        let forest = Forest::new(&snapshot);
        Ok(corrections.into_iter().chain(bodies(&snapshot, &forest)).collect())
    }

    /// Compares the model with an earlier snapshot, when the events before that have arrived.
    fn compare(&mut self, world: &World) {
        let Some(check) = self.check.as_mut().filter(|check| check.taken.elapsed() >= check.due) else {
            return;
        };
        let drift = drift(world, &check.snapshot);
        if drift > 0 && check.due < LATE_UNTIL {
            check.due = (2 * check.due).min(LATE_UNTIL);
            return;
        }
        self.checks += 1;
        self.drift += drift;
        self.stale = drift > 0;
        self.check = None;
    }

    /// The model's counts for the end of the stream.
    pub fn count(&self, world: &mut World) -> ModelCount {
        world.settle();
        let inconsistencies = world.inconsistencies();
        let kinds = [
            ("ends_unseen", inconsistencies.ends_unseen),
            ("after_the_end", inconsistencies.after_the_end),
            ("destructions_unseen", inconsistencies.destructions_unseen),
            ("beginnings_unseen", inconsistencies.beginnings_unseen),
        ];
        ModelCount {
            processes: world.processes().count() as u64,
            namespaces: world.namespaces().count() as u64,
            checks: self.checks,
            drift: self.drift,
            surprises: kinds
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .map(|(kind, count)| (kind.into(), count))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use jiff::Timestamp;

    use super::*;
    use crate::{
        event::Event,
        event::identity::{BootNs, HostPid, NsInum},
        event::snapshot::{SnapshotNamespace, SnapshotProcess, SnapshotSource, Unread},
        text::Name,
    };

    fn process(pid: u32, state: char) -> SnapshotProcess {
        SnapshotProcess {
            pid: HostPid(pid),
            pids: vec![pid],
            comm: Some(Name::from("x")),
            start_boot_ns: Some(BootNs(u64::from(pid))),
            ppid: (pid > 1).then_some(HostPid(1)),
            uid: Some(0),
            ns: Some(NsInum(7)),
            state: Some(state),
            threads: Some(1),
            ..SnapshotProcess::bare(HostPid(pid))
        }
    }

    fn snapshot(processes: Vec<SnapshotProcess>) -> Snapshot {
        Snapshot {
            source: SnapshotSource::Iterator,
            boot_ns: BootNs(0),
            processes,
            namespaces: [(NsInum(7), SnapshotNamespace::bare(NsInum(7), 0))].into(),
            holders: Vec::new(),
            holders_left_out: [].into(),
            unnamed: Vec::new(),
            unread: Unread::default(),
        }
    }

    /// Takes the snapshot at once.
    struct AtOnce(Arc<Mutex<Snapshot>>);

    impl Snapshots for AtOnce {
        fn begin(&mut self, _: bool) {}

        fn poll(&mut self, _: Duration, _: &mut dyn FnMut()) -> Option<Result<Observed, SnapshotError>> {
            Some(Ok(Observed { snapshot: self.0.lock().unwrap().clone(), notices: Vec::new() }))
        }
    }

    fn follow(world: &mut World, bodies: &[Body]) {
        for body in bodies {
            let time = Timestamp::UNIX_EPOCH;
            world.apply(&Event { seq: 1, time, boot_ns: BootNs(5), exact: true, body: body.clone() });
        }
    }

    #[test]
    fn a_needed_refresh_comes_early() {
        let exists = Arc::new(Mutex::new(snapshot(vec![process(1, 'S')])));
        let hour = Duration::from_secs(3_600);
        let mut resync = Resync::new(Box::new(AtOnce(exists)), None, Some(hour));
        let (mut world, nothing) = (World::default(), &mut || {});
        let bodies = resync.step(&world, true, nothing).unwrap();
        follow(&mut world, &bodies);
        let a_second_ago = Instant::now().checked_sub(PAUSE);
        for (needed, last, expected) in
            [(false, a_second_ago, 0), (true, Some(Instant::now()), 0), (true, a_second_ago, 1)]
        {
            resync.hasten(needed);
            resync.last = last;
            let bodies = resync.step(&world, true, nothing).unwrap();
            let found = bodies.iter().filter(|body| matches!(body, Body::StreamResync { .. })).count();
            assert_eq!(found, expected, "{needed} {last:?}");
        }
    }

    #[test]
    fn a_snapshot_after_a_loss_counts_the_missed_changes() {
        let exists = Arc::new(Mutex::new(snapshot(vec![process(1, 'S'), process(2, 'S'), process(3, 'S')])));
        let mut resync = Resync::new(Box::new(AtOnce(Arc::clone(&exists))), None, None);
        let mut world = World::default();
        let nothing = &mut || {};
        let bodies = resync.step(&world, true, nothing).unwrap();
        follow(&mut world, &bodies);
        let names: Vec<_> = bodies.iter().map(Body::name).collect();
        assert_eq!(names[0], "snapshot.namespace");
        assert_eq!(names[1..], ["snapshot.process"; 3]);
        assert_eq!(resync.last_step(&world, true, nothing).unwrap(), [], "nothing was lost");

        *exists.lock().unwrap() =
            snapshot(vec![process(1, 'S'), process(2, 'Z'), process(4, 'S'), process(5, 'S')]);
        resync.mark_stale();
        assert_eq!(resync.step(&world, true, nothing).unwrap(), [], "at most one in a second");
        let bodies = resync.last_step(&world, true, nothing).unwrap();
        follow(&mut world, &bodies);
        assert_eq!(bodies[0], Body::StreamResync { added: 2, removed: 1, changed: 1 });
        assert_eq!(bodies.len(), 1 + 1 + 4);
        world.settle();
        let mut pids: Vec<_> = world.processes().map(|entry| entry.process.pid).collect();
        pids.sort_unstable();
        assert_eq!(pids, [1, 2, 4, 5].map(HostPid));
    }
}
