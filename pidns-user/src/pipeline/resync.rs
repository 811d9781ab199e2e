//! Keeps the model true to the kernel: first snapshot, repair after lost events, verification, refreshment.

use std::time::{Duration, Instant};

use crate::{
    event::identity::BootNs,
    event::snapshot::{Snapshot, SnapshotProcess},
    event::{Body, ModelCount, Process},
    model::{Entry, Forest, World, drift},
    source::{
        observer::{Notice, Observed, SnapshotError},
        snapshots::Snapshots,
    },
};

/// Least time between two repairs; and ten times as long as the last snapshot took, so that taking them is not all it does.
const PAUSE: Duration = Duration::from_secs(1);
/// How long after a snapshot the events up to it are taken to be in: the ring is read every 20 ms, and records wait 2 ms.
const SETTLED_AFTER: Duration = Duration::from_millis(100);
/// How long after a snapshot a difference is still put down to events on their way: a program that is put aside between
/// reserving its place in the ring and filling it (those on functions can be) holds up all behind it, on a busy CPU for as
/// long as others have their turns.
const LATE_UNTIL: Duration = Duration::from_secs(2);
/// How long the end waits for a snapshot that is being taken.
const AT_THE_END: Duration = Duration::from_millis(500);
/// How long it waits for one that a loss has made necessary.
const LAST_REPAIR: Duration = Duration::from_secs(1);

/// Of so many snapshots that refresh the processes one reads the holders of namespaces, which takes several times as long.
const WITH_HOLDERS: u32 = 4;

/// What a snapshot that is being taken is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// The first one: what the events change.
    First,
    /// To correct the model after a loss, or after a comparison that found a difference.
    Repair,
    /// To compare the model with.
    Compare,
    /// To have the processes where no event is about them.
    Refresh,
}

/// A snapshot that waits for the events up to it, to be compared with the model.
struct Check {
    snapshot: Snapshot,
    taken: Instant,
    /// After how long it is compared.
    due: Duration,
}

/// Decides when a snapshot is taken, and what the model learns from it.
pub struct Resync {
    snapshots: Box<dyn Snapshots>,
    /// The snapshot that is being taken.
    taking: Option<(Purpose, Instant)>,
    /// Whether events were lost since the last snapshot that the model was given.
    stale: bool,
    /// When the model was given one, and how long it took.
    last: Option<Instant>,
    took: Duration,
    /// How often to take one anyhow, as no event is about processes.
    refresh: Option<Duration>,
    /// How often to compare.
    verify: Option<Duration>,
    check: Option<Check>,
    checked: Instant,
    checks: u64,
    drift: u64,
    notices: Vec<Notice>,
    /// Whether one was given up at the end: the thread that takes them is still at it.
    has_given_up: bool,
    snapshot_boot_ns: BootNs,
    /// Whether the last snapshot read the holders of namespaces, and how many have not since one did.
    with_holders: bool,
    without_holders: u32,
}

impl Resync {
    /// Takes the first snapshot when it is first asked. Compares, or refreshes, this often.
    pub fn new(snapshots: Box<dyn Snapshots>, verify: Option<Duration>, refresh: Option<Duration>) -> Self {
        Self {
            snapshots,
            taking: None,
            stale: false,
            last: None,
            took: Duration::ZERO,
            refresh,
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

    /// Events were lost: the next snapshot shows what of it matters. One that is being taken knows of no later loss.
    pub fn mark_stale(&mut self) {
        self.stale = true;
        self.check = None;
    }

    /// Whether events have to wait for a snapshot that is being taken: it is handed on before what happened behind its beginning.
    pub fn holds_events(&self) -> bool {
        matches!(self.taking, Some((Purpose::First | Purpose::Repair | Purpose::Refresh, _)))
    }

    /// What was found out since the last call that is no event.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Begins a snapshot where one is due, and takes one that is ready: the events that it makes. `is_read`: the source
    /// has nothing more for now. `between` is called every few milliseconds where the snapshot is taken in this thread.
    pub fn step(
        &mut self,
        world: &World,
        is_read: bool,
        between: &mut dyn FnMut(),
    ) -> Result<Vec<Body>, SnapshotError> {
        // The first one comes before what happens behind the stream's start.
        if self.taking.is_none() && (is_read || self.last.is_none()) {
            self.compare(world);
            if let Some(purpose) = self.due() {
                self.begin(purpose);
            }
        }
        self.finish(world, Duration::ZERO, between)
    }

    /// At the end: waits for the snapshot that events wait for, and with `repairs` repairs at once what a loss left; both no
    /// longer than a second. One that takes longer is given up.
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

    /// Whether events were lost that no snapshot has made up for, as the last one took too long.
    pub fn is_repair_missing(&self) -> bool {
        self.last.is_some() && (self.stale || self.has_given_up)
    }

    /// Whether the end came before the first snapshot was there.
    pub fn is_first_missing(&self) -> bool {
        self.last.is_none()
    }

    /// When the last snapshot that the model was given was begun.
    pub fn snapshot_boot_ns(&self) -> BootNs {
        self.snapshot_boot_ns
    }

    /// Whether that read the holders of namespaces: one that nothing else is in exists by that alone.
    pub fn has_holders(&self) -> bool {
        self.with_holders
    }

    fn due(&self) -> Option<Purpose> {
        let Some(last) = self.last else { return Some(Purpose::First) };
        if self.stale && last.elapsed() >= PAUSE.max(10 * self.took) {
            return Some(Purpose::Repair);
        }
        if self.refresh.is_some_and(|every| last.elapsed() >= every.max(10 * self.took)) {
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

    /// What the snapshot that is being taken makes, if it is ready within this time.
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
            // A loss meanwhile is repaired instead.
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
        Ok(corrections.into_iter().chain(bodies(&snapshot)).collect())
    }

    /// Compares with a snapshot that was taken before, when the events up to it are in.
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

    /// The report about the model at the end.
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

/// The events by which a model learns all that a snapshot has, and nothing else.
pub fn seeds(snapshot: &Snapshot) -> impl Iterator<Item = Body> + use<> {
    let resync = Body::StreamResync { added: 0, removed: 0, changed: 0 };
    [resync].into_iter().chain(bodies(snapshot))
}

/// The snapshot as events.
fn bodies(snapshot: &Snapshot) -> Vec<Body> {
    let forest = Forest::new(snapshot);
    let namespaces = snapshot.namespaces.values().map(|ns| Body::SnapshotNamespace {
        ns: ns.clone(),
        holders: forest
            .node(ns.inum)
            .map(|node| node.holders.iter().copied().cloned().collect())
            .unwrap_or_default(),
        holders_left_out: snapshot.holders_left_out.get(&ns.inum).copied().unwrap_or(0),
    });
    let processes = snapshot.processes.iter().filter_map(|process| {
        let SnapshotProcess {
            pid,
            pids,
            comm,
            start_boot_ns,
            ppid,
            uid,
            ns,
            state,
            threads,
            threads_live,
            exiting,
            frozen,
            freezer,
            tracer,
            subreaper,
            cgroup_id,
            cgroup,
            zombie_since_boot_ns,
            last_ran_boot_ns,
            container,
        } = process;
        Some(Body::SnapshotProcess {
            // One that may not be read has no identity to compare.
            process: Process {
                pid: *pid,
                pids: (!pids.is_empty()).then(|| pids.clone())?,
                comm: comm.clone()?,
                start_boot_ns: (*start_boot_ns)?,
                ppid: *ppid,
                uid: (*uid)?,
                ns: (*ns)?,
                container: container.clone(),
            },
            state: *state,
            threads: *threads,
            threads_live: *threads_live,
            exiting: *exiting,
            frozen: *frozen,
            freezer: *freezer,
            tracer: *tracer,
            subreaper: *subreaper,
            cgroup_id: *cgroup_id,
            cgroup: cgroup.clone(),
            zombie_since_boot_ns: *zombie_since_boot_ns,
            last_ran_boot_ns: *last_ran_boot_ns,
            joined: match forest.entry(process) {
                Entry::Born => Some(false),
                Entry::Joined { .. } => Some(true),
                Entry::Unknown => None,
            },
        })
    });
    namespaces.chain(processes).collect()
}

/// How what exists differs from what the events made of it.
fn corrections(world: &World, snapshot: &Snapshot, with_holders: bool) -> Body {
    let (mut added, mut changed, mut kept) = (0, 0, 0);
    // Where no event is about processes, all that came and went since the last snapshot would be a correction.
    let processes = if world.follows_processes() { &snapshot.processes[..] } else { &[] };
    for process in processes.iter().filter(|process| process.ns.is_some()) {
        match world.process(process.pid) {
            Some(known) if process.start_boot_ns.is_some_and(|start| known.has_started(start)) => {
                kept += 1;
                // A PID 1 that is exiting has ended for the events, and is no zombie yet.
                let has_ended = process.is_zombie() || process.exiting;
                let is_the_same = known.ended.is_some() == has_ended
                    && Some(known.process.ns) == process.ns
                    && (known.orphaned || known.parent == process.ppid);
                changed += u64::from(!is_the_same);
            }
            _ => added += 1,
        }
    }
    let mut known_namespaces = 0;
    for ns in snapshot.namespaces.values() {
        match world.namespace(ns.inum).is_some_and(|known| known.is(ns)) {
            true => known_namespaces += 1,
            false => added += 1,
        }
    }
    kept += known_namespaces;
    let processes = if world.follows_processes() { world.processes().count() } else { 0 };
    // Without holders it does not show which namespaces are gone.
    let namespaces = if with_holders { world.namespaces().count() as u64 } else { known_namespaces };
    let thought = processes as u64 + namespaces;
    Body::StreamResync { added, removed: thought.saturating_sub(kept), changed }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use jiff::Timestamp;

    use super::*;
    use crate::{
        event::Event,
        event::identity::{BootNs, HostPid, NsInum},
        event::snapshot::{SnapshotNamespace, SnapshotSource, Unread},
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

    /// Takes at once what exists when it is asked.
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
        assert_eq!(resync.step(&world, true, nothing).unwrap(), [], "not twice within a second");
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
