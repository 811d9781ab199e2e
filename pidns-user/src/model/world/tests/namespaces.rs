//! Tests of the identity and stages of namespaces.

use std::{collections::BTreeMap, sync::Arc};

use super::*;
use crate::event::container::Container;
use crate::event::identity::{BootNs, HostPid, NsInum};
use crate::event::snapshot::{Holder, SnapshotNamespace};
use crate::text::Name;

const INUM: NsInum = NsInum(200);

/// The namespace [`INUM`] as an event describes it, with or without the kernel's id.
fn namespace_born(born: u64, kernel_id: Option<u64>) -> Namespace {
    Namespace { kernel_id, ..namespace(INUM.0, 1, HOST.0, born) }
}

fn snapshot(born_boot_ns: Option<u64>, kernel_id: Option<u64>) -> Body {
    let ns = SnapshotNamespace {
        born_boot_ns: born_boot_ns.map(BootNs),
        ..SnapshotNamespace::of(&namespace_born(0, kernel_id))
    };
    Body::SnapshotNamespace { ns, holders: Vec::new(), holders_left_out: 0 }
}

fn host() -> Process {
    process(&[1], 1, None, HOST.0)
}

fn init_of(pid: u32, start: u64) -> Process {
    process(&[pid, 1], start, Some(1), INUM.0)
}

fn create(ns: &Namespace) -> Body {
    Body::NamespaceCreate { ns: ns.clone(), via: Some("clone".into()), creator: host() }
}

fn init(ns: &Namespace, process: &Process) -> Body {
    Body::NamespaceInit { ns: ns.clone(), process: process.clone() }
}

fn init_exit(ns: &Namespace, process: &Process) -> Body {
    Body::NamespaceInitExit {
        ns: ns.clone(),
        process: process.clone(),
        exit: Exit::Code { code: 0 },
        cause: Cause::Exited,
        members: 0,
    }
}

fn teardown(ns: &Namespace) -> Body {
    Body::NamespaceTeardown { ns: ns.clone(), killed: 0, nested: Vec::new(), duration_ns: 1 }
}

fn follow_in_order(bodies: impl IntoIterator<Item = Body>) -> World {
    let events: Vec<Event> = bodies.into_iter().zip(100..).map(|(body, at)| event(at, body)).collect();
    follow(&events)
}

/// On clone, the kernel starts PID 1 before the hook reports the namespace. Here the snapshot comes before both.
#[test]
fn a_late_creation_event_belongs_to_the_namespace_of_the_snapshot() {
    for kernel_id in [None, Some(7)] {
        let (first, ns) = (init_of(5, 40), namespace_born(41, kernel_id));
        let member = process(&[6, 2], 45, Some(5), INUM.0);
        let world = follow_in_order([
            start(true),
            snapshot(Some(40), kernel_id),
            snapshot_of(&first, 'S'),
            snapshot_of(&member, 'S'),
            create(&ns),
            init(&ns, &first),
            fork(&first, &host()),
            fork(&member, &first),
        ]);
        let entry = world.namespace(INUM).expect("the namespace exists");
        assert_eq!(
            (entry.init, entry.members, entry.namespace.born_boot_ns),
            (Some(HostPid(5)), 2, Some(BootNs(41)))
        );
        assert_eq!((&entry.stage, world.inconsistencies()), (&Stage::Alive, Inconsistencies::default()));
    }
}

#[test]
fn a_snapshot_after_a_loss_distinguishes_namespaces_with_the_same_number() {
    for kernel_ids in [[None, None], [Some(7), Some(8)]] {
        let (web, db) = (namespace_born(41, kernel_ids[0]), init_of(6, 90));
        let world = follow_in_order([
            start(true),
            create(&web),
            init(&web, &init_of(5, 40)),
            fork(&init_of(5, 40), &host()),
            init_exit(&web, &init_of(5, 40)),
            resync(),
            snapshot(Some(90), kernel_ids[1]),
            snapshot_of(&db, 'S'),
            resync(),
        ]);
        let entry = world.namespace(INUM).expect("the namespace exists");
        assert_eq!((&entry.stage, entry.init), (&Stage::Alive, Some(HostPid(6))));
        assert_eq!(
            (entry.namespace.born_boot_ns, entry.namespace.kernel_id),
            (Some(BootNs(90)), kernel_ids[1])
        );
        let gone: Vec<_> =
            world.history().namespaces().map(|gone| gone.state.namespace.born_boot_ns).collect();
        assert_eq!(gone, [Some(BootNs(41))]);
    }
}

#[test]
fn a_late_event_leaves_the_next_namespace_with_that_number_alone() {
    for kernel_ids in [[None, None], [Some(7), Some(8)]] {
        let [web, db] = [namespace_born(41, kernel_ids[0]), namespace_born(91, kernel_ids[1])];
        let last = init_of(6, 90);
        for late in [teardown(&web), init_exit(&web, &init_of(5, 40))] {
            let world =
                follow_in_order([start(false), create(&db), init(&db, &last), fork(&last, &host()), late]);
            let entry = world.namespace(INUM).expect("the namespace exists");
            assert_eq!((&entry.stage, entry.members), (&Stage::Alive, 1));
            assert_eq!(entry.namespace.born_boot_ns, Some(BootNs(91)));
        }
    }
}

/// PID 1 becomes a zombie when the others are gone, and stays one until its parent waits for it.
#[test]
fn a_namespace_is_empty_when_its_pid_1_has_been_reaped() {
    for destructions in [true, false] {
        let (ns, one) = (namespace_born(41, None), init_of(5, 40));
        let mut world = follow_in_order([
            start(destructions),
            create(&ns),
            init(&ns, &one),
            fork(&one, &host()),
            init_exit(&ns, &one),
            exit(&one),
            teardown(&ns),
        ]);
        let entry = world.namespace(INUM).expect("the namespace exists");
        assert!(matches!(entry.stage, Stage::Dying { torn_down: true, .. }), "{entry:?}");
        assert!(world.process(HostPid(5)).is_some_and(|zombie| zombie.ended.is_some()), "it is not reaped");
        world.apply(&event(200, reap(&one)));
        let stage = world.namespace(INUM).map(|entry| entry.stage.clone());
        assert_eq!(stage, destructions.then_some(Stage::Held { since: BootNs(200) }));
        let gone = world.history().namespaces().next().map(|gone| (gone.gone_boot_ns, gone.destroyed));
        assert_eq!(gone, (!destructions).then_some((Some(BootNs(200)), false)));
    }
}

#[test]
fn an_unused_namespace_ends_with_its_creator_if_destructions_are_not_reported() {
    let (ns, shell) = (namespace_born(41, None), process(&[5], 30, Some(1), HOST.0));
    let unshare =
        Body::NamespaceCreate { ns: ns.clone(), via: Some("unshare".into()), creator: shell.clone() };
    let mut world =
        follow_in_order([start(false), snapshot_of(&host(), 'S'), snapshot_of(&shell, 'S'), unshare]);
    assert_eq!(world.namespace(INUM).map(|entry| &entry.stage), Some(&Stage::Empty));
    world.apply(&event(200, exit(&shell)));
    assert_eq!(world.namespace(INUM), None);
}

#[test]
fn a_holder_in_a_snapshot_updates_the_process_that_holds() {
    let shell = process(&[5], 30, Some(1), HOST.0);
    let holder = Holder::PidForChildren { pid: HostPid(5), comm: None };
    let Body::SnapshotNamespace { ns, .. } = snapshot(Some(40), None) else { panic!() };
    let seen = Body::SnapshotNamespace { ns, holders: vec![holder], holders_left_out: 0 };
    let mut world = follow_in_order([start(true), seen, snapshot_of(&shell, 'S')]);
    assert_eq!(world.process(HostPid(5)).and_then(|shell| shell.children_ns), Some(INUM));
    for body in [resync(), snapshot(Some(40), None), snapshot_of(&shell, 'S')] {
        world.apply(&event(300, body));
    }
    assert_eq!(world.process(HostPid(5)).and_then(|shell| shell.children_ns), None, "it has returned since");
}

#[test]
fn processes_missing_in_a_complete_snapshot_are_gone() {
    let shell = process(&[5], 30, Some(1), HOST.0);
    let events = [start(true), snapshot_of(&host(), 'S'), snapshot_of(&shell, 'S'), resync()];
    let mut world = follow_in_order(events.clone());
    world.settle();
    assert_eq!(world.processes().count(), 2, "no snapshot arrived");
    let mut world = follow_in_order(events.into_iter().chain([snapshot_of(&host(), 'S')]));
    assert_eq!(world.processes().count(), 2, "more records may come");
    world.settle();
    assert_eq!(world.processes().count(), 1);
}

/// A snapshot gives no birth for a namespace whose PID 1 has ended.
#[test]
fn an_unreaped_pid_1_keeps_its_namespace_dying_through_a_snapshot() {
    for (destructions, from_the_start) in [(true, false), (false, false), (true, true), (false, true)] {
        let (ns, one) = (namespace_born(41, None), init_of(5, 40));
        let seen = [snapshot(None, None), snapshot_of(&one, 'Z')];
        let namespace_born = [
            create(&ns),
            init(&ns, &one),
            fork(&one, &host()),
            init_exit(&ns, &one),
            exit(&one),
            teardown(&ns),
        ];
        let namespace_born = namespace_born.into_iter().filter(|_| !from_the_start).chain([resync()]);
        let mut world = follow_in_order([start(destructions)].into_iter().chain(namespace_born).chain(seen));
        world.settle();
        let entry = world.namespace(INUM).expect("the namespace exists");
        assert!(!matches!(entry.stage, Stage::Held { .. }), "PID 1 is still there: {entry:?}");
        assert_eq!(entry.init, Some(HostPid(5)));
        world.apply(&event(200, reap(&one)));
        let stage = world.namespace(INUM).map(|entry| entry.stage.clone());
        assert_eq!(stage, destructions.then_some(Stage::Held { since: BootNs(200) }), "{from_the_start}");
    }
}

#[test]
fn a_snapshot_without_holders_keeps_namespaces_that_it_does_not_list() {
    for have_holders in [true, false] {
        let (ns, first) = (namespace_born(41, Some(7)), init_of(5, 40));
        let held = Body::SnapshotNamespace {
            ns: SnapshotNamespace::of(&ns),
            holders: vec![Holder::Child { ns: NsInum(9) }],
            holders_left_out: 0,
        };
        let mut world = World::default();
        world.follow_namespaces(&BTreeMap::new());
        let apply = |world: &mut World, at, body| drop(world.apply(&event(at, body)));
        for (at, body) in
            [(50, start(false)), (51, held), (52, snapshot_of(&first, 'S')), (53, snapshot_of(&host(), 'S'))]
        {
            apply(&mut world, at, body);
        }
        // In the next snapshot its PID 1 is gone, and something else holds it.
        world.set_snapshots_have_holders(have_holders);
        apply(&mut world, 60, resync());
        apply(&mut world, 61, snapshot_of(&host(), 'S'));
        world.settle();
        assert!(world.process(HostPid(5)).is_none());
        assert_eq!(world.namespace(INUM).is_some(), !have_holders);
        if let Some(state) = world.namespace(INUM) {
            assert!(matches!(state.stage, Stage::Held { .. }), "{:?}", state.stage);
            assert_eq!(state.holders.len(), 1, "its holders stay known");
        }
    }
}

/// A snapshot found its PID 1 as a zombie after the teardown. Since then the parent has reaped it.
#[test]
fn a_namespace_whose_zombie_is_reaped_ends_in_a_snapshot_without_holders() {
    for ends_reported in [false, true] {
        let zombie = init_of(5, 40);
        let mut world = World::default();
        let hooks = if ends_reported { "fentry" } else { "off" };
        world.follow_namespaces(&BTreeMap::from([("proc_free_inum".to_owned(), hooks.to_owned())]));
        let apply = |world: &mut World, at, body| drop(world.apply(&event(at, body)));
        for (at, body) in
            [(50, start(ends_reported)), (51, snapshot(Some(40), Some(7))), (52, snapshot_of(&zombie, 'Z'))]
        {
            apply(&mut world, at, body);
        }
        world.set_snapshots_have_holders(false);
        apply(&mut world, 60, resync());
        apply(&mut world, 61, snapshot_of(&host(), 'S'));
        world.settle();
        assert_eq!(
            world.namespace(INUM).is_some(),
            ends_reported,
            "the kernel reports its end: {ends_reported}"
        );
    }
}

#[test]
fn a_snapshot_updates_the_name_of_a_container() {
    let named = |name: &str| {
        let container = Container { name: Some(Name::from(name)), ..Container::default() };
        let ns = SnapshotNamespace {
            container: Some(Arc::new(container)),
            ..SnapshotNamespace::of(&namespace_born(41, Some(7)))
        };
        Body::SnapshotNamespace { ns, holders: Vec::new(), holders_left_out: 0 }
    };
    let world =
        follow_in_order([start(true), named("4b1d0c"), snapshot(Some(41), Some(7)), resync(), named("web")]);
    let container = world.namespace(INUM).and_then(|state| state.namespace.container.clone());
    assert_eq!(container.and_then(|container| container.name.clone()), Some(Name::from("web")));
}

/// Each CPU allocates ids from its own range.
#[test]
fn a_namespace_with_a_smaller_id_can_be_the_later_one() {
    let (first, second) = (namespace_born(100, Some(9000)), namespace_born(200, Some(4097)));
    let (one, two) = (init_of(5, 101), init_of(6, 201));
    let world = follow_in_order([
        start(false),
        create(&first),
        init(&first, &one),
        fork(&one, &host()),
        init_exit(&first, &one),
        exit(&one),
        teardown(&first),
        create(&second),
        init(&second, &two),
        fork(&two, &host()),
        reap(&one),
    ]);
    let known = world.namespace(INUM).expect("the second exists");
    assert_eq!((known.namespace.kernel_id, known.init), (Some(4097), Some(HostPid(6))));
    assert_eq!(world.inconsistencies(), Inconsistencies::default());
}

#[test]
fn a_reused_number_is_expected_if_destructions_are_not_reported() {
    for (destructions, expected) in [(false, 0), (true, 1)] {
        let (first, second) = (namespace_born(100, None), namespace_born(200, None));
        let (one, two) = (init_of(5, 101), init_of(6, 201));
        let world = follow_in_order([
            start(destructions),
            create(&first),
            init(&first, &one),
            fork(&one, &host()),
            init_exit(&first, &one),
            exit(&one),
            create(&second),
            init(&second, &two),
        ]);
        assert_eq!(world.inconsistencies().destructions_unseen, expected, "destructions: {destructions}");
        assert_eq!(world.inconsistencies().ends_unseen, 0);
    }
}
