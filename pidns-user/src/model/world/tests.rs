//! Tests the model with event histories that a kernel can produce, and with impossible ones.

use jiff::Timestamp;

mod kernel;
mod namespaces;
mod orphans;
mod properties;

use std::collections::BTreeSet;

use self::{kernel::SimulatedKernel, properties::expect_sound};
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
    Body::snapshot_process(process.clone(), state, 1)
}

/// The start of a stream that reports reaps, and with `destructions` also the ends of namespaces.
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

#[test]
fn a_reused_pid_ends_the_earlier_process() {
    let parent = process(&[1], 1, None, HOST.0);
    let (first, second) = (process(&[5], 10, Some(1), HOST.0), process(&[5], 20, Some(1), HOST.0));
    let world = follow(&[event(10, fork(&first, &parent)), event(20, fork(&second, &parent))]);
    assert_eq!(world.inconsistencies().ends_unseen, 1);
    assert_eq!(world.process(HostPid(5)).map(ProcessState::key), Some(key(5, 20)));
    assert_eq!(world.history().processes().map(|dead| dead.gone_boot_ns).collect::<Vec<_>>(), [None]);
}

#[test]
fn a_start_rounded_by_proc_means_the_same_process() {
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
        assert_eq!(world.processes().count(), 0, "it is gone");
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
fn gone_processes_are_remembered_up_to_a_limit_and_stay_gone() {
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
fn the_limit_of_remembered_processes_can_be_set() {
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
fn a_start_before_the_stream_is_no_inconsistency() {
    for (started, expected) in [(99, 0), (101, 1)] {
        let child = process(&[5], started, Some(1), HOST.0);
        let world = follow(&[event(100, start(false)), event(102, exit(&child))]);
        assert_eq!(world.inconsistencies().beginnings_unseen, expected, "started at {started}");
    }
}

#[test]
fn a_reap_of_a_forgotten_process_is_no_inconsistency() {
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
fn an_exit_ends_a_process_if_reaps_are_not_reported() {
    let Body::StreamStart { version, host, kernel, boot_time, hooks, .. } = start(true) else { panic!() };
    let filter = StreamFilter { events: vec!["process.exit".into()], ..StreamFilter::default() };
    let start = Body::StreamStart { version, host, kernel, boot_time, hooks, hooked_boot_ns: None, filter };
    let one = process(&[5, 2], 1, None, 200);
    let world = follow(&[event(1, start), event(2, exit(&one))]);
    assert_eq!(world.processes().count(), 0);
    assert_eq!(world.history().processes().count(), 1);
}

#[test]
fn children_are_born_where_their_parent_joined() {
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
    let orphan = world.process(HostPid(6)).expect("process 6");
    assert_eq!((orphan.parent, orphan.orphaned), (None, true));
}

/// A PID 1 that exits becomes a zombie only when its namespace is empty. This also holds if no event reported its exit
/// and a snapshot shows that it is exiting.
#[test]
fn a_pid_1_is_exiting_until_the_teardown_ends_and_then_a_zombie() {
    let ns = namespace(200, 1, HOST.0, 3);
    let init = process(&[5, 1], 3, None, 200);
    let is_dying = |world: &World| world.snapshot().namespaces[&NsInum(200)].dying;
    let seen = |world: &World| {
        let snapshot = world.snapshot();
        let found = snapshot.processes.iter().find(|process| process.pid == HostPid(5)).expect("process 5");
        (found.exiting, found.is_zombie(), found.zombie_since_boot_ns)
    };
    let init_exit = Body::NamespaceInitExit {
        ns: ns.clone(),
        process: init.clone(),
        exit: Exit::Code { code: 0 },
        cause: Cause::Exited,
        members: 1,
    };
    let mut exiting_init = snapshot_of(&init, 'S');
    if let Body::SnapshotProcess { threads_live, exiting, .. } = &mut exiting_init {
        (*threads_live, *exiting) = (Some(0), true);
    }
    let snapshot = Body::SnapshotNamespace {
        ns: SnapshotNamespace { dying: true, ..SnapshotNamespace::of(&ns) },
        holders: Vec::new(),
        holders_left_out: 0,
    };
    let seen_to_exit = [event(4, snapshot_of(&init, 'S')), event(9, init_exit), event(9, exit(&init))];
    let found = [event(9, start(true)), event(9, snapshot), event(9, exiting_init)];
    for (mut world, since) in [(follow(&seen_to_exit), Some(BootNs(9))), (follow(&found), None)] {
        assert_eq!((is_dying(&world), seen(&world)), (true, (true, false, None)));
        let teardown =
            Body::NamespaceTeardown { ns: ns.clone(), killed: 0, nested: Vec::new(), duration_ns: 1 };
        world.apply(&event(20, teardown));
        assert_eq!((is_dying(&world), seen(&world)), (true, (false, true, since)));
        world.apply(&event(21, reap(&init)));
        assert!(!is_dying(&world), "only its holders are left");
        assert_eq!(world.inconsistencies(), Inconsistencies::default());
    }
}
