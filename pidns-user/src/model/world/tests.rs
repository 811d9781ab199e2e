//! Histories that a kernel could make, and histories that none could.

use jiff::Timestamp;
use proptest::prelude::*;

mod kernel;
mod namespaces;
mod orphans;

use std::collections::BTreeSet;

use self::kernel::{ACTS, Kind, ModelKernel};
use super::*;
use crate::{
    event::identity::ProcessKey,
    event::identity::{BootNs, HostPid, NsInum},
    event::{Cause, Exit, Namespace, Process, StreamFilter},
    text::Name,
};

const HOST: NsInum = NsInum(100);

fn process(pids: &[u32], start: u64, ppid: Option<u32>, ns: u32) -> Process {
    Process {
        pid: HostPid(pids[0]),
        pids: pids.to_vec(),
        comm: Name::from("x"),
        start_boot_ns: BootNs(start),
        ppid: ppid.map(HostPid),
        uid: 0,
        ns: NsInum(ns),
        container: None,
    }
}

fn namespace(inum: u32, level: u32, parent: u32, born: u64) -> Namespace {
    let parent = (level > 0).then_some(parent);
    Namespace {
        inum: NsInum(inum),
        level,
        parent: parent.map(NsInum),
        born_boot_ns: Some(BootNs(born)),
        kernel_id: None,
        user_ns: 1,
        owner_uid: 0,
        container: None,
    }
}

fn key(pid: u32, start: u64) -> ProcessKey {
    ProcessKey { pid: HostPid(pid), start: BootNs(start) }
}

fn event(boot_ns: u64, body: Body) -> Event {
    Event { seq: 1, time: Timestamp::UNIX_EPOCH, boot_ns: BootNs(boot_ns), exact: true, body }
}

fn fork(process: &Process, parent: &Process) -> Body {
    let crosses = process.ns != parent.ns;
    Body::ProcessFork { process: process.clone(), parent: parent.clone(), crosses, restored: false }
}

fn exit(process: &Process) -> Body {
    Body::ProcessExit {
        process: process.clone(),
        exit: Exit::Code { code: 0 },
        ran_ns: 1,
        threads: Some(1),
        cause: None,
        cascade: None,
        orphaned: false,
    }
}

fn reap(process: &Process) -> Body {
    Body::ProcessReap { process: process.clone(), zombie_ns: Some(1) }
}

fn snapshot_of(process: &Process, state: char) -> Body {
    Body::SnapshotProcess {
        process: process.clone(),
        state: Some(state),
        threads: Some(1),
        threads_live: None,
        exiting: false,
        frozen: false,
        freezer: None,
        tracer: None,
        subreaper: None,
        cgroup_id: None,
        cgroup: None,
        zombie_since_boot_ns: None,
        last_ran_boot_ns: None,
        joined: None,
    }
}

/// A stream that reports reaps, and the ends of namespaces or not.
fn start(destructions: bool) -> Body {
    let form = if destructions { "fentry" } else { "off: refused" };
    Body::StreamStart {
        version: "0".into(),
        host: None,
        kernel: None,
        boot_time: String::new(),
        hooked_boot_ns: None,
        hooks: BTreeMap::from([("proc_free_inum".to_owned(), form.to_owned())]),
        filter: StreamFilter {
            events: vec!["process.reap".into(), "namespace.destroy".into()],
            ..StreamFilter::default()
        },
    }
}

fn resync() -> Body {
    Body::StreamResync { added: 0, removed: 0, changed: 0 }
}

fn follow<'a>(events: impl IntoIterator<Item = &'a Event>) -> World {
    let mut world = World::default();
    for event in events {
        world.apply(event);
    }
    world
}

/// The invariants of any world, whatever events were applied.
fn expect_sound(world: &World) {
    for (pid, entry) in &world.processes {
        assert_eq!(*pid, entry.process.pid);
        assert!(world.namespaces.contains_key(&entry.process.ns), "it is somewhere: {entry:?}");
        let parent = entry.parent;
        assert!(
            parent.is_none_or(|parent| world
                .children
                .get(&parent)
                .is_some_and(|children| children.contains(pid))),
            "its parent knows it: {entry:?}"
        );
        let above = |pid| world.process(pid).and_then(|entry| entry.parent);
        let ancestors = std::iter::successors(parent, |&pid| above(pid));
        assert!(
            !ancestors.take(world.processes.len() + 1).any(|ancestor| ancestor == *pid),
            "no process is its own ancestor: {entry:?}"
        );
    }
    for (inum, entry) in &world.namespaces {
        let members = world.processes.values().filter(|entry| entry.process.ns == *inum);
        assert_eq!(members.count(), entry.members as usize, "{entry:?}");
    }
    for (parent, children) in &world.children {
        assert!(!children.is_empty());
        for child in children {
            assert_eq!(world.processes.get(child).and_then(|child| child.parent), Some(*parent));
        }
    }
    assert!(
        world.history.processes().count() <= HISTORY_LIMIT
            && world.history.namespaces().count() <= HISTORY_LIMIT
    );
}

/// The world is what there is, which it knows of which namespaces.
fn expect_equal(world: &World, kernel: &ModelKernel, kind: Kind) {
    let mut expected: Vec<_> = kernel
        .living
        .iter()
        .map(|process| (process, false))
        .chain(kernel.zombies.iter().map(|process| (process, true)))
        .map(|(process, zombie)| (process.key(), process.ns, zombie))
        .collect();
    let mut found: Vec<_> =
        world.processes().map(|entry| (entry.key(), entry.process.ns, entry.ended.is_some())).collect();
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
    let found: Vec<_> =
        world.namespaces().map(|entry| (entry.namespace.inum, entry.namespace.kernel_id)).collect();
    let mut expected: Vec<_> = kernel
        .namespaces
        .iter()
        .filter(|space| kind.destructions || kernel.has_or_will_have_processes(space))
        .map(|space| (space.inum(), space.kernel_id))
        .collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
    for space in &kernel.namespaces {
        let Some(entry) = world.namespace(space.inum()) else { continue };
        let init = kernel
            .living
            .iter()
            .chain(&kernel.zombies)
            .find(|init| init.ns == space.inum() && init.is_init());
        assert_eq!(entry.init, init.map(|init| init.pid), "{entry:?}");
        let is_dying = init.is_some_and(|init| kernel.zombies.contains(init));
        assert_eq!(matches!(entry.stage, Stage::Dying { .. }), is_dying, "{entry:?}");
        assert_eq!(entry.stage == Stage::Empty, space.init_start.is_none(), "{entry:?}");
    }
    for process in &kernel.living {
        let known = world.process(process.pid).expect("it is known");
        assert_eq!(known.children_ns, kernel.pid_for_children(process), "{known:?}");
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    any::<(bool, bool)>().prop_map(|(ids, destructions)| Kind { ids, destructions })
}

fn acts() -> impl Strategy<Value = Vec<(u8, usize)>> {
    prop::collection::vec((0..ACTS, 0usize..50), 0..200)
}

proptest! {
    #[test]
    fn a_complete_history_gives_the_model_of_the_kernel(kind in kinds(), acts in acts()) {
        let mut kernel = ModelKernel::new(kind);
        acts.iter().for_each(|&(what, whom)| kernel.act(what, whom));
        let world = follow(&kernel.emitted);
        expect_sound(&world);
        expect_equal(&world, &kernel, kind);
        orphans::expect_no_more_than_is_known(&world, &kernel);
        prop_assert_eq!(world.inconsistencies(), Inconsistencies::default());
        let count = |name| kernel.emitted.iter().filter(|event| event.body.name() == name).count();
        prop_assert_eq!(world.processes().count(), 1 + count("process.fork") - count("process.reap"));
    }

    #[test]
    fn another_snapshot_repairs_all_losses(
        kind in kinds(),
        acts in prop::collection::vec((0..ACTS, 0usize..50, any::<bool>()), 0..200)
    ) {
        let mut kernel = ModelKernel::new(kind);
        let mut world = follow(&std::mem::take(&mut kernel.emitted));
        for (what, whom, lost) in acts {
            kernel.act(what, whom);
            let emitted = std::mem::take(&mut kernel.emitted);
            if lost {
                kernel.lose_creations(&emitted);
            } else {
                emitted.iter().for_each(|event| drop(world.apply(event)));
            }
            expect_sound(&world);
        }
        world.apply(&event(kernel.clock, resync()));
        kernel.snapshot().iter().for_each(|event| drop(world.apply(event)));
        world.settle();
        expect_sound(&world);
        let ids = |processes: &[Process]| processes.iter().map(Process::key).collect::<BTreeSet<_>>();
        let mut expected = ids(&kernel.living);
        expected.append(&mut ids(&kernel.zombies));
        prop_assert_eq!(world.processes().map(ProcessState::key).collect::<BTreeSet<_>>(), expected);
        let expected: Vec<_> = kernel.namespaces.iter().map(|space| (space.inum(), space.kernel_id)).collect();
        let mut found: Vec<_> =
            world.namespaces().map(|entry| (entry.namespace.inum, entry.namespace.kernel_id)).collect();
        found.sort_by_key(|(inum, _)| expected.iter().position(|(known, _)| known == inum));
        prop_assert_eq!(found, expected);
        for process in kernel.living.iter().chain(&kernel.zombies) {
            let known = world.process(process.pid).expect("the snapshot has named it");
            prop_assert_eq!(known.parent, process.ppid);
            prop_assert_eq!(known.children_ns, kernel.pid_for_children(process));
        }
        for space in &kernel.namespaces {
            let entry = world.namespace(space.inum()).expect("the snapshot has named it");
            let lives = kernel.living.iter().any(|init| init.ns == space.inum() && init.is_init());
            prop_assert!(!lives || entry.stage == Stage::Alive, "{:?}", entry);
        }
    }

    /// The stream began first, the snapshot came second: its lines stand before what happened in between.
    #[test]
    fn events_older_than_a_snapshot_change_nothing(kind in kinds(), acts in acts()) {
        let mut kernel = ModelKernel::new(kind);
        let first = std::mem::take(&mut kernel.emitted).swap_remove(0);
        acts.iter().for_each(|&(what, whom)| kernel.act(what, whom));
        let snapshot = kernel.snapshot();
        let world = follow([&first].into_iter().chain(&snapshot).chain(&kernel.emitted));
        expect_sound(&world);
        let found = world.processes().map(ProcessState::key).collect::<BTreeSet<_>>();
        let expected = kernel.living.iter().chain(&kernel.zombies).map(Process::key).collect::<BTreeSet<_>>();
        prop_assert_eq!(found, expected);
        // Without these, one that ended before the snapshot can be left over from an event that came after it.
        if kind.ids && kind.destructions {
            expect_equal(&world, &kernel, kind);
        }
    }

    #[test]
    fn no_history_is_too_wild(
        acts in prop::collection::vec((0u8..12, 1u32..6, 0u64..3, 99u32..104, 0u32..4), 0..200)
    ) {
        let mut world = World::default();
        for (at, (what, pid, start, inum, other)) in acts.into_iter().enumerate() {
            let one = process(&[pid, 1 + other], start, (other != 0).then_some(other), inum);
            let two = process(&[1 + other], start, None, inum + 1);
            let ns = namespace(inum, other, inum + 1, start);
            let body = match what {
                0 => fork(&one, &two),
                1 => exit(&one),
                2 => reap(&one),
                3 => snapshot_of(&one, if other == 0 { 'Z' } else { 'S' }),
                4 => Body::SnapshotNamespace { ns: SnapshotNamespace::of(&ns), holders: Vec::new(), holders_left_out: 0 },
                5 => resync(),
                6 => Body::NamespaceCreate { ns, via: Some("unshare".into()), creator: one },
                7 => Body::NamespaceInit { ns, process: one },
                8 => Body::NamespaceJoin { ns, process: one, from: None },
                9 => Body::NamespaceInitExit {
                    ns,
                    process: one,
                    exit: Exit::Code { code: 1 },
                    cause: Cause::Exited,
                    members: 0,
                },
                10 => Body::NamespaceTeardown { ns, killed: 0, nested: Vec::new(), duration_ns: 0 },
                _ => Body::NamespaceDestroy { ns, lived_ns: None },
            };
            world.apply(&event(at as u64, body));
            expect_sound(&world);
            world.snapshot();
        }
    }
}

#[test]
fn the_next_process_of_a_pid_ends_the_one_before() {
    let parent = process(&[1], 1, None, HOST.0);
    let (first, second) = (process(&[5], 10, Some(1), HOST.0), process(&[5], 20, Some(1), HOST.0));
    let world = follow(&[event(10, fork(&first, &parent)), event(20, fork(&second, &parent))]);
    assert_eq!(world.inconsistencies().ends_unseen, 1);
    assert_eq!(world.process(HostPid(5)).map(ProcessState::key), Some(key(5, 20)));
    assert_eq!(world.history().processes().map(|dead| dead.gone_boot_ns).collect::<Vec<_>>(), [None]);
}

#[test]
fn a_start_that_proc_has_rounded_is_no_other_process() {
    let parent = process(&[1], 1, None, HOST.0);
    let exact = process(&[5], 47_123_456, Some(1), HOST.0);
    let rounded = Process { start_boot_ns: BootNs(40_000_000), ..exact.clone() };
    for emitted in [
        [snapshot_of(&rounded, 'R'), fork(&exact, &parent)],
        [fork(&exact, &parent), snapshot_of(&rounded, 'R')],
    ] {
        let [first, second] = emitted.map(|body| event(1, body));
        let mut world = follow(&[first, second]);
        assert_eq!(world.process(HostPid(5)).map(ProcessState::key), Some(key(5, 47_123_456)));
        for body in [exit(&exact), reap(&exact)] {
            world.apply(&event(2, body));
        }
        assert_eq!(world.processes().count(), 0, "nothing of it is left");
        assert_eq!(world.inconsistencies(), Inconsistencies::default());
    }
    let later = process(&[5], 50_000_001, Some(1), HOST.0);
    let world = follow(&[event(1, snapshot_of(&rounded, 'R')), event(2, fork(&later, &parent))]);
    assert_eq!(
        (world.process(HostPid(5)).map(ProcessState::key), world.inconsistencies().ends_unseen),
        (Some(key(5, 50_000_001)), 1)
    );
}

#[test]
fn the_dead_are_remembered_up_to_a_limit_and_stay_dead() {
    let parent = process(&[1], 1, None, HOST.0);
    let mut world = World::default();
    for pid in 2..HISTORY_LIMIT as u32 + 12 {
        let child = process(&[pid], u64::from(pid), Some(1), HOST.0);
        for body in [fork(&child, &parent), exit(&child), reap(&child)] {
            world.apply(&event(u64::from(pid), body));
        }
        world.apply(&event(u64::from(pid), exit(&child)));
    }
    assert_eq!(world.history().processes().count(), HISTORY_LIMIT);
    assert_eq!(world.inconsistencies().after_the_end, HISTORY_LIMIT as u64 + 10);
    assert_eq!(world.processes().count(), 0);
}

#[test]
fn as_many_of_the_dead_are_remembered_as_is_asked_for() {
    let parent = process(&[1], 1, None, HOST.0);
    let mut world = World::remembering(2);
    for pid in 2..6 {
        let child = process(&[pid], u64::from(pid), Some(1), HOST.0);
        for body in [fork(&child, &parent), exit(&child), reap(&child)] {
            world.apply(&event(u64::from(pid), body));
        }
    }
    let remembered: Vec<HostPid> = world.history().processes().map(|dead| dead.state.process.pid).collect();
    assert_eq!(remembered, [HostPid(5), HostPid(4)]);
    assert_eq!(
        (world.history().process(key(5, 5)).is_some(), world.history().process(key(3, 3)).is_some()),
        (true, false)
    );
}

#[test]
fn a_beginning_before_the_stream_is_no_surprise() {
    for (started, expected) in [(99, 0), (101, 1)] {
        let child = process(&[5], started, Some(1), HOST.0);
        let world = follow(&[event(100, start(false)), event(102, exit(&child))]);
        assert_eq!(world.inconsistencies().beginnings_unseen, expected, "started at {started}");
    }
}

#[test]
fn a_reaping_that_comes_when_its_process_is_forgotten_is_no_surprise() {
    let parent = process(&[1], 1, None, HOST.0);
    let mut world = World::remembering(1);
    let children: Vec<_> = (2..4).map(|pid| process(&[pid], u64::from(pid), Some(1), HOST.0)).collect();
    for child in &children {
        for body in [fork(child, &parent), exit(child), reap(child)] {
            world.apply(&event(5, body));
        }
    }
    world.apply(&event(6, reap(&children[0])));
    assert_eq!(world.inconsistencies(), Inconsistencies::default());
    assert!(world.process(children[0].pid).is_none());
}

#[test]
fn an_exit_is_the_end_where_no_reap_is_reported() {
    let Body::StreamStart { version, host, kernel, boot_time, hooks, .. } = start(true) else { panic!() };
    let filter = StreamFilter { events: vec!["process.exit".into()], ..StreamFilter::default() };
    let start = Body::StreamStart { version, host, kernel, boot_time, hooks, hooked_boot_ns: None, filter };
    let one = process(&[5, 2], 1, None, 200);
    let world = follow(&[event(1, start), event(2, exit(&one))]);
    assert_eq!(world.processes().count(), 0);
    assert_eq!(world.history().processes().count(), 1);
}

#[test]
fn children_go_where_their_parent_joined() {
    let shell = process(&[5], 1, None, HOST.0);
    let ns = namespace(200, 1, HOST.0, 3);
    let child = process(&[6, 2], 9, Some(5), 200);
    let mut world = follow(&[
        event(2, snapshot_of(&shell, 'S')),
        event(4, Body::NamespaceJoin { ns, process: shell.clone(), from: None }),
    ]);
    assert_eq!(world.process(HostPid(5)).and_then(|shell| shell.children_ns), Some(NsInum(200)));
    world.apply(&event(9, fork(&child, &shell)));
    assert_eq!(
        world.process(HostPid(6)).map(|child| &child.entered),
        Some(&Entered::Joined { forker: Box::new(shell.clone()) })
    );
    world.apply(&event(10, exit(&shell)));
    let orphan = world.process(HostPid(6)).expect("it lives");
    assert_eq!((orphan.parent, orphan.orphaned), (None, true));
}

/// A PID 1 that exits is no zombie before its namespace is empty; one that a snapshot finds exiting has ended, too.
#[test]
fn a_pid_1_is_exiting_until_the_teardown_and_a_zombie_then() {
    let ns = namespace(200, 1, HOST.0, 3);
    let init = process(&[5, 1], 3, None, 200);
    let is_dying = |world: &World| world.snapshot().namespaces[&NsInum(200)].dying;
    let seen = |world: &World| {
        let snapshot = world.snapshot();
        let found = snapshot.processes.iter().find(|process| process.pid == HostPid(5)).expect("it is there");
        (found.exiting, found.is_zombie(), found.zombie_since_boot_ns)
    };
    let init_exit = Body::NamespaceInitExit {
        ns: ns.clone(),
        process: init.clone(),
        exit: Exit::Code { code: 0 },
        cause: Cause::Exited,
        members: 1,
    };
    let exiting = Body::SnapshotProcess {
        process: init.clone(),
        state: Some('S'),
        threads: Some(1),
        threads_live: Some(0),
        exiting: true,
        frozen: false,
        freezer: None,
        tracer: None,
        subreaper: None,
        cgroup_id: None,
        cgroup: None,
        zombie_since_boot_ns: None,
        last_ran_boot_ns: None,
        joined: None,
    };
    let snapshot = Body::SnapshotNamespace {
        ns: SnapshotNamespace { dying: true, ..SnapshotNamespace::of(&ns) },
        holders: Vec::new(),
        holders_left_out: 0,
    };
    let seen_to_exit = [event(4, snapshot_of(&init, 'S')), event(9, init_exit), event(9, exit(&init))];
    let found = [event(9, start(true)), event(9, snapshot), event(9, exiting)];
    for (mut world, since) in [(follow(&seen_to_exit), Some(BootNs(9))), (follow(&found), None)] {
        assert_eq!((is_dying(&world), seen(&world)), (true, (true, false, None)));
        let teardown =
            Body::NamespaceTeardown { ns: ns.clone(), killed: 0, nested: Vec::new(), duration_ns: 1 };
        world.apply(&event(20, teardown));
        assert_eq!((is_dying(&world), seen(&world)), (true, (false, true, since)));
        world.apply(&event(21, reap(&init)));
        assert!(!is_dying(&world), "nothing is left of it but what holds it");
        assert_eq!(world.inconsistencies(), Inconsistencies::default());
    }
}
