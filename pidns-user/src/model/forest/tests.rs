use proptest::prelude::*;

use super::*;
use crate::{
    event::snapshot::{SnapshotSource, Unread},
    text::Name,
};

fn process(pids: &[u32], ppid: Option<u32>, ns: Option<u32>) -> SnapshotProcess {
    SnapshotProcess {
        pid: HostPid(pids[0]),
        pids: pids.to_vec(),
        comm: Some(Name::from("x")),
        start_boot_ns: Some(BootNs(1)),
        ppid: ppid.map(HostPid),
        uid: Some(0),
        ns: ns.map(NsInum),
        state: Some('S'),
        threads: Some(1),
        ..SnapshotProcess::bare(HostPid(pids[0]))
    }
}

fn namespace(inum: u32, level: u32, parent: Option<u32>) -> (NsInum, SnapshotNamespace) {
    (
        NsInum(inum),
        SnapshotNamespace { parent: parent.map(NsInum), ..SnapshotNamespace::bare(NsInum(inum), level) },
    )
}

fn snapshot(processes: Vec<SnapshotProcess>, namespaces: Vec<(NsInum, SnapshotNamespace)>) -> Snapshot {
    Snapshot {
        source: SnapshotSource::Iterator,
        boot_ns: BootNs(0),
        processes,
        namespaces: namespaces.into_iter().collect(),
        holders: vec![(NsInum(30), Holder::Child { ns: NsInum(99) })],
        holders_left_out: BTreeMap::new(),
        unnamed: Vec::new(),
        unread: Unread::default(),
    }
}

fn known(inum: Option<u32>) -> Option<NsInum> {
    inum.map(NsInum)
}

fn three() -> Snapshot {
    let zombie = SnapshotProcess { state: Some('Z'), ..process(&[7, 3, 2], Some(5), Some(30)) };
    snapshot(
        vec![
            process(&[1], None, Some(10)),
            process(&[4, 1], Some(1), Some(20)),
            process(&[5, 2, 1], Some(4), Some(30)),
            process(&[6, 9], Some(1), Some(20)),
            zombie,
            process(&[8, 4], Some(77), None),
        ],
        vec![namespace(10, 0, None), namespace(20, 1, Some(10)), namespace(30, 2, Some(20))],
    )
}

#[test]
fn namespaces_come_after_their_parents() {
    let snapshot = three();
    let forest = Forest::new(&snapshot);
    let walk = |from: Option<NsInum>| -> Vec<_> {
        forest
            .walk(from.as_ref().map(std::slice::from_ref))
            .iter()
            .map(|(depth, node)| (*depth, node.namespace.inum.0))
            .collect()
    };
    assert_eq!(walk(None), [(0, 10), (1, 20), (2, 30)]);
    assert_eq!(walk(Some(NsInum(20))), [(0, 20), (1, 30)]);
    assert_eq!(walk(Some(NsInum(5))), []);
    let inner = forest.node(NsInum(30)).expect("a node");
    assert_eq!((inner.members.len(), inner.zombies(), inner.holders.len()), (2, 1, 1));
    assert_eq!(inner.init().map(|init| init.pid), Some(HostPid(5)));
}

#[test]
fn each_level_has_its_namespace() {
    let snapshot = three();
    let forest = Forest::new(&snapshot);
    assert_eq!(forest.levels(&snapshot.processes[2]), [Some(10), Some(20), Some(30)].map(known));
    assert_eq!(forest.levels(&snapshot.processes[5]), [Some(10), None].map(known));
}

#[test]
fn an_ended_process_has_the_levels_of_its_own_time() {
    let mut snapshot = three();
    let born = |inum, level, parent, born_boot_ns| SnapshotNamespace {
        born_boot_ns: Some(born_boot_ns),
        ..namespace(inum, level, Some(parent)).1
    };
    const SECOND: u64 = 1_000_000_000;
    // Two earlier namespaces had the number 30, one inside 25, the earlier one inside 26. Both parents are gone too.
    snapshot.namespaces.insert(NsInum(30), born(30, 2, 20, BootNs(9 * SECOND)));
    let gone = [
        born(30, 2, 25, BootNs(5 * SECOND)),
        born(25, 1, 10, BootNs(4 * SECOND)),
        born(30, 2, 26, BootNs(2 * SECOND)),
        born(26, 1, 10, BootNs(SECOND)),
    ];
    let forest = Forest::new(&snapshot).with_gone(&gone);
    let dead = |start| SnapshotProcess { start_boot_ns: Some(start), ..process(&[70, 8, 3], None, Some(30)) };
    assert_eq!(forest.levels(&dead(BootNs(9 * SECOND))), [Some(10), Some(20), Some(30)].map(known));
    assert_eq!(forest.levels(&dead(BootNs(6 * SECOND))), [Some(10), Some(25), Some(30)].map(known));
    assert_eq!(forest.levels(&dead(BootNs(3 * SECOND))), [Some(10), Some(26), Some(30)].map(known));
    // Without a memory of gone namespaces, only the process itself shows the number.
    let forest = Forest::new(&snapshot);
    let lost = process(&[71, 9, 4], None, Some(99));
    assert_eq!(forest.levels(&lost), [Some(10), None, Some(99)].map(known));
}

#[test]
fn a_process_whose_parent_is_outside_has_joined() {
    let snapshot = three();
    let forest = Forest::new(&snapshot);
    let entries: Vec<_> = snapshot.processes.iter().map(|process| forest.entry(process)).collect();
    let parent = &snapshot.processes[0];
    let joined =
        Entry::Joined { forked_by: None, parent: Some(parent.pid), origin: Some(Origin::from(parent)) };
    assert_eq!(entries, [Entry::Born, Entry::Born, Entry::Born, joined, Entry::Born, Entry::Unknown]);
}

/// As with `docker exec -d`: the joined process exists, its forker is gone, and its new parent is uncertain.
#[test]
fn a_joined_process_stays_joined_after_its_forker_is_gone() {
    use crate::event::{Body, Event, Process as EventProcess};
    let at = |pids: &[u32], ns| EventProcess {
        pid: HostPid(pids[0]),
        pids: pids.to_vec(),
        comm: "x".into(),
        start_boot_ns: BootNs(u64::from(pids[0])),
        ppid: Some(HostPid(1)),
        uid: 0,
        ns,
        container: None,
    };
    let (parent, child) = (at(&[5], NsInum(10)), at(&[6, 3], NsInum(11)));
    let forked = |process: &EventProcess, parent: &EventProcess| Body::ProcessFork {
        process: process.clone(),
        parent: parent.clone(),
        crosses: process.ns != parent.ns,
        restored: false,
    };
    let reap = Body::ProcessReap { process: parent.clone(), zombie_ns: None };
    let bodies = [forked(&parent, &at(&[1], NsInum(10))), forked(&child, &parent), reap];
    let mut world = World::default();
    for (body, boot_ns) in bodies.into_iter().zip(100..) {
        let time = jiff::Timestamp::UNIX_EPOCH;
        world.apply(&Event { seq: 1, time, boot_ns: BootNs(boot_ns), exact: true, body });
    }
    let snapshot = world.snapshot();
    let process = snapshot.processes.iter().find(|process| process.pid == HostPid(6)).expect("process 6");
    let forest = Forest::new(&snapshot);
    assert_eq!(forest.entry(process), Entry::Unknown);
    let comm = "x".into();
    let origin = Some(Origin { pid: HostPid(5), comm: Some(&comm), ns: Some(NsInum(10)) });
    let joined = Entry::Joined { forked_by: Some(HostPid(5)), parent: process.ppid, origin };
    assert_eq!(forest.with_entries(&world).entry(process), joined, "the forker's name is known");
    // Another process now has the forker's PID.
    let other = SnapshotProcess {
        start_boot_ns: Some(BootNs(500)),
        comm: Some("other".into()),
        ..SnapshotProcess::bare(HostPid(5))
    };
    let mut snapshot = snapshot.clone();
    snapshot.processes.push(other);
    let process = snapshot.processes.iter().find(|process| process.pid == HostPid(6)).expect("process 6");
    assert_eq!(Forest::new(&snapshot).with_entries(&world).entry(process), joined);
}

#[test]
fn an_unreadable_process_is_known_by_its_pid() {
    let mut snapshot = three();
    snapshot.processes.push(SnapshotProcess::bare(HostPid(9)));
    let forest = Forest::new(&snapshot);
    let unknown = &snapshot.processes[6];
    assert_eq!(forest.levels(unknown), [Some(10)].map(known));
    assert_eq!(forest.entry(unknown), Entry::Unknown);
}

proptest! {
    #[test]
    fn every_namespace_is_walked_once_with_any_parents(
        links in prop::collection::vec((0u32..20, 0u32..5, prop::option::of(0u32..20)), 0..20)
    ) {
        let namespaces = links.iter().map(|(inum, level, parent)| namespace(*inum, *level, *parent)).collect();
        let members = links.iter().map(|(inum, _, _)| process(&[inum + 1, 1], Some(3), Some(*inum))).collect();
        let snapshot = snapshot(members, namespaces);
        let forest = Forest::new(&snapshot);
        let mut walked: Vec<_> = forest.walk(None).iter().map(|(_, node)| node.namespace.inum).collect();
        walked.sort_unstable();
        prop_assert_eq!(walked, snapshot.namespaces.keys().copied().collect::<Vec<_>>());
        for process in &snapshot.processes {
            forest.levels(process);
            forest.entry(process);
        }
    }
}
