//! Under a root of files and links.

use crate::event::identity::{BootNs, HostPid, NsInum};
use std::{os::unix::fs::symlink, sync::mpsc, thread, time::Duration};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{ties::Ties, *};
use crate::event::snapshot::Holder;
use crate::event::snapshot::Unread;

const NUMBERS: &str = "S 7 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4567 8 9";

/// A process in a /proc of files and links.
fn put(root: &Path, pids: &[u32], ppid: u32, ns: Option<u32>) -> PathBuf {
    let folder = root.join(pids[0].to_string());
    fs::create_dir_all(folder.join("ns")).expect("a folder");
    fs::create_dir_all(folder.join("fd")).expect("a folder");
    let list = pids.iter().map(ToString::to_string).collect::<Vec<_>>().join("\t");
    let status = format!("Name:\tx\nUid:\t5\t5\t5\t5\nNSpid:\t{list}\nThreads:\t1\n");
    fs::write(folder.join("status"), status).expect("a file");
    let numbers = NUMBERS.replacen('7', &ppid.to_string(), 1);
    fs::write(folder.join("stat"), format!("{} (x) {numbers}", pids[0])).expect("a file");
    if let Some(ns) = ns {
        symlink(format!("pid:[{ns}]"), folder.join("ns/pid")).expect("a link");
    }
    folder
}

#[test]
fn a_replaced_root_is_read() {
    let root = tempfile::tempdir().expect("a temporary directory");
    put(root.path(), &[1], 0, Some(100));
    let holder = put(root.path(), &[20], 1, Some(100));
    put(root.path(), &[30, 1], 20, Some(200));
    fs::create_dir(root.path().join("40")).expect("a process that is gone");
    fs::write(root.path().join("version"), "x").expect("a file");
    symlink("pid:[300]", holder.join("fd/5")).expect("a link");
    symlink("/dev/null", holder.join("fd/6")).expect("a link");
    symlink("pid:[200]", holder.join("ns/pid_for_children")).expect("a link");
    symlink("mnt:[900]", holder.join("ns/mnt")).expect("a link");
    let mounts = "80 27 0:4 pid:[400] /run/it rw - nsfs nsfs rw\n";
    fs::write(holder.join("mountinfo"), mounts).expect("a file");

    let procfs = Procfs::at(root.path());
    let mut snapshot = procfs.snapshot(BootNs(9), &mut || {}).expect("a /proc");
    let pids: Vec<_> = snapshot.processes.iter().map(|process| (process.pid, process.ns)).collect();
    assert_eq!(pids, [(1, 100), (20, 100), (30, 200)].map(|(pid, ns)| (HostPid(pid), Some(NsInum(ns)))));
    assert_eq!(snapshot.processes[2].pids, [30, 1]);
    assert_eq!(snapshot.namespaces.keys().copied().collect::<Vec<_>>(), [100, 200].map(NsInum));
    assert_eq!(snapshot.namespaces[&NsInum(200)].level, 1);
    assert!(snapshot.unread.is_nothing());

    procfs.add_holders(&mut snapshot, Ties::default(), &mut || {});
    let name = || Some(Name::from("x"));
    let expected = [
        (NsInum(200), Holder::PidForChildren { pid: HostPid(20), comm: name() }),
        (NsInum(300), Holder::Fd { pid: HostPid(20), comm: name(), fd: 5, tid: None }),
        (NsInum(400), Holder::Mount { path: Name::from("/run/it"), mount_ns: 900, pid: HostPid(20) }),
    ];
    assert_eq!(snapshot.holders, expected);
    assert!(snapshot.holders_left_out.is_empty());
    assert!(snapshot.namespaces.contains_key(&NsInum(300)) && snapshot.namespaces.contains_key(&NsInum(400)));
}

#[test]
fn however_often_one_namespace_is_held_the_first_holders_of_each_kind_are_kept() {
    let root = tempfile::tempdir().expect("a temporary directory");
    put(root.path(), &[1], 0, Some(100));
    let holder = put(root.path(), &[20], 1, Some(100));
    for fd in 0..1_000 {
        symlink("pid:[300]", holder.join(format!("fd/{fd}"))).expect("a link");
    }
    symlink("pid:[300]", holder.join("ns/pid_for_children")).expect("a link");
    symlink("mnt:[900]", holder.join("ns/mnt")).expect("a link");
    let mounts: String =
        (0..1_000).map(|at| format!("{at} 27 0:4 pid:[300] /run/{at} rw - nsfs nsfs rw\n")).collect();
    fs::write(holder.join("mountinfo"), mounts).expect("a file");
    let procfs = Procfs::at(root.path());
    let mut snapshot = procfs.snapshot(BootNs(9), &mut || {}).expect("a /proc");
    procfs.add_holders(&mut snapshot, Ties::default(), &mut || {});
    let is_kept = |kind: fn(&Holder) -> bool| snapshot.holders.iter().any(|(_, holder)| kind(holder));
    assert!(is_kept(|holder| matches!(holder, Holder::Fd { .. })));
    assert!(is_kept(|holder| matches!(holder, Holder::Mount { .. })));
    assert!(is_kept(|holder| matches!(holder, Holder::PidForChildren { .. })));
    assert!(snapshot.holders.len() < 100, "{} holders", snapshot.holders.len());
    let all = snapshot.holders.len() as u64 + snapshot.holders_left_out[&NsInum(300)];
    assert_eq!(all, 2_001);
}

#[test]
fn a_fifo_where_a_namespace_should_be_is_not_waited_for() {
    let root = tempfile::tempdir().expect("a temporary directory");
    put(root.path(), &[1], 0, Some(100));
    let holder = put(root.path(), &[20], 1, Some(100));
    let fifo = |place: PathBuf| {
        mknodat(CWD, place, FileType::Fifo, Mode::RUSR, 0).expect("a FIFO");
    };
    fs::create_dir(holder.join("root")).expect("a folder");
    fifo(holder.join("root/it"));
    fs::write(holder.join("mountinfo"), "80 27 0:4 pid:[400] /it rw - nsfs nsfs rw\n").expect("a file");
    symlink("mnt:[900]", holder.join("ns/mnt")).expect("a link");
    // What the links lead to, in this /proc.
    symlink("pid:[300]", holder.join("fd/5")).expect("a link");
    fifo(holder.join("fd/pid:[300]"));
    fifo(holder.join("ns/pid:[100]"));
    let (sender, answer) = mpsc::channel();
    let procfs = Procfs::at(root.path());
    thread::spawn(move || {
        let mut snapshot = procfs.snapshot(BootNs(9), &mut || {}).expect("a /proc");
        procfs.add_holders(&mut snapshot, Ties::default(), &mut || {});
        sender.send(snapshot.namespaces)
    });
    let namespaces = answer.recv_timeout(Duration::from_secs(20)).expect("it waits for a writer");
    assert_eq!(namespaces.keys().copied().collect::<Vec<_>>(), [100, 300, 400].map(NsInum));
}

/// The snapshot of this /proc with its holders, and those of which only the descriptor's owner is recorded.
#[test]
fn a_folder_that_nothing_is_mounted_at_is_no_proc() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let error = Procfs::at(root.path()).check().expect_err("an error").to_string();
    assert!(
        error.contains("no proc file system is mounted at") && error.contains("mount -t proc"),
        "{error}"
    );
    Procfs::default().check().expect("this machine's");
}

fn held(root: &Path) -> (Snapshot, Vec<(u32, u32)>) {
    let procfs = Procfs::at(root);
    let mut snapshot = procfs.snapshot(BootNs(9), &mut || {}).expect("a /proc");
    procfs.add_holders(&mut snapshot, Ties::default(), &mut || {});
    let files = snapshot.holders.iter().filter_map(|(inum, holder)| match holder {
        Holder::Fd { fd, .. } => Some((inum.0, *fd)),
        _ => None,
    });
    let files = files.collect();
    (snapshot, files)
}

#[test]
fn one_unreadable_descriptor_does_not_hide_the_others() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let holder = put(root.path(), &[20], 0, Some(100));
    for fd in [3, 5, 7, 11] {
        symlink(format!("pid:[{}]", 300 + fd), holder.join(format!("fd/{fd}"))).expect("a link");
    }
    spoil(&holder.join("fd/6"));
    let (snapshot, files) = held(root.path());
    assert_eq!(files, [(303, 3), (305, 5), (307, 7), (311, 11)]);
    assert_eq!(snapshot.unread.files, 1);
}

#[test]
fn a_process_whose_first_thread_has_ended_holds_the_files_of_the_others() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let process = put(root.path(), &[20], 0, Some(100));
    let stat = fs::read_to_string(process.join("stat")).expect("our own file");
    fs::write(process.join("stat"), stat.replace(") S", ") Z")).expect("our own file");
    let status = fs::read_to_string(process.join("status")).expect("our own file");
    fs::write(process.join("status"), status.replace("Threads:\t1", "Threads:\t2")).expect("our own file");
    let thread = process.join("task/21");
    for folder in ["fd", "ns"] {
        fs::create_dir_all(thread.join(folder)).expect("a folder");
    }
    fs::create_dir(process.join("task/20")).expect("a folder");
    symlink("pid:[300]", thread.join("fd/5")).expect("a link");
    symlink("pid:[400]", thread.join("ns/pid_for_children")).expect("a link");
    symlink("mnt:[900]", thread.join("ns/mnt")).expect("a link");
    fs::write(thread.join("mountinfo"), "80 27 0:4 pid:[500] /it rw - nsfs nsfs rw\n").expect("a file");
    let (snapshot, files) = held(root.path());
    assert_eq!(files, [(300, 5)]);
    let held: Vec<u32> = snapshot.holders.iter().map(|(inum, _)| inum.0).collect();
    assert_eq!(held, [300, 400, 500], "{:?}", snapshot.holders);
}

#[test]
fn a_thread_that_has_joined_a_namespace_holds_it() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let process = put(root.path(), &[20], 0, Some(100));
    let status = fs::read_to_string(process.join("status")).expect("our own file");
    fs::write(process.join("status"), status.replace("Threads:\t1", "Threads:\t4")).expect("our own file");
    symlink("pid:[100]", process.join("ns/pid_for_children")).expect("a link");
    for (tid, inum) in [(20, 100), (21, 300), (22, 300), (23, 100)] {
        let thread = process.join(format!("task/{tid}/ns"));
        fs::create_dir_all(&thread).expect("a folder");
        symlink(format!("pid:[{inum}]"), thread.join("pid_for_children")).expect("a link");
    }
    let (snapshot, _) = held(root.path());
    let holder = Holder::PidForChildren { pid: HostPid(20), comm: Some(Name::from("x")) };
    assert_eq!(snapshot.holders, [(NsInum(300), holder)], "once");
}

#[test]
fn mounts_outside_of_the_root_of_one_process_are_found_through_another() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let mount =
        |id: u32, inum: u32, place: &str| format!("{id} 27 0:4 pid:[{inum}] {place} rw - nsfs nsfs rw\n");
    let (inside, outside) = (mount(80, 300, "/it"), mount(81, 400, "/run/it"));
    for (pid, jail, mountinfo) in [
        (20, "jail", inside.clone()),
        (21, "jail", "not read".to_owned()),
        (22, ".", inside.replace("/it", "/jail/it") + &outside),
    ] {
        let process = put(root.path(), &[pid], 0, Some(100));
        symlink("mnt:[900]", process.join("ns/mnt")).expect("a link");
        let jail = root.path().join(jail);
        fs::create_dir_all(&jail).expect("a folder");
        symlink(jail, process.join("root")).expect("a link");
        fs::write(process.join("mountinfo"), mountinfo).expect("a file");
    }
    let (snapshot, _) = held(root.path());
    let of = |path: &str, pid| Holder::Mount { path: Name::from(path), mount_ns: 900, pid: HostPid(pid) };
    assert_eq!(
        snapshot.holders,
        [(NsInum(300), of("/it", 20)), (NsInum(400), of("/run/it", 22))],
        "each mount once"
    );
}

#[test]
fn a_hidden_process_may_hold_unknown_namespaces() {
    let root = tempfile::tempdir().expect("a temporary directory");
    put(root.path(), &[1], 0, Some(100));
    let own = root.path().join("self");
    fs::create_dir(&own).expect("a folder");
    let mount = |options| format!("22 27 0:21 / {} rw - proc proc {options}\n", root.path().display());
    let procfs = Procfs::at(root.path());
    let mut snapshot = procfs.snapshot(BootNs(9), &mut || {}).expect("a /proc");
    // The task iterator lists one more.
    let hidden = SnapshotProcess { pid: HostPid(99), pids: vec![99], ..snapshot.processes[0].clone() };
    snapshot.processes.push(hidden);
    for (source, options, count) in [
        (SnapshotSource::Iterator, "rw,hidepid=invisible", 1),
        (SnapshotSource::Iterator, "rw", 0),
        (SnapshotSource::Proc, "rw,hidepid=invisible", 0),
    ] {
        fs::write(own.join("mountinfo"), mount(options)).expect("a file");
        let mut snapshot = Snapshot { source, ..snapshot.clone() };
        procfs.add_holders(&mut snapshot, Ties::default(), &mut || {});
        let Unread { files, mounts, .. } = snapshot.unread;
        assert_eq!((files, mounts), (count, count), "{source:?}, {options}");
    }
}

#[test]
fn left_out_processes_are_added() {
    let root = tempfile::tempdir().expect("a temporary directory");
    put(root.path(), &[1], 0, None);
    put(root.path(), &[20], 1, Some(100));
    put(root.path(), &[30, 1], 20, Some(200));
    put(root.path(), &[40, 1], 20, None);
    let procfs = Procfs::at(root.path());
    let mut snapshot = procfs.snapshot(BootNs(0), &mut || {}).expect("a /proc");
    let whole = snapshot.clone();
    assert_eq!(whole.processes[0].ns, Some(NsInum(100)), "who has one PID is in the outermost namespace");
    snapshot.processes.retain(|process| process.pid == HostPid(20));
    snapshot.namespaces.retain(|inum, _| *inum == NsInum(100));
    snapshot.unread = Unread::default();
    procfs.add_left_out(&mut snapshot, &mut || {}).expect("a /proc");
    assert_eq!(snapshot.processes, whole.processes);
    assert_eq!(snapshot.unread.namespaces, 1);
    assert_eq!(snapshot.namespaces, whole.namespaces);
    assert!(whole.namespaces[&NsInum(200)].born_boot_ns.is_some(), "its init's start");
}

/// A file that not even root can read: reading it is EISDIR.
fn spoil(file: &Path) {
    let _ = fs::remove_file(file);
    fs::create_dir(file).expect("a folder in the file's place");
}

#[test]
fn unreadable_values_are_unknown_and_not_absent() {
    let root = tempfile::tempdir().expect("a temporary directory");
    put(root.path(), &[1], 0, Some(100));
    let closed = put(root.path(), &[20, 2], 1, Some(200));
    for file in ["status", "stat", "ns/pid"] {
        spoil(&closed.join(file));
    }
    let half = put(root.path(), &[30, 3], 1, Some(200));
    spoil(&half.join("stat"));
    let other = put(root.path(), &[40, 4], 1, Some(200));
    spoil(&other.join("status"));
    let procfs = Procfs::at(root.path());
    let snapshot = procfs.snapshot(BootNs(0), &mut || {}).expect("a /proc");
    let [_, closed, half, other] = &snapshot.processes[..] else { panic!("{snapshot:?}") };
    assert_eq!(*closed, SnapshotProcess::bare(HostPid(20)));
    assert_eq!((half.level(), half.ns, half.uid, half.state), (Some(1), Some(NsInum(200)), Some(5), None));
    assert_eq!((other.level(), other.ns, other.uid, other.state), (None, Some(NsInum(200)), None, Some('S')));
    assert_eq!(snapshot.unread, Unread { processes: 2, namespaces: 1, ..Unread::default() });

    let mut partial = Snapshot { processes: Vec::new(), unread: Unread::default(), ..snapshot.clone() };
    procfs.add_left_out(&mut partial, &mut || {}).expect("a /proc");
    assert_eq!((&partial.processes, partial.unread), (&snapshot.processes, snapshot.unread));
}

#[test]
fn a_root_that_is_not_there_is_an_error() {
    assert!(Procfs::at("/nowhere").snapshot(BootNs(0), &mut || {}).is_err());
}
