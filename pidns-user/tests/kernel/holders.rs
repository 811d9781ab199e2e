//! Holders of namespaces in snapshots, found by the kernel's iterators and in /proc.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use pidns_user::event::identity::{HostPid, NsInum};
use pidns_user::event::snapshot::{Holder, Snapshot, SnapshotSource};
use pidns_user::kernel::{
    clock,
    iterator::{TaskIterator, snapshot_of},
};
use pidns_user::procfs::{Procfs, kernel_holders::KernelHolders};
use pidns_user::source::observer::{NoIterator, Observer};

use crate::actor_handle::Actor;
use crate::facts::{Held, Who};
use crate::forest::{document, let_go, namespace, output, still};
use crate::sys::Pid;
use crate::{Test, test};

pub(crate) const TESTS: &[Test] = &[
    test!(files_that_are_open_in_different_ways_are_each_found_once),
    test!(a_namespace_held_only_by_files_is_described_as_from_proc),
    test!(the_iterators_and_proc_find_the_same_holders),
    test!(without_the_holder_iterators_holders_are_read_from_proc),
];

/// The situation, and the held namespace.
fn held_in_many_ways() -> (Actor, u64) {
    let mut actor = still("still-held-in-many-ways");
    let ns = actor.hear("ns");
    (actor, ns)
}

/// The descriptors of all threads that refer to this namespace, from /proc.
fn descriptors_by_proc(pid: Pid, ns: u64) -> BTreeSet<(Pid, i32)> {
    let link = format!("pid:[{ns}]");
    let mut found = BTreeSet::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).expect("list the threads").flatten() {
        // The directory of an ended thread is empty or unreadable.
        for file in fs::read_dir(thread.path().join("fd")).into_iter().flatten().flatten() {
            if fs::read_link(file.path()).is_ok_and(|target| target.to_str() == Some(&link)) {
                let fd = file.file_name().to_str().and_then(|fd| fd.parse().ok()).expect("a number");
                found.insert((pid, fd));
            }
        }
    }
    found
}

fn files_that_are_open_in_different_ways_are_each_found_once() {
    let (mut actor, ns) = held_in_many_ways();
    let going: Pid = actor.hear("children go there");
    let zombie: Pid = actor.hear("zombie");
    let expected: BTreeSet<Held> = actor.all_heard::<Held>("held").into_iter().collect();
    assert_eq!(expected.len(), 8, "expected each way once: {expected:?}");
    let tree = document(&["tree"]);
    let holders = namespace(&tree, ns)["holders"].as_array().expect("holders").clone();
    let files = holders.iter().filter(|holder| holder["kind"] == "fd");
    let files: Vec<Held> = files
        .map(|holder| {
            serde_json::from_value(holder.clone()).unwrap_or_else(|error| panic!("{error}: {holder}"))
        })
        .collect();
    assert_eq!(files.iter().cloned().collect::<BTreeSet<_>>(), expected, "{tree:#}");
    assert_eq!(files.len(), expected.len(), "a file was found twice: {files:?}");
    let by_proc: BTreeSet<(Pid, i32)> = files
        .iter()
        .map(|held| held.pid)
        .chain([zombie])
        .flat_map(|pid| descriptors_by_proc(pid, ns))
        .collect();
    assert_eq!(files.iter().map(|held| (held.pid, held.fd)).collect::<BTreeSet<_>>(), by_proc);
    let others: Vec<_> = holders.iter().filter(|holder| holder["kind"] != "fd").collect();
    assert_eq!(others.len(), 1, "{others:?}");
    assert_eq!((&others[0]["kind"], &others[0]["pid"]), (&"pid_for_children".into(), &going.into()));
    let of_thread = files.iter().find(|held| held.tid.is_some()).expect("find a file of a thread");
    let (table, _) = output(&["explain", &ns.to_string()], 0);
    let named = format!("fd {} of thread {}", of_thread.fd, of_thread.tid.unwrap_or_default());
    assert!(table.contains(&named), "{named}: {table}");
    let_go(actor);
}

/// A snapshot from the task iterator, with holders from the iterators or from /proc.
fn observed(iterator: &mut TaskIterator, by_iterators: bool) -> Snapshot {
    let records = iterator.read(&mut || {}).unwrap_or_else(|error| panic!("{error}"));
    let mut snapshot =
        snapshot_of(clock::boottime_ns(), clock::boottime_ns(), &records).expect("decode the records");
    let procfs = Procfs::default();
    procfs.add_left_out(&mut snapshot, &mut || {}).expect("read /proc");
    let from_kernel = if by_iterators {
        iterator.read_holders(&snapshot, &mut || {}).unwrap_or_else(|error| panic!("{error}"))
    } else {
        KernelHolders::default()
    };
    procfs.add_holders(&mut snapshot, from_kernel, &mut || {});
    snapshot
}

fn iterators() -> TaskIterator {
    TaskIterator::load_with_holders().unwrap_or_else(|error| panic!("{error}"))
}

/// The holders that both ways can find. /proc is not read for threads with a separate file table.
fn comparable(snapshot: &Snapshot, first_threads: &dyn Fn(HostPid) -> bool) -> BTreeMap<NsInum, Vec<Holder>> {
    let mut all: BTreeMap<NsInum, Vec<Holder>> = BTreeMap::new();
    for (inum, holder) in &snapshot.holders {
        let is_of_own_table = match holder {
            Holder::Fd { pid, tid: Some(_), .. } => first_threads(*pid),
            _ => false,
        };
        if !is_of_own_table {
            all.entry(*inum).or_default().push(holder.clone());
        }
    }
    all
}

fn a_namespace_held_only_by_files_is_described_as_from_proc() {
    let (actor, ns) = held_in_many_ways();
    let mut nested = still("still-held-within-another");
    let [outer, inner]: [u64; 2] = nested.hear("namespaces");
    let mut iterators = iterators();
    let (by_iterators, by_proc) = (observed(&mut iterators, true), observed(&mut iterators, false));
    let own = Who::myself().ns;
    for (ns, level, parent) in [(ns, 1, own), (outer, 1, own), (inner, 2, outer)] {
        let ns = NsInum(ns as u32);
        let described = &by_iterators.namespaces[&ns];
        assert_eq!(described, &by_proc.namespaces[&ns]);
        assert_eq!(
            (described.level, described.parent.map(|parent| u64::from(parent.0))),
            (level, Some(parent))
        );
        assert!(described.owner_uid.is_some() && described.born_boot_ns.is_none(), "{described:?}");
    }
    let_go(nested);
    let_go(actor);
}

fn the_iterators_and_proc_find_the_same_holders() {
    let (actor, ns) = held_in_many_ways();
    let others = ["still-joined", "still-held-by-a-mount", "still-held-by-unshare", "still-shown-by-procs"];
    let others: Vec<Actor> = others.into_iter().map(still).collect();
    let mut iterators = iterators();
    // For a process whose first thread has ended, both ways read the files of another thread.
    let has_first = |pid: HostPid| fs::read_link(format!("/proc/{pid}/root")).is_ok();
    let before = comparable(&observed(&mut iterators, false), &has_first);
    let found = comparable(&observed(&mut iterators, true), &has_first);
    let after = comparable(&observed(&mut iterators, false), &has_first);
    let mut compared = 0;
    for (inum, holders) in &before {
        // Skip namespaces whose holders changed meanwhile, because others use this machine.
        if after.get(inum) == Some(holders) {
            assert_eq!(found.get(inum), Some(holders), "the holders of {inum}");
            compared += 1;
        }
    }
    assert!(compared >= 4 && before.contains_key(&NsInum(ns as u32)), "{compared} compared of {before:?}");
    println!("{compared} namespaces compared");
    for mut other in others {
        if other.heard_any("init's mount namespace") {
            other.go();
            let _: bool = other.hear("orphaned");
            other.go();
            let _: bool = other.hear("unmounted");
        }
        let_go(other);
    }
    let_go(actor);
}

fn without_the_holder_iterators_holders_are_read_from_proc() {
    let (mut actor, ns) = held_in_many_ways();
    let going: Pid = actor.hear("children go there");
    let alone = TaskIterator::load().unwrap_or_else(|error| panic!("{error}"));
    assert!(alone.holders_loaded().is_err(), "the holder iterators were not loaded");
    let ns = NsInum(ns as u32);
    let held = |snapshot: &Snapshot| -> Vec<Holder> {
        snapshot.holders.iter().filter(|(inum, _)| *inum == ns).map(|(_, holder)| holder.clone()).collect()
    };
    let snapshot = Observer::before_a_stream()
        .without_holders()
        .snapshot(true, &mut || {})
        .expect("a snapshot")
        .snapshot;
    assert_eq!(snapshot.source, SnapshotSource::Iterator);
    let found = held(&snapshot);
    // /proc shows only what is not specific to a thread: six of the eight files, and pid_for_children.
    assert_eq!(found.len(), 7, "{found:?}");
    let goes =
        |holder: &Holder| matches!(holder, Holder::PidForChildren { pid, .. } if pid.0 == going as u32);
    assert!(found.iter().any(goes), "{found:?}");
    let refused = Observer::refusing(|_| Err(NoIterator::Refused("no such thing".to_owned())));
    let snapshot = { refused }.snapshot(true, &mut || {}).expect("a snapshot").snapshot;
    assert_eq!(
        (snapshot.source, held(&snapshot)),
        (SnapshotSource::Proc, found),
        "everything comes from /proc"
    );
    let_go(actor);
}
