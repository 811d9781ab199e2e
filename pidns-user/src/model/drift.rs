//! Compares the model with a snapshot of the kernel.

use std::collections::HashSet;

use super::{DeadProcess, Ended, World};
use crate::event::identity::BootNs;
use crate::event::snapshot::{Snapshot, SnapshotNamespace, SnapshotProcess};

/// Longest delay between an exit and the report of its reap, nanoseconds. Without a hook, a sweep once a second must
/// find the zombie gone twice.
const REAPING_TAKES: u64 = 4_000_000_000;

/// Number of processes and namespaces in which the model and the snapshot differ. The model has all events until the
/// snapshot was complete. An object that began or ended after the snapshot began may be in it or not, and is no
/// difference. Namespaces that both have are compared by the kernel's ids. Others need no comparison: a living process
/// shows its namespace.
pub fn drift(world: &World, snapshot: &Snapshot) -> u64 {
    let since = snapshot.boot_ns;
    let readable = snapshot.processes.iter().filter(|process| process.ns.is_some());
    let wrong = readable.clone().filter(|process| is_wrong(world, process, since)).count();

    // A process that cannot be read still exists.
    let seen: HashSet<_> = snapshot.processes.iter().map(|process| process.pid).collect();
    let ghosts = world
        .processes()
        .filter(|entry| !seen.contains(&entry.process.pid) && entry.process.start_boot_ns < since)
        .filter(|entry| match &entry.ended {
            None => true,
            // A process without a reported end was a zombie before the events began.
            Some(Ended { since: ended, .. }) => {
                ended.is_none_or(|ended| ended.saturating_add(REAPING_TAKES) < since)
            }
        });
    let ghosts = ghosts.count();

    let differs_from = |ns: &&SnapshotNamespace| {
        let known = world.namespace(ns.inum).map(|entry| &entry.namespace);
        known.is_some_and(|known| {
            known.kernel_id.zip(ns.kernel_id).is_some_and(|(known, seen)| known != seen)
                && known.born_boot_ns.is_none_or(|born| born < since)
        })
    };
    let others = snapshot.namespaces.values().filter(differs_from).count();

    (wrong + ghosts + others) as u64
}

/// Whether the model lacks this process, has another one with its PID, or has it in another state.
fn is_wrong(world: &World, process: &SnapshotProcess, since: BootNs) -> bool {
    let Some(key) = process.key() else { return false };
    match world.process(process.pid) {
        Some(known) if known.key().is_same(key) => {
            Some(known.process.ns) != process.ns
                || known.process.pids != process.pids
                || (process.is_zombie() && known.ended.is_none())
        }
        // It may have ended after the snapshot read it.
        _ => {
            let is_it = |dead: &&DeadProcess| dead.state.key().is_same(key);
            let since_then = || world.history().processes().take_while(|dead| dead.known_boot_ns >= since);
            let dead = world.history().process(key).or_else(|| since_then().find(is_it));
            dead.is_none_or(|dead| dead.gone_boot_ns.unwrap_or(dead.known_boot_ns) < since)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;

    use super::*;
    use crate::{
        event::identity::{HostPid, NsInum},
        event::snapshot::{SnapshotSource, Unread},
        event::{Body, Event, Exit, Process as EventProcess},
        text::Name,
    };

    fn body_process(pid: u32, start_boot_ns: u64) -> EventProcess {
        let comm = Name::from("x");
        EventProcess {
            pid: HostPid(pid),
            pids: vec![pid],
            comm,
            start_boot_ns: BootNs(start_boot_ns),
            ppid: Some(HostPid(1)),
            uid: 0,
            ns: NsInum(7),
            container: None,
        }
    }

    fn world(events: Vec<(u64, Body)>) -> World {
        let mut world = World::default();
        for (boot_ns, body) in events {
            let time = Timestamp::UNIX_EPOCH;
            world.apply(&Event { seq: 1, time, boot_ns: BootNs(boot_ns), exact: true, body });
        }
        world
    }

    fn fork(pid: u32, at: u64) -> (u64, Body) {
        let (process, parent) = (body_process(pid, at), body_process(1, 1));
        (at, Body::ProcessFork { process, parent, crosses: false, restored: false })
    }

    fn exit(pid: u32, start: u64, at: u64) -> (u64, Body) {
        let process = body_process(pid, start);
        let exit = Exit::Code { code: 0 };
        let ran_ns = at - start;
        let body = Body::ProcessExit {
            process,
            exit,
            ran_ns,
            threads: None,
            cause: None,
            cascade: None,
            orphaned: false,
        };
        (at, body)
    }

    fn reap(pid: u32, start: u64, at: u64) -> (u64, Body) {
        (at, Body::ProcessReap { process: body_process(pid, start), zombie_ns: None })
    }

    fn snapshot(boot_ns: u64, processes: &[(u32, u64, char)]) -> Snapshot {
        let processes = processes.iter().map(|&(pid, start, state)| SnapshotProcess {
            pid: HostPid(pid),
            pids: vec![pid],
            comm: Some(Name::from("x")),
            start_boot_ns: Some(BootNs(start)),
            ppid: Some(HostPid(1)),
            uid: Some(0),
            ns: Some(NsInum(7)),
            state: Some(state),
            threads: Some(1),
            ..SnapshotProcess::bare(HostPid(pid))
        });
        Snapshot {
            source: SnapshotSource::Iterator,
            boot_ns: BootNs(boot_ns),
            processes: processes.collect(),
            namespaces: BTreeMap::from([(NsInum(7), SnapshotNamespace::bare(NsInum(7), 0))]),
            holders: Vec::new(),
            holders_left_out: BTreeMap::new(),
            unnamed: Vec::new(),
            unread: Unread::default(),
        }
    }

    fn world_with_namespace(mut events: Vec<(u64, Body)>) -> World {
        events.insert(
            0,
            (
                0,
                Body::SnapshotNamespace {
                    ns: SnapshotNamespace::bare(NsInum(7), 0),
                    holders: Vec::new(),
                    holders_left_out: 0,
                },
            ),
        );
        world(events)
    }

    #[test]
    fn changes_during_a_snapshot_are_no_drift() {
        let events = vec![fork(1, 1), fork(2, 90), reap(2, 90, 150), fork(3, 150), exit(1, 1, 160)];
        let world = world_with_namespace(events);
        // Process 2 may have been read before it was gone, 3 may not have existed yet, and 1 may not have been a zombie
        // yet.
        for seen in [&[(1, 1, 'S'), (2, 90, 'S')][..], &[(1, 1, 'Z'), (3, 150, 'R')]] {
            assert_eq!(drift(&world, &snapshot(100, seen)), 0, "{seen:?}");
        }
    }

    #[test]
    fn differences_between_model_and_snapshot_are_drift() {
        let world = world_with_namespace(vec![fork(1, 1), fork(2, 10), fork(3, 20), reap(3, 20, 50)]);
        let count = |seen: &[(u32, u64, char)]| drift(&world, &snapshot(100, seen));
        assert_eq!(count(&[(1, 1, 'S'), (2, 10, 'S')]), 0);
        assert_eq!(count(&[(1, 1, 'S')]), 1, "the kernel does not have 2");
        assert_eq!(count(&[(1, 1, 'S'), (2, 10, 'S'), (9, 5, 'S')]), 1, "no event reported 9");
        assert_eq!(count(&[(1, 1, 'S'), (2, 10, 'S'), (3, 20, 'S')]), 1, "3 was reaped before");
        assert_eq!(count(&[(1, 1, 'S'), (2, 10, 'Z')]), 1, "no event reported its exit");
        assert_eq!(count(&[(1, 1, 'S'), (2, 11, 'S')]), 1, "another process with the same PID");
    }

    #[test]
    fn a_rounded_start_and_an_unreadable_process_are_no_drift() {
        let world = world_with_namespace(vec![fork(1, 1), fork(2, 47_123_456), fork(3, 20)]);
        let mut seen = snapshot(100_000_000, &[(1, 1, 'S'), (2, 40_000_000, 'S'), (3, 20, 'S')]);
        assert_eq!(drift(&world, &seen), 0);
        seen.processes[2] =
            SnapshotProcess { pids: Vec::new(), start_boot_ns: None, ns: None, ..seen.processes[2].clone() };
        assert_eq!(drift(&world, &seen), 0, "3 exists, even if it is unreadable");
    }

    #[test]
    fn a_living_process_thought_to_be_gone_is_drift() {
        // According to the events, its PID belongs to another process, whose fork was reported.
        let world = world_with_namespace(vec![fork(1, 1), fork(2, 10), fork(2, 50)]);
        assert_eq!(drift(&world, &snapshot(100, &[(1, 1, 'S'), (2, 10, 'S')])), 1, "2 is another process");
        assert_eq!(drift(&world, &snapshot(40, &[(1, 1, 'S'), (2, 10, 'S')])), 0, "it was gone later");
    }

    #[test]
    fn another_namespace_with_the_same_number_is_drift() {
        let of = |kernel_id| SnapshotNamespace {
            kernel_id: Some(kernel_id),
            born_boot_ns: Some(BootNs(5)),
            ..SnapshotNamespace::bare(NsInum(9), 1)
        };
        let world =
            world(vec![(9, Body::SnapshotNamespace { ns: of(4), holders: Vec::new(), holders_left_out: 0 })]);
        let mut seen = snapshot(100, &[]);
        for (kernel_id, expected) in [(4, 0), (5, 1)] {
            seen.namespaces = BTreeMap::from([(NsInum(9), of(kernel_id))]);
            assert_eq!(drift(&world, &seen), expected);
        }
        seen.boot_ns = BootNs(3);
        assert_eq!(drift(&world, &seen), 0, "it was born after the snapshot began");
    }

    #[test]
    fn a_reap_may_be_reported_late() {
        let world = world_with_namespace(vec![fork(1, 1), fork(2, 10), exit(2, 10, 50)]);
        let soon = snapshot(1_000_000_000, &[(1, 1, 'S')]);
        assert_eq!(drift(&world, &soon), 0);
        let late = snapshot(9_000_000_000, &[(1, 1, 'S')]);
        assert_eq!(drift(&world, &late), 1);
    }
}
