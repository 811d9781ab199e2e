//! Properties: the model matches a simulated kernel for random histories, and stays sound for impossible ones.

use proptest::prelude::*;

use super::{
    kernel::{ACTIONS, Capabilities, SimulatedKernel},
    *,
};

/// Checks the invariants of a world, which hold for all events.
pub(super) fn expect_sound(world: &World) {
    for (pid, entry) in &world.processes {
        assert_eq!(*pid, entry.process.pid);
        assert!(world.namespaces.contains_key(&entry.process.ns), "its namespace exists: {entry:?}");
        let parent = entry.parent;
        assert!(
            parent.is_none_or(|parent| world
                .children
                .get(&parent)
                .is_some_and(|children| children.contains(pid))),
            "its parent lists it: {entry:?}"
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

/// Checks that the model matches the kernel.
fn expect_equal(world: &World, kernel: &SimulatedKernel, capabilities: Capabilities) {
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
        .filter(|namespace| capabilities.destructions || kernel.has_or_will_have_processes(namespace))
        .map(|namespace| (namespace.inum, namespace.kernel_id))
        .collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
    for namespace in &kernel.namespaces {
        let Some(entry) = world.namespace(namespace.inum) else { continue };
        let init = kernel
            .living
            .iter()
            .chain(&kernel.zombies)
            .find(|init| init.ns == namespace.inum && init.is_init());
        assert_eq!(entry.init, init.map(|init| init.pid), "{entry:?}");
        let is_dying = init.is_some_and(|init| kernel.zombies.contains(init));
        assert_eq!(matches!(entry.stage, Stage::Dying { .. }), is_dying, "{entry:?}");
        assert_eq!(entry.stage == Stage::Empty, namespace.init_start.is_none(), "{entry:?}");
    }
    for process in &kernel.living {
        let known = world.process(process.pid).expect("the process is known");
        assert_eq!(known.children_ns, kernel.pid_for_children(process), "{known:?}");
    }
}

fn any_capabilities() -> impl Strategy<Value = Capabilities> {
    any::<(bool, bool)>().prop_map(|(ids, destructions)| Capabilities { ids, destructions })
}

fn actions() -> impl Strategy<Value = Vec<(u8, usize)>> {
    prop::collection::vec((0..ACTIONS, 0usize..50), 0..200)
}

proptest! {
    #[test]
    fn a_complete_history_gives_the_model_of_the_kernel(capabilities in any_capabilities(), actions in actions()) {
        let mut kernel = SimulatedKernel::new(capabilities);
        actions.iter().for_each(|&(action, number)| kernel.act(action, number));
        let world = follow(&kernel.emitted);
        expect_sound(&world);
        expect_equal(&world, &kernel, capabilities);
        orphans::expect_right_reapers(&world, &kernel);
        prop_assert_eq!(world.inconsistencies(), Inconsistencies::default());
        let count = |name| kernel.emitted.iter().filter(|event| event.body.name() == name).count();
        prop_assert_eq!(world.processes().count(), 1 + count("process.fork") - count("process.reap"));
    }

    #[test]
    fn another_snapshot_repairs_all_losses(
        capabilities in any_capabilities(),
        actions in prop::collection::vec((0..ACTIONS, 0usize..50, any::<bool>()), 0..200)
    ) {
        let mut kernel = SimulatedKernel::new(capabilities);
        let mut world = follow(&std::mem::take(&mut kernel.emitted));
        for (action, number, lost) in actions {
            kernel.act(action, number);
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
        let expected: Vec<_> =
            kernel.namespaces.iter().map(|namespace| (namespace.inum, namespace.kernel_id)).collect();
        let mut found: Vec<_> =
            world.namespaces().map(|entry| (entry.namespace.inum, entry.namespace.kernel_id)).collect();
        found.sort_by_key(|(inum, _)| expected.iter().position(|(known, _)| known == inum));
        prop_assert_eq!(found, expected);
        for process in kernel.living.iter().chain(&kernel.zombies) {
            let known = world.process(process.pid).expect("the snapshot lists it");
            prop_assert_eq!(known.parent, process.ppid);
            prop_assert_eq!(known.children_ns, kernel.pid_for_children(process));
        }
        for namespace in &kernel.namespaces {
            let entry = world.namespace(namespace.inum).expect("the snapshot lists it");
            let lives = kernel.living.iter().any(|init| init.ns == namespace.inum && init.is_init());
            prop_assert!(!lives || entry.stage == Stage::Alive, "{:?}", entry);
        }
    }

    /// The stream begins before the snapshot is taken. The snapshot's records come first, then the events that happened
    /// between these two moments.
    #[test]
    fn events_older_than_a_snapshot_change_nothing(capabilities in any_capabilities(), actions in actions()) {
        let mut kernel = SimulatedKernel::new(capabilities);
        let first = std::mem::take(&mut kernel.emitted).swap_remove(0);
        actions.iter().for_each(|&(action, number)| kernel.act(action, number));
        let snapshot = kernel.snapshot();
        let world = follow([&first].into_iter().chain(&snapshot).chain(&kernel.emitted));
        expect_sound(&world);
        let found = world.processes().map(ProcessState::key).collect::<BTreeSet<_>>();
        let expected = kernel.living.iter().chain(&kernel.zombies).map(Process::key).collect::<BTreeSet<_>>();
        prop_assert_eq!(found, expected);
        // Otherwise a late event can add a namespace that ended before the snapshot.
        if capabilities.ids && capabilities.destructions {
            expect_equal(&world, &kernel, capabilities);
        }
    }

    #[test]
    fn the_model_stays_sound_through_impossible_histories(
        actions in prop::collection::vec((0u8..12, 1u32..6, 0u64..3, 99u32..104, 0u32..4), 0..200)
    ) {
        let mut world = World::default();
        for (at, (action, pid, start, inum, other)) in actions.into_iter().enumerate() {
            let one = process(&[pid, 1 + other], start, (other != 0).then_some(other), inum);
            let two = process(&[1 + other], start, None, inum + 1);
            let ns = namespace(inum, other, inum + 1, start);
            let body = match action {
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
