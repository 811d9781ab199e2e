//! Tests of which process adopts orphans.

use super::*;
use crate::event::identity::HostPid;

/// The model names the actual parent of each process, or says that it is uncertain.
pub(super) fn expect_right_reapers(world: &World, kernel: &SimulatedKernel) {
    for process in kernel.living.iter().chain(&kernel.zombies) {
        let entry = world.process(process.pid).expect("the model knows every existing process");
        match world.reaper(entry) {
            Reaper::Parent(parent) => {
                assert_eq!(Some(parent), process.ppid, "{entry:?}");
                assert!(world.process(parent).is_some(), "a parent exists: {entry:?}");
            }
            Reaper::InitOrSubreaper { init } => {
                let parent = process.ppid.expect("an orphan has a parent");
                let init = init.expect("each PID 1 is known");
                assert!(entry.orphaned, "{entry:?}");
                assert!(parent == init || kernel.is_subreaper(parent), "{parent} takes {entry:?}");
                assert!(kernel.living.iter().any(|process| process.pid == init), "PID 1 lives: {entry:?}");
            }
            Reaper::Unknown => assert_eq!(process.ppid, None, "{entry:?}"),
        }
    }
}

/// The host's PID 1; a member (2), its child (3) and grandchild (4); a nested namespace (200) with PID 1 (10), its
/// child (11), grandchild (12) and great-grandchild (13).
fn family() -> (World, impl Fn(u32) -> Process) {
    let member = |pid: u32| match pid {
        1 => process(&[1], 1, None, HOST.0),
        2..10 => process(&[pid], u64::from(pid), Some(pid - 1), HOST.0),
        10 => process(&[10, 1], 10, Some(1), 200),
        pid => process(&[pid, pid - 9], u64::from(pid), Some(pid - 1), 200),
    };
    let mut events = vec![event(1, snapshot_of(&member(1), 'S'))];
    for pid in 2..5 {
        events.push(event(u64::from(pid), fork(&member(pid), &member(pid - 1))));
    }
    events.push(event(10, Body::NamespaceInit { ns: namespace(200, 1, HOST.0, 9), process: member(10) }));
    for pid in 10..14 {
        let parent = member(if pid == 10 { 1 } else { pid - 1 });
        events.push(event(u64::from(pid), fork(&member(pid), &parent)));
    }
    (follow(&events), member)
}

#[track_caller]
fn expect_reaper(world: &World, pid: u32, reaper: Reaper) {
    let entry = world.process(HostPid(pid)).expect("the process exists");
    assert_eq!(world.reaper(entry), reaper, "{entry:?}");
}

#[test]
fn an_exit_makes_orphans_and_a_reap_does_not() {
    let (mut world, member) = family();
    let changes = world.apply(&event(20, exit(&member(2))));
    assert!(changes.contains(&Change::ProcessUpdated(key(3, 3))), "{changes:?}");
    assert!(
        world.process(HostPid(3)).is_some_and(|orphan| orphan.orphaned && orphan.parent == Some(HostPid(1)))
    );
    let changes = world.apply(&event(21, reap(&member(2))));
    assert!(!changes.contains(&Change::ProcessUpdated(key(3, 3))), "{changes:?}");
}

#[test]
fn the_children_of_a_child_of_pid_1_can_only_go_to_pid_1() {
    let (mut world, member) = family();
    world.apply(&event(20, exit(&member(11))));
    expect_reaper(&world, 12, Reaper::Parent(HostPid(10)));
    expect_sound(&world);
}

#[test]
fn an_ancestor_in_between_may_be_a_subreaper_until_an_event_decides() {
    let (mut world, member) = family();
    world.apply(&event(20, exit(&member(12))));
    expect_reaper(&world, 13, Reaper::InitOrSubreaper { init: Some(HostPid(10)) });
    assert_eq!(world.process(HostPid(13)).map(|orphan| orphan.parent), Some(None));
    let adopted = Process { ppid: Some(HostPid(11)), ..member(13) };
    world.apply(&event(21, exit(&adopted)));
    expect_reaper(&world, 13, Reaper::Parent(HostPid(11)));
    expect_sound(&world);
}

#[test]
fn a_pid_1_that_is_gone_is_not_named_as_reaper() {
    let (mut world, member) = family();
    let host = process(&[1], 1, None, HOST.0);
    world.apply(&event(20, exit(&member(12))));
    world.apply(&event(21, fork(&process(&[10], 21, Some(1), HOST.0), &host)));
    expect_reaper(&world, 13, Reaper::InitOrSubreaper { init: None });
}

#[test]
fn orphans_of_a_joined_process_go_to_the_pid_1_of_its_own_namespace() {
    let (mut world, member) = family();
    let joined = process(&[30, 9], 30, Some(3), 200);
    let child = process(&[31, 10], 31, Some(30), 200);
    world.apply(&event(30, fork(&joined, &member(3))));
    world.apply(&event(31, fork(&child, &joined)));
    // The parent of the joined process is outside. When that parent ends, another process outside adopts it.
    world.apply(&event(32, exit(&member(3))));
    expect_reaper(&world, 30, Reaper::InitOrSubreaper { init: Some(HostPid(1)) });
    let adopted = Process { ppid: Some(HostPid(2)), ..joined };
    world.apply(&event(33, exit(&adopted)));
    expect_reaper(&world, 31, Reaper::Parent(HostPid(10)));
}

#[test]
fn an_orphaned_init_goes_to_pid_1_of_its_parents_namespace() {
    let (mut world, member) = family();
    let inner = process(&[40, 20, 1], 40, Some(11), 300);
    world.apply(&event(40, fork(&inner, &member(11))));
    world.apply(&event(41, exit(&member(11))));
    expect_reaper(&world, 40, Reaper::Parent(HostPid(10)));
}

#[test]
fn an_exiting_pid_1_keeps_its_children_until_they_end() {
    let (mut world, member) = family();
    world.apply(&event(20, exit(&member(10))));
    expect_reaper(&world, 11, Reaper::Parent(HostPid(10)));
    world.apply(&event(21, exit(&member(11))));
    expect_reaper(&world, 12, Reaper::Parent(HostPid(10)));
    expect_sound(&world);
    // The reap is applied although no event reported the ends of 12 and 13.
    world.apply(&event(22, reap(&member(10))));
    expect_reaper(&world, 12, Reaper::Unknown);
    expect_sound(&world);
}

#[test]
fn a_child_reported_before_its_reparenting_has_an_uncertain_parent() {
    let (mut world, member) = family();
    world.apply(&event(20, exit(&member(12))));
    let exec = Body::ProcessExec {
        process: member(13),
        filename: Name::from("/bin/x"),
        args: None,
        args_truncated: false,
    };
    world.apply(&event(20, exec));
    expect_reaper(&world, 13, Reaper::InitOrSubreaper { init: Some(HostPid(10)) });
}

#[test]
fn the_children_of_a_zombie_in_a_snapshot_are_orphans() {
    let (mut world, member) = family();
    world.apply(&event(20, snapshot_of(&member(12), 'Z')));
    expect_reaper(&world, 13, Reaper::InitOrSubreaper { init: Some(HostPid(10)) });
}

#[test]
fn the_end_of_a_zombie_in_a_snapshot_has_no_time() {
    let (mut world, member) = family();
    world.apply(&event(20, snapshot_of(&member(12), 'Z')));
    let zombie = world.process(HostPid(12)).expect("the process exists");
    assert_eq!(zombie.ended.as_ref().map(|ended| ended.since), Some(None), "no event reported its end");
}

#[test]
fn gone_processes_are_remembered_with_their_last_parent() {
    let (mut world, member) = family();
    world.apply(&event(20, exit(&member(4))));
    world.apply(&event(21, reap(&member(4))));
    let dead = world.history().processes().next().expect("a gone process");
    assert_eq!((dead.state.process.pid, dead.state.parent), (HostPid(4), Some(HostPid(3))));
    // A reap can be reported after the reaper is gone: 12 reaped 13.
    for (at, body) in
        [(22, exit(&member(13))), (23, exit(&member(12))), (24, reap(&member(12))), (25, reap(&member(13)))]
    {
        world.apply(&event(at, body));
    }
    let dead = world.history().processes().next().expect("a gone process");
    assert_eq!((dead.state.parent, dead.as_it_was().ppid), (None, Some(HostPid(12))));
}
