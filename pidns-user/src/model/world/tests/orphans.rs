//! Tests of which process adopts orphans.

use super::*;
use crate::event::identity::HostPid;

/// The model names the actual parent of each process, or says what makes it uncertain.
pub(super) fn expect_no_more_than_is_known(world: &World, kernel: &ModelKernel) {
    for process in kernel.living.iter().chain(&kernel.zombies) {
        let entry = world.process(process.pid).expect("the model knows every existing process");
        match world.reaper(entry) {
            Reaper::Parent(parent) => {
                assert_eq!(Some(parent), process.ppid, "{entry:?}");
                assert!(world.process(parent).is_some(), "a parent exists: {entry:?}");
            }
            Reaper::InitOrSubreaper { init } => {
                let parent = process.ppid.expect("an orphan has another parent");
                let init = init.expect("each PID 1 is known");
                assert!(entry.orphaned, "{entry:?}");
                assert!(parent == init || kernel.is_subreaper(parent), "{parent} takes {entry:?}");
                assert!(kernel.living.iter().any(|process| process.pid == init));
            }
            Reaper::Unknown => assert_eq!(process.ppid, None, "{entry:?}"),
        }
    }
}

/// The host's PID 1; a member (2), its child (3) and grandchild (4); a nested namespace (200) with PID 1 (10).
fn family() -> (World, impl Fn(u32) -> Process) {
    let inside = |pid: u32| match pid {
        1 => process(&[1], 1, None, HOST.0),
        2..10 => process(&[pid], u64::from(pid), Some(pid - 1), HOST.0),
        10 => process(&[10, 1], 10, Some(1), 200),
        pid => process(&[pid, pid - 9], u64::from(pid), Some(pid - 1), 200),
    };
    let mut events = vec![event(1, snapshot_of(&inside(1), 'S'))];
    for pid in 2..5 {
        events.push(event(u64::from(pid), fork(&inside(pid), &inside(pid - 1))));
    }
    events.push(event(10, Body::NamespaceInit { ns: namespace(200, 1, HOST.0, 9), process: inside(10) }));
    for pid in 10..14 {
        let parent = inside(if pid == 10 { 1 } else { pid - 1 });
        events.push(event(u64::from(pid), fork(&inside(pid), &parent)));
    }
    (follow(&events), inside)
}

#[track_caller]
fn expect_reaper(world: &World, pid: u32, reaper: Reaper) {
    let entry = world.process(HostPid(pid)).expect("the namespace exists");
    assert_eq!(world.reaper(entry), reaper, "{entry:?}");
}

#[test]
fn an_exit_makes_orphans_and_a_reap_does_not() {
    let (mut world, inside) = family();
    let changes = world.apply(&event(20, exit(&inside(2))));
    assert!(changes.contains(&Change::ProcessUpdated(key(3, 3))), "{changes:?}");
    assert!(
        world.process(HostPid(3)).is_some_and(|orphan| orphan.orphaned && orphan.parent == Some(HostPid(1)))
    );
    let changes = world.apply(&event(21, reap(&inside(2))));
    assert!(!changes.contains(&Change::ProcessUpdated(key(3, 3))), "{changes:?}");
}

#[test]
fn the_children_of_a_child_of_pid_1_can_only_go_to_pid_1() {
    let (mut world, inside) = family();
    world.apply(&event(20, exit(&inside(11))));
    expect_reaper(&world, 12, Reaper::Parent(HostPid(10)));
    expect_sound(&world);
}

#[test]
fn an_ancestor_in_between_may_be_a_subreaper_until_an_event_decides() {
    let (mut world, inside) = family();
    world.apply(&event(20, exit(&inside(12))));
    expect_reaper(&world, 13, Reaper::InitOrSubreaper { init: Some(HostPid(10)) });
    assert_eq!(world.process(HostPid(13)).map(|orphan| orphan.parent), Some(None));
    let adopted = Process { ppid: Some(HostPid(11)), ..inside(13) };
    world.apply(&event(21, exit(&adopted)));
    expect_reaper(&world, 13, Reaper::Parent(HostPid(11)));
    expect_sound(&world);
}

#[test]
fn a_pid_1_that_is_gone_is_not_named_as_reaper() {
    let (mut world, inside) = family();
    let host = process(&[1], 1, None, HOST.0);
    world.apply(&event(20, exit(&inside(12))));
    world.apply(&event(21, fork(&process(&[10], 21, Some(1), HOST.0), &host)));
    expect_reaper(&world, 13, Reaper::InitOrSubreaper { init: None });
}

#[test]
fn orphans_of_a_joined_process_go_to_the_pid_1_of_its_own_namespace() {
    let (mut world, inside) = family();
    let joined = process(&[30, 9], 30, Some(3), 200);
    let child = process(&[31, 10], 31, Some(30), 200);
    world.apply(&event(30, fork(&joined, &inside(3))));
    world.apply(&event(31, fork(&child, &joined)));
    // Its parent is outside. When that one ends, a process outside adopts it.
    world.apply(&event(32, exit(&inside(3))));
    expect_reaper(&world, 30, Reaper::InitOrSubreaper { init: Some(HostPid(1)) });
    let adopted = Process { ppid: Some(HostPid(2)), ..joined };
    world.apply(&event(33, exit(&adopted)));
    expect_reaper(&world, 31, Reaper::Parent(HostPid(10)));
}

#[test]
fn an_orphan_in_a_nested_namespace_goes_to_pid_1_of_its_parents_namespace() {
    let (mut world, inside) = family();
    let inner = process(&[40, 20, 1], 40, Some(11), 300);
    world.apply(&event(40, fork(&inner, &inside(11))));
    world.apply(&event(41, exit(&inside(11))));
    expect_reaper(&world, 40, Reaper::Parent(HostPid(10)));
}

#[test]
fn an_exiting_pid_1_keeps_its_children_until_they_end() {
    let (mut world, inside) = family();
    world.apply(&event(20, exit(&inside(10))));
    expect_reaper(&world, 11, Reaper::Parent(HostPid(10)));
    world.apply(&event(21, exit(&inside(11))));
    expect_reaper(&world, 12, Reaper::Parent(HostPid(10)));
    expect_sound(&world);
    // As if we had missed the ends of its members:
    world.apply(&event(22, reap(&inside(10))));
    expect_reaper(&world, 12, Reaper::Unknown);
    expect_sound(&world);
}

#[test]
fn a_child_reported_before_its_reparenting_has_an_uncertain_parent() {
    let (mut world, inside) = family();
    world.apply(&event(20, exit(&inside(12))));
    let exec = Body::ProcessExec {
        process: inside(13),
        filename: Name::from("/bin/x"),
        args: None,
        args_truncated: false,
    };
    world.apply(&event(20, exec));
    expect_reaper(&world, 13, Reaper::InitOrSubreaper { init: Some(HostPid(10)) });
}

#[test]
fn a_zombie_of_a_snapshot_has_no_children_left() {
    let (mut world, inside) = family();
    world.apply(&event(20, snapshot_of(&inside(12), 'Z')));
    expect_reaper(&world, 13, Reaper::InitOrSubreaper { init: Some(HostPid(10)) });
    assert_eq!(
        world.process(HostPid(12)).and_then(|zombie| zombie.ended.as_ref()).map(|ended| ended.since),
        Some(None),
        "no event reported its end"
    );
}

#[test]
fn gone_processes_are_remembered_with_their_last_parent() {
    let (mut world, inside) = family();
    world.apply(&event(20, exit(&inside(4))));
    world.apply(&event(21, reap(&inside(4))));
    let dead = world.history().processes().next().expect("a gone process");
    assert_eq!((dead.state.process.pid, dead.state.parent), (HostPid(4), Some(HostPid(3))));
    // The reap may be reported after its reaper is gone.
    for (at, body) in
        [(22, exit(&inside(13))), (23, exit(&inside(12))), (24, reap(&inside(12))), (25, reap(&inside(13)))]
    {
        world.apply(&event(at, body));
    }
    let dead = world.history().processes().next().expect("a gone process");
    assert_eq!((dead.state.parent, dead.as_it_was().ppid), (None, Some(HostPid(12))));
}
