//! Tests with a made-up /proc of files and links.

use crate::event::identity::{BootNs, HostPid, NsInum};
use std::{os::unix::fs::symlink, sync::mpsc, thread, time::Duration};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{kernel_holders::KernelHolders, *};
use crate::event::snapshot::Holder;
use crate::event::snapshot::Unread;

const NUMBERS: &str = "S 7 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4567 8 9";

/// Adds a process to a /proc of files and links.
fn put(root: &Path, pids: &[u32], ppid: u32, ns: Option<u32>) -> PathBuf {
    let folder = root.join(pids[0].to_string());
    fs::create_dir_all(folder.join("ns")).expect("create a directory");
    fs::create_dir_all(folder.join("fd")).expect("create a directory");
    let list = pids.iter().map(ToString::to_string).collect::<Vec<_>>().join("\t");
    let status = format!("Name:\tx\nUid:\t5\t5\t5\t5\nNSpid:\t{list}\nThreads:\t1\n");
    fs::write(folder.join("status"), status).expect("write a file");
    let numbers = NUMBERS.replacen('7', &ppid.to_string(), 1);
    fs::write(folder.join("stat"), format!("{} (x) {numbers}", pids[0])).expect("write a file");
    if let Some(ns) = ns {
        symlink(format!("pid:[{ns}]"), folder.join("ns/pid")).expect("create a link");
    }
    folder
}

#[test]
fn a_replaced_root_is_read() {
    let root = tempfile::tempdir().expect("a temporary directory");
    put(root.path(), &[1], 0, Some(100));
    let holder = put(root.path(), &[20], 1, Some(100));
    put(root.path(), &[30, 1], 20, Some(200));
    // A process that is gone while it is read.
    fs::create_dir(root.path().join("40")).expect("create a directory");
    fs::write(root.path().join("version"), "x").expect("write a file");
    symlink("pid:[300]", holder.join("fd/5")).expect("create a link");
    symlink("/dev/null", holder.join("fd/6")).expect("create a link");
    symlink("pid:[200]", holder.join("ns/pid_for_children")).expect("create a link");
    symlink("mnt:[900]", holder.join("ns/mnt")).expect("create a link");
    let mounts = "80 27 0:4 pid:[400] /run/it rw - nsfs nsfs rw\n";
    fs::write(holder.join("mountinfo"), mounts).expect("write a file");

    let procfs = Procfs::at(root.path());
    let mut snapshot = procfs.snapshot(BootNs(9), &mut || {}).expect("a /proc");
    let pids: Vec<_> = snapshot.processes.iter().map(|process| (process.pid, process.ns)).collect();
    assert_eq!(pids, [(1, 100), (20, 100), (30, 200)].map(|(pid, ns)| (HostPid(pid), Some(NsInum(ns)))));
    assert_eq!(snapshot.processes[2].pids, [30, 1]);
    assert_eq!(snapshot.namespaces.keys().copied().collect::<Vec<_>>(), [100, 200].map(NsInum));
    assert_eq!(snapshot.namespaces[&NsInum(200)].level, 1);
    assert!(snapshot.unread.is_nothing());

    procfs.add_holders(&mut snapshot, KernelHolders::default(), &mut || {});
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
fn the_first_holders_of_each_kind_are_kept() {
    let root = tempfile::tempdir().expect("a temporary directory");
    put(root.path(), &[1], 0, Some(100));
    let holder = put(root.path(), &[20], 1, Some(100));
    for fd in 0..1_000 {
        symlink("pid:[300]", holder.join(format!("fd/{fd}"))).expect("create a link");
    }
    symlink("pid:[300]", holder.join("ns/pid_for_children")).expect("create a link");
    symlink("mnt:[900]", holder.join("ns/mnt")).expect("create a link");
    let mounts: String =
        (0..1_000).map(|at| format!("{at} 27 0:4 pid:[300] /run/{at} rw - nsfs nsfs rw\n")).collect();
    fs::write(holder.join("mountinfo"), mounts).expect("write a file");
    let procfs = Procfs::at(root.path());
    let mut snapshot = procfs.snapshot(BootNs(9), &mut || {}).expect("a /proc");
    procfs.add_holders(&mut snapshot, KernelHolders::default(), &mut || {});
    let is_kept = |kind: fn(&Holder) -> bool| snapshot.holders.iter().any(|(_, holder)| kind(holder));
    assert!(is_kept(|holder| matches!(holder, Holder::Fd { .. })));
    assert!(is_kept(|holder| matches!(holder, Holder::Mount { .. })));
    assert!(is_kept(|holder| matches!(holder, Holder::PidForChildren { .. })));
    assert!(snapshot.holders.len() < 100, "{} holders", snapshot.holders.len());
    let all = snapshot.holders.len() as u64 + snapshot.holders_left_out[&NsInum(300)];
    assert_eq!(all, 2_001);
}

#[test]
fn a_fifo_instead_of_a_namespace_file_does_not_block() {
    let root = tempfile::tempdir().expect("a temporary directory");
    put(root.path(), &[1], 0, Some(100));
    let holder = put(root.path(), &[20], 1, Some(100));
    let fifo = |place: PathBuf| {
        mknodat(CWD, place, FileType::Fifo, Mode::RUSR, 0).expect("a FIFO");
    };
    fs::create_dir(holder.join("root")).expect("create a directory");
    fifo(holder.join("root/it"));
    fs::write(holder.join("mountinfo"), "80 27 0:4 pid:[400] /it rw - nsfs nsfs rw\n").expect("write a file");
    symlink("mnt:[900]", holder.join("ns/mnt")).expect("create a link");
    // The targets of the links, in this /proc.
    symlink("pid:[300]", holder.join("fd/5")).expect("create a link");
    fifo(holder.join("fd/pid:[300]"));
    fifo(holder.join("ns/pid:[100]"));
    let (sender, answer) = mpsc::channel();
    let procfs = Procfs::at(root.path());
    thread::spawn(move || {
        let mut snapshot = procfs.snapshot(BootNs(9), &mut || {}).expect("a /proc");
        procfs.add_holders(&mut snapshot, KernelHolders::default(), &mut || {});
        sender.send(snapshot.namespaces)
    });
    let namespaces =
        answer.recv_timeout(Duration::from_secs(20)).expect("an answer: it must not wait for a writer");
    assert_eq!(namespaces.keys().copied().collect::<Vec<_>>(), [100, 300, 400].map(NsInum));
}

#[test]
fn a_directory_without_a_mount_is_not_a_proc() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let error = Procfs::at(root.path()).check().expect_err("an error").to_string();
    assert!(
        error.contains("no proc file system is mounted at") && error.contains("mount -t proc"),
        "{error}"
    );
    Procfs::default().check().expect("this machine has a /proc");
}

/// A snapshot of this /proc with its holders, and the open namespace files as inode number and descriptor.
fn held(root: &Path) -> (Snapshot, Vec<(u32, u32)>) {
    let procfs = Procfs::at(root);
    let mut snapshot = procfs.snapshot(BootNs(9), &mut || {}).expect("a /proc");
    procfs.add_holders(&mut snapshot, KernelHolders::default(), &mut || {});
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
        symlink(format!("pid:[{}]", 300 + fd), holder.join(format!("fd/{fd}"))).expect("create a link");
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
        fs::create_dir_all(thread.join(folder)).expect("create a directory");
    }
    fs::create_dir(process.join("task/20")).expect("create a directory");
    symlink("pid:[300]", thread.join("fd/5")).expect("create a link");
    symlink("pid:[400]", thread.join("ns/pid_for_children")).expect("create a link");
    symlink("mnt:[900]", thread.join("ns/mnt")).expect("create a link");
    fs::write(thread.join("mountinfo"), "80 27 0:4 pid:[500] /it rw - nsfs nsfs rw\n").expect("write a file");
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
    symlink("pid:[100]", process.join("ns/pid_for_children")).expect("create a link");
    for (tid, inum) in [(20, 100), (21, 300), (22, 300), (23, 100)] {
        let thread = process.join(format!("task/{tid}/ns"));
        fs::create_dir_all(&thread).expect("create a directory");
        symlink(format!("pid:[{inum}]"), thread.join("pid_for_children")).expect("create a link");
    }
    let (snapshot, _) = held(root.path());
    let holder = Holder::PidForChildren { pid: HostPid(20), comm: Some(Name::from("x")) };
    assert_eq!(snapshot.holders, [(NsInum(300), holder)], "one holder for two threads");
}

#[test]
fn mounts_outside_the_root_of_one_process_are_found_through_another() {
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
        symlink("mnt:[900]", process.join("ns/mnt")).expect("create a link");
        let jail = root.path().join(jail);
        fs::create_dir_all(&jail).expect("create a directory");
        symlink(jail, process.join("root")).expect("create a link");
        fs::write(process.join("mountinfo"), mountinfo).expect("write a file");
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
    fs::create_dir(&own).expect("create a directory");
    let mount = |options| format!("22 27 0:21 / {} rw - proc proc {options}\n", root.path().display());
    let procfs = Procfs::at(root.path());
    let mut snapshot = procfs.snapshot(BootNs(9), &mut || {}).expect("a /proc");
    // The task iterator lists one more process.
    let hidden = SnapshotProcess { pid: HostPid(99), pids: vec![99], ..snapshot.processes[0].clone() };
    snapshot.processes.push(hidden);
    for (source, options, count) in [
        (SnapshotSource::Iterator, "rw,hidepid=invisible", 1),
        (SnapshotSource::Iterator, "rw", 0),
        (SnapshotSource::Proc, "rw,hidepid=invisible", 0),
    ] {
        fs::write(own.join("mountinfo"), mount(options)).expect("write a file");
        let mut snapshot = Snapshot { source, ..snapshot.clone() };
        procfs.add_holders(&mut snapshot, KernelHolders::default(), &mut || {});
        let Unread { files, mounts, .. } = snapshot.unread;
        assert_eq!((files, mounts), (count, count), "{source:?}, {options}");
    }
}

#[test]
fn omitted_processes_are_added() {
    let root = tempfile::tempdir().expect("a temporary directory");
    put(root.path(), &[1], 0, None);
    put(root.path(), &[20], 1, Some(100));
    put(root.path(), &[30, 1], 20, Some(200));
    put(root.path(), &[40, 1], 20, None);
    let procfs = Procfs::at(root.path());
    let mut snapshot = procfs.snapshot(BootNs(0), &mut || {}).expect("a /proc");
    let whole = snapshot.clone();
    assert_eq!(
        whole.processes[0].ns,
        Some(NsInum(100)),
        "a process with one PID is in the outermost namespace"
    );
    snapshot.processes.retain(|process| process.pid == HostPid(20));
    snapshot.namespaces.retain(|inum, _| *inum == NsInum(100));
    snapshot.unread = Unread::default();
    procfs.add_left_out(&mut snapshot, &mut || {}).expect("a /proc");
    assert_eq!(snapshot.processes, whole.processes);
    assert_eq!(snapshot.unread.namespaces, 1);
    assert_eq!(snapshot.namespaces, whole.namespaces);
    assert!(whole.namespaces[&NsInum(200)].born_boot_ns.is_some(), "its init's start");
}

#[test]
fn proc_is_not_listed_if_the_number_of_tasks_shows_that_the_list_is_complete() {
    let root = tempfile::tempdir().expect("a temporary directory");
    for pids in [&[1][..], &[20], &[30]] {
        put(root.path(), pids, 0, Some(100));
    }
    let procfs = Procfs::at(root.path());
    let whole = procfs.snapshot(BootNs(0), &mut || {}).expect("a /proc");
    // Which processes are listed, the machine's number of tasks, and which are known then.
    for (listed, tasks, expected) in [
        (&[1, 20][..], 2, &[1, 20][..]),
        (&[1, 20], 3, &[1, 20, 30]),
        (&[1, 20], 1, &[1, 20, 30]),
        (&[20, 30], 3, &[1, 20, 30]),
        (&[20], 2, &[1, 20]),
        (&[20], 3, &[1, 20, 30]),
    ] {
        fs::write(root.path().join("loadavg"), format!("0.1 0.2 0.3 1/{tasks} 30\n")).expect("write a file");
        let mut snapshot = whole.clone();
        snapshot.processes.retain(|process| listed.contains(&process.pid.0));
        procfs.add_left_out(&mut snapshot, &mut || {}).expect("a /proc");
        let found: Vec<u32> = snapshot.processes.iter().map(|process| process.pid.0).collect();
        assert_eq!(found, expected, "{listed:?} of {tasks}");
    }
}

#[test]
fn a_zombie_has_the_cgroup_that_proc_shows_for_it() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let mut snapshot = Snapshot::empty(SnapshotSource::Iterator, BootNs(0));
    for (pid, state, path) in [(20, 'Z', "/"), (21, 'S', "/web"), (22, 'S', "/not read"), (23, 'Z', "/")] {
        let folder = put(root.path(), &[pid], 1, None);
        fs::write(folder.join("cgroup"), format!("4:pids:{path}\n0::/\n")).expect("write a file");
        snapshot.processes.push(SnapshotProcess {
            cgroup_set: Some(7),
            state: Some(state),
            start_boot_ns: Some(BootNs(u64::from(pid))),
            ..SnapshotProcess::bare(HostPid(pid))
        });
    }
    Procfs::at(root.path()).add_cgroups(&mut snapshot, &mut || {});
    let found: Vec<_> = snapshot.processes.iter().map(|process| process.cgroup.clone()).collect();
    assert_eq!(found, ["/", "/web", "/web", "/"].map(|path| Some(Name::from(path))));
}

/// Makes a file unreadable even for root: reading it returns EISDIR.
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
fn a_missing_root_is_an_error() {
    assert!(Procfs::at("/nowhere").snapshot(BootNs(0), &mut || {}).is_err());
}
