use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, mpsc},
};

use jiff::Timestamp;

use super::*;
use crate::{
    event::identity::ProcessKey,
    event::identity::{BootNs, HostPid, NsInum},
    event::{
        Cause, Exit, Namespace, StreamFilter,
        snapshot::{Snapshot, SnapshotNamespace, SnapshotProcess, SnapshotSource},
    },
    source::{
        list::List,
        observer::{Notice, Observed},
        recording::Recording,
        replay::{Replay, Until},
        snapshots::Snapshots,
    },
};

const INUM: NsInum = NsInum(4026532001);

fn process(pid: u32, pids: &[u32], start: u64) -> Process {
    Process {
        pid: HostPid(pid),
        pids: pids.to_vec(),
        comm: "sh".into(),
        start_boot_ns: BootNs(start),
        ppid: Some(HostPid(1)),
        uid: 0,
        ns: if pids.len() > 1 { INUM } else { NsInum(4026531836) },
        container: None,
    }
}

fn namespace() -> Namespace {
    Namespace {
        inum: INUM,
        level: 1,
        parent: Some(NsInum(4026531836)),
        born_boot_ns: Some(BootNs(100)),
        kernel_id: None,
        user_ns: 4026531837,
        owner_uid: 0,
        container: None,
    }
}

fn events(bodies: Vec<Body>) -> Vec<Event> {
    let event = |(number, body)| Event {
        seq: number as u64 + 1,
        time: Timestamp::new(1_000, number as i32).unwrap(),
        boot_ns: BootNs(100 * (number as u64 + 1)),
        exact: true,
        body,
    };
    bodies.into_iter().enumerate().map(event).collect()
}

fn start() -> Body {
    let hooks = BTreeMap::from([("proc_free_inum".to_owned(), "fentry".to_owned())]);
    let events = vec!["process.reap".into(), "namespace.destroy".into()];
    let filter = StreamFilter { events, ..StreamFilter::default() };
    let boot_time = String::new();
    Body::StreamStart {
        version: "0".into(),
        host: None,
        kernel: None,
        boot_time,
        hooks,
        hooked_boot_ns: None,
        filter,
    }
}

fn end() -> Body {
    Body::StreamEnd {
        events: BTreeMap::new(),
        lost: BTreeMap::new(),
        kernel: BTreeMap::new(),
        threads: crate::event::ThreadCount { created: 0, ended: 0 },
        swept: BTreeMap::new(),
        untracked: BTreeMap::new(),
        model: None,
        duration_ns: 1,
    }
}

/// A namespace is created; its init forks a child and exits; everything is reaped and destroyed.
fn life() -> Vec<Body> {
    let (creator, init, child) =
        (process(10, &[10], 1), process(20, &[20, 1], 100), process(21, &[21, 2], 300));
    let exit = || Exit::Signal { signal: "SIGKILL".to_owned(), core: false };
    let exited = |process: &Process| Body::ProcessExit {
        process: process.clone(),
        exit: exit(),
        ran_ns: 1,
        threads: Some(1),
        cause: None,
        cascade: None,
        orphaned: false,
    };
    let reaped = |process: &Process| Body::ProcessReap { process: process.clone(), zombie_ns: Some(1) };
    let (ns, process) = (namespace(), init.clone());
    vec![
        start(),
        Body::NamespaceCreate { ns: namespace(), via: Some("clone".into()), creator: creator.clone() },
        Body::NamespaceInit { ns: namespace(), process: init.clone() },
        Body::ProcessFork { process: init.clone(), parent: creator, crosses: true, restored: false },
        Body::ProcessFork { process: child.clone(), parent: init.clone(), crosses: false, restored: false },
        Body::NamespaceInitExit { ns, process, exit: exit(), cause: Cause::Unknown, members: 1 },
        exited(&init),
        exited(&child),
        reaped(&child),
        Body::NamespaceTeardown { ns: namespace(), killed: 1, nested: Vec::new(), duration_ns: 3 },
        reaped(&init),
        Body::NamespaceDestroy { ns: namespace(), lived_ns: Some(1_000) },
        end(),
    ]
}

/// Counts updates and keeps them.
#[derive(Default)]
struct Counting {
    seen: Vec<(String, Vec<Change>, usize, usize)>,
    ticks: u64,
    is_over: bool,
}

impl Consumer for Counting {
    fn update(&mut self, update: &Update<'_>) -> Wants {
        let world = update.world;
        self.seen.push((
            serde_json::to_string(update.event).unwrap(),
            update.changes.to_vec(),
            world.map_or(0, |world| world.processes().count()),
            world.map_or(0, |world| world.namespaces().count()),
        ));
        Wants::More
    }

    fn tick(&mut self, _: Option<&World>) -> Wants {
        self.ticks += 1;
        Wants::More
    }

    fn finish(&mut self) -> Result<(), ConsumerError> {
        self.is_over = true;
        Ok(())
    }
}

/// Fails at its second event.
#[derive(Default)]
struct Failing(u64);

impl Consumer for Failing {
    fn update(&mut self, _: &Update<'_>) -> Wants {
        self.0 += 1;
        if self.0 < 2 { Wants::More } else { Wants::Count }
    }

    fn finish(&mut self) -> Result<(), ConsumerError> {
        Err(ConsumerError::Output {
            error: io::Error::from_raw_os_error(libc::ENOSPC),
            unwritten: self.0 - 1,
        })
    }
}

/// Handles an event each time the test allows it.
struct Slow(mpsc::Receiver<()>);

impl Consumer for Slow {
    fn update(&mut self, _: &Update<'_>) -> Wants {
        let _ = self.0.recv();
        Wants::More
    }
}

fn run(source: impl Source, consumers: &mut [&mut dyn Consumer]) -> (Report, Option<World>) {
    let pipeline =
        Pipeline::new(source, Follow::Everything, ContainerSource::Recorded(NamesAhead::default()));
    let (report, _, world) = pipeline.run(consumers, &AtomicBool::new(false));
    (report, world)
}

#[test]
fn a_list_and_its_recording_give_the_same_updates() {
    let events = events(life());
    let mut from_list = Counting::default();
    let (_, world) = run(List::new(events.clone(), 3), &mut [&mut from_list]);
    let world = world.unwrap();
    assert_eq!((world.processes().count(), world.namespaces().count()), (0, 0), "everything is gone");
    assert_eq!(from_list.seen.len(), 13);
    assert!(from_list.ticks >= 4, "one tick for each batch");
    assert!(from_list.seen[4].1.iter().any(|change| matches!(
        change,
        Change::ProcessAdded(ProcessKey { pid: HostPid(21), start: BootNs(300) })
    )));
    assert!(from_list.is_over);

    let file: String = events.iter().map(|event| serde_json::to_string(event).unwrap() + "\n").collect();
    let recording = Recording::read(io::Cursor::new(file.into_bytes())).unwrap();
    let mut from_recording = Counting::default();
    let (report, again) = run(Replay::new(recording, Until::End), &mut [&mut from_recording]);
    assert!(report.error.is_none());
    assert_eq!(from_recording.seen, from_list.seen);
    assert_eq!(again.unwrap(), world);
}

#[test]
fn failing_and_slow_consumers_are_reported_and_do_not_affect_others() {
    let (let_go, wait) = mpsc::channel();
    let mut failing = Failing::default();
    let mut slow = ThreadedConsumer::start("slow", 4, Slow(wait)).unwrap();
    let mut counting = Counting::default();
    let source = List::new(events(life()), 100);
    let releaser = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        drop(let_go);
    });
    let (report, _) = run(source, &mut [&mut failing, &mut slow, &mut counting]);
    releaser.join().unwrap();
    assert_eq!(counting.seen.len(), 13, "it got all events");
    assert_eq!(report.failures.len(), 2, "{:?}", report.failures);
    assert!(
        matches!(report.failures[0], ConsumerError::Output { unwritten: 12, .. }),
        "{:?}",
        report.failures
    );
    // Four are in the queue, and the consumer may hold one.
    assert!(
        matches!(report.failures[1], ConsumerError::Slow { name: "slow", dropped: 8 | 9 }),
        "{:?}",
        report.failures
    );
}

#[test]
fn the_end_does_not_wait_for_a_consumer_that_hangs() {
    let (_never, wait) = mpsc::channel();
    let mut hanging = ThreadedConsumer::start("hanging", 100, Slow(wait)).unwrap();
    let mut counting = Counting::default();
    let began = Instant::now();
    let (report, _) = run(List::new(events(life()), 100), &mut [&mut hanging, &mut counting]);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(counting.is_over);
    assert!(
        matches!(report.failures[..], [ConsumerError::Slow { name: "hanging", dropped: 13 }]),
        "{:?}",
        report.failures
    );
}

#[test]
fn a_run_ends_when_no_consumer_wants_more() {
    struct One(u64);
    impl Consumer for One {
        fn update(&mut self, _: &Update<'_>) -> Wants {
            self.0 += 1;
            Wants::NoMore
        }
    }
    let (mut one, mut another) = (One(0), One(0));
    run(List::new(events(life()), 2), &mut [&mut one, &mut another]);
    assert_eq!((one.0, another.0), (1, 1));
}

/// A source that holds events while a snapshot is taken, like the running kernel.
struct Holding {
    list: List,
    held: Arc<Mutex<u64>>,
}

impl Source for Holding {
    fn read(&mut self, each: &mut dyn FnMut(&mut [Event])) -> Result<Progress, SourceError> {
        self.list.read(each)
    }

    fn hold(&mut self, _: bool) -> Result<(), SourceError> {
        *self.held.lock().unwrap() += 1;
        Ok(())
    }

    fn stop(&mut self) {}

    fn is_live(&self) -> bool {
        true
    }

    fn now(&self) -> BootNs {
        self.list.now()
    }

    fn event_at(&mut self, boot_ns: BootNs, body: Body) -> Event {
        self.list.event_at(boot_ns, body)
    }
}

/// A snapshot that is ready at the fourth poll.
struct Late {
    polls: u64,
    snapshot: Snapshot,
}

impl Snapshots for Late {
    fn begin(&mut self, _: bool) {
        self.polls = 0;
    }

    fn poll(&mut self, _: Duration, between: &mut dyn FnMut()) -> Option<Result<Observed, SnapshotError>> {
        self.polls += 1;
        between();
        let notices = vec![Notice::LeftOut("a test".to_owned())];
        (self.polls > 3).then(|| Ok(Observed { snapshot: self.snapshot.clone(), notices }))
    }
}

fn snapshot() -> Snapshot {
    let process = SnapshotProcess {
        pid: HostPid(10),
        pids: vec![10],
        comm: Some("sh".into()),
        start_boot_ns: Some(BootNs(1)),
        ppid: None,
        uid: Some(0),
        ns: Some(NsInum(4026531836)),
        state: Some('S'),
        threads: Some(1),
        ..SnapshotProcess::bare(HostPid(10))
    };
    Snapshot {
        processes: vec![process],
        namespaces: [(NsInum(4026531836), SnapshotNamespace::bare(NsInum(4026531836), 0))].into(),
        ..Snapshot::empty(SnapshotSource::Iterator, BootNs(1))
    }
}

#[test]
fn events_wait_for_the_first_snapshot_and_the_source_is_emptied_meanwhile() {
    let held = Arc::new(Mutex::new(0));
    let source = Holding { list: List::new(events(life()), 1), held: Arc::clone(&held) };
    let resync = Resync::new(Box::new(Late { polls: 0, snapshot: snapshot() }), None, None);
    let mut counting = Counting::default();
    let pipeline = Pipeline::new(source, Follow::Everything, ContainerSource::Unknown).with_snapshots(resync);
    let (report, ..) = pipeline.run(&mut [&mut counting], &AtomicBool::new(false));
    assert!(report.error.is_none() && !report.without_snapshot);
    assert!(*held.lock().unwrap() >= 2);
    let name = |line: &str| serde_json::from_str::<Event>(line).unwrap().body.name();
    let names: Vec<_> = counting.seen.iter().map(|(line, ..)| name(line)).collect();
    assert_eq!(
        names[..4],
        ["stream.start", "snapshot.namespace", "snapshot.process", "namespace.create"],
        "{names:?}"
    );
}

#[test]
fn an_event_of_a_consumer_comes_after_waiting_events() {
    #[derive(Default)]
    struct Finds {
        found: u64,
        times: Vec<(String, u64)>,
    }
    impl Consumer for Finds {
        fn update(&mut self, update: &Update<'_>) -> Wants {
            let Event { body, boot_ns, .. } = update.event;
            self.times.push((body.name().to_owned(), boot_ns.0));
            Wants::More
        }

        fn own_events(&mut self, _: Option<&World>, now: BootNs) -> Vec<(BootNs, Body)> {
            self.found += 1;
            vec![(now, Body::StreamLost { stage: "test".into(), count: self.found })]
        }
    }
    let alone: Vec<(String, u64)> =
        events(life()).iter().map(|event| (event.body.name().to_owned(), event.boot_ns.0)).collect();
    let source = Holding { list: List::new(events(life()), 1), held: Arc::default() };
    let resync = Resync::new(Box::new(Late { polls: 0, snapshot: snapshot() }), None, None);
    let mut finds = Finds::default();
    let pipeline = Pipeline::new(source, Follow::Everything, ContainerSource::Unknown).with_snapshots(resync);
    let (report, ..) = pipeline.run(&mut [&mut finds], &AtomicBool::new(false));
    assert!(report.error.is_none() && finds.found > 5, "{}", finds.found);
    let times: Vec<_> = finds.times.iter().map(|(_, time)| *time).collect();
    assert!(times.is_sorted(), "{:?}", finds.times);
    // A loss causes another snapshot.
    let is_its_own =
        |name: &str| !["stream.lost", "stream.resync"].contains(&name) && !name.starts_with("snapshot.");
    finds.times.retain(|(name, _)| is_its_own(name));
    assert_eq!(finds.times, alone, "the source's events keep their times");
}

#[test]
fn a_snapshot_that_is_not_ready_at_the_end_is_given_up() {
    struct Never;
    impl Snapshots for Never {
        fn begin(&mut self, _: bool) {}
        fn poll(&mut self, wait: Duration, _: &mut dyn FnMut()) -> Option<Result<Observed, SnapshotError>> {
            std::thread::sleep(wait);
            None
        }
    }
    let stop = Arc::new(AtomicBool::new(false));
    let held = Arc::new(Mutex::new(0));
    let source = Holding { list: List::new(events(life()), 1), held: Arc::clone(&held) };
    let stopper = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            stop.store(true, Ordering::Release);
        })
    };
    let mut counting = Counting::default();
    let pipeline = Pipeline::new(source, Follow::Everything, ContainerSource::Unknown)
        .with_snapshots(Resync::new(Box::new(Never), None, None));
    let began = Instant::now();
    let (report, ..) = pipeline.run(&mut [&mut counting], &stop);
    stopper.join().unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(report.without_snapshot && !report.without_repair);
    assert_eq!(counting.seen.len(), 13, "no event is lost");
}

#[test]
fn a_loss_that_is_not_repaired_in_time_is_reported() {
    struct FirstAlone {
        taken: u32,
    }
    impl Snapshots for FirstAlone {
        fn begin(&mut self, _: bool) {
            self.taken += 1;
        }
        fn poll(&mut self, wait: Duration, _: &mut dyn FnMut()) -> Option<Result<Observed, SnapshotError>> {
            std::thread::sleep(wait);
            (self.taken == 1).then(|| Ok(Observed { snapshot: snapshot(), notices: Vec::new() }))
        }
    }
    let lost = |count| {
        let mut events = events(life());
        let last = events.last().expect("a life has events").clone();
        if count > 0 {
            events.push(Event { body: Body::StreamLost { stage: "ring".into(), count }, ..last });
        }
        let snapshots = Box::new(FirstAlone { taken: 0 });
        let pipeline = Pipeline::new(List::new(events, 1), Follow::Everything, ContainerSource::Unknown)
            .with_snapshots(Resync::new(snapshots, None, None));
        let (report, ..) = pipeline.run(&mut [&mut Counting::default()], &AtomicBool::new(false));
        assert!(report.error.is_none() && !report.without_snapshot);
        report.without_repair
    };
    assert!(!lost(0));
    assert!(lost(3));
}

#[test]
fn namespaces_are_followed_with_rare_events_only() {
    let rare = |body: &Body| !body.name().starts_with("process.");
    let bodies: Vec<Body> = life().into_iter().filter(rare).collect();
    let alive = events(bodies[..3].to_vec());
    let refresh = Duration::from_secs(60);
    let follow = |events: Vec<Event>| {
        let (publisher, readers) = Publisher::new(Duration::ZERO);
        let mut publisher = publisher;
        let resync = Resync::new(Box::new(Late { polls: 0, snapshot: snapshot() }), None, Some(refresh));
        let pipeline = Pipeline::new(
            Holding { list: List::new(events, 1), held: Arc::default() },
            Follow::Namespaces { refresh },
            ContainerSource::Unknown,
        );
        let (.., world) = pipeline.with_snapshots(resync).run(&mut [&mut publisher], &AtomicBool::new(false));
        let published = Arc::clone(&readers.borrow());
        (world.unwrap(), published)
    };
    let (world, published) = follow(alive);
    assert!(!world.follows_processes());
    let entry = world.namespace(INUM).expect("the namespace exists");
    assert_eq!((entry.init, entry.members), (Some(HostPid(20)), 1), "namespace.init makes the init known");
    assert!(published.namespaces.iter().any(|state| state.namespace.inum == INUM));
    assert_eq!(published.processes_as_of_boot_ns, Some(BootNs(1)), "it shows how old the processes are");

    let (world, published) = follow(events(bodies));
    assert_eq!(world.namespace(INUM), None, "it is destroyed");
    assert_eq!(world.inconsistencies(), crate::model::Inconsistencies::default());
    assert!(published.namespaces.iter().all(|state| state.namespace.inum != INUM));
}
