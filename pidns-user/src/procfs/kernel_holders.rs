//! Holders of namespaces from the kernel's own iterators. Without these, a link of /proc must be read for each open
//! file of each process.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Procfs, bounded_holders::BoundedHolders, nsfs};
use crate::{
    event::identity::{BootNs, HostPid, NsInum},
    event::snapshot::{Holder, Snapshot, SnapshotNamespace, SnapshotProcess},
};

/// The holders that were found. If empty, nothing was read and /proc must be read for all processes.
#[derive(Debug, Default)]
pub struct KernelHolders {
    pub(super) kept: BoundedHolders,
    /// Processes whose root was reported, each with a thread that has not ended, and its root.
    met: HashMap<HostPid, (u32, Root)>,
    /// The namespaces that are held, each with the place of one of its files.
    namespaces: BTreeMap<NsInum, (SnapshotNamespace, Place)>,
    /// Processes whose pid_for_children is another namespace, with that namespace.
    children: HashSet<(HostPid, NsInum)>,
    /// File tables other than that of a process's first thread. Each has the first thread that was reported with it.
    tables: HashMap<(HostPid, u64), u32>,
    own: Option<HostPid>,
}

/// Place of a namespace's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    task: Task,
    /// The descriptor; `None` for pid_for_children.
    fd: Option<u32>,
}

impl Place {
    /// The path in the directory of its process.
    fn path(self) -> String {
        let Task { tid, .. } = self.task;
        match self.fd {
            Some(fd) => format!("task/{tid}/fd/{fd}"),
            None => format!("task/{tid}/ns/pid_for_children"),
        }
    }
}

/// A task of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its process.
    pub pid: HostPid,
    /// Its thread id.
    pub tid: u32,
    /// Start of its process.
    pub start_boot_ns: BootNs,
}

impl Task {
    fn thread(self) -> Option<u32> {
        (self.tid != self.pid.0).then_some(self.tid)
    }

    /// Its process in the snapshot, if that is the same process.
    fn process(self, processes: &[SnapshotProcess]) -> Option<&SnapshotProcess> {
        let index = processes.binary_search_by_key(&self.pid, |process| process.pid).ok()?;
        processes.get(index).filter(|process| process.start_boot_ns == Some(self.start_boot_ns))
    }
}

/// The root of a process in a mount namespace. Processes with the same one see the same mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Root {
    /// Inode number of the mount namespace.
    pub mount_ns: u32,
    /// Opaque id of the mount that contains the root.
    pub mount: u64,
    /// Opaque id of the root directory.
    pub folder: u64,
}

impl KernelHolders {
    /// For a snapshot that the process `own` takes. Its own open files are omitted: it inherited them from its parent.
    pub fn of_all_but(own: HostPid) -> Self {
        Self { own: Some(own), ..Self::default() }
    }

    /// Adds a process's root. /proc is read for all processes without one.
    pub fn add_root(&mut self, task: Task, root: Root, snapshot: &Snapshot) {
        if Some(task.pid) != self.own && task.process(&snapshot.processes).is_some() {
            self.met.entry(task.pid).or_insert((task.tid, root));
        }
    }

    /// Adds a task whose children will be born in another namespace.
    pub fn add_children(&mut self, task: Task, ns: SnapshotNamespace, snapshot: &Snapshot) {
        let Some(process) = task.process(&snapshot.processes) else { return };
        // A thread's pid_for_children may be the process's own namespace, after another thread unshared. Then it is no
        // additional holder.
        if Some(task.pid) == self.own || process.ns == Some(ns.inum) {
            return;
        }
        if self.children.insert((task.pid, ns.inum)) {
            let holder = Holder::PidForChildren { pid: task.pid, comm: process.comm.clone() };
            self.kept.add(ns.inum, holder);
        }
        self.namespaces.entry(ns.inum).or_insert((ns, Place { task, fd: None }));
    }

    /// Adds a namespace that a task has open as descriptor `fd`, in this file table. Roots must be added before.
    pub fn add_file(&mut self, task: Task, fd: u32, table: u64, ns: SnapshotNamespace, snapshot: &Snapshot) {
        if !self.met.contains_key(&task.pid) {
            return;
        }
        let Some(process) = task.process(&snapshot.processes) else { return };
        let tid = task.thread();
        if let Some(tid) = tid
            && *self.tables.entry((task.pid, table)).or_insert(tid) != tid
        {
            return;
        }
        self.kept.add(ns.inum, fd_of(process, fd, tid));
        self.namespaces.entry(ns.inum).or_insert((ns, Place { task, fd: Some(fd) }));
    }

    /// The root of this process and a thread of it that has not ended, if they were reported.
    pub(super) fn root_of(&self, pid: HostPid) -> Option<(u32, Root)> {
        self.met.get(&pid).copied()
    }

    /// Adds namespaces that the snapshot lacks, or knows only by number. The file of a namespace also leads to its
    /// ancestors that have no processes, if it can be opened.
    pub(super) fn describe(&mut self, procfs: &Procfs, namespaces: &mut BTreeMap<NsInum, SnapshotNamespace>) {
        let found = std::mem::take(&mut self.namespaces);
        for (ns, _) in found.values() {
            match namespaces.get_mut(&ns.inum) {
                Some(known) if known.user_ns.is_none() => {
                    let (born_boot_ns, dying) = (known.born_boot_ns, known.dying);
                    *known = SnapshotNamespace { born_boot_ns, dying, ..ns.clone() };
                }
                Some(_) => {}
                None => drop(namespaces.insert(ns.inum, ns.clone())),
            }
        }
        for (ns, place) in found.into_values() {
            let (Some(parent), Some(level)) = (ns.parent, ns.level.checked_sub(1)) else { continue };
            if !namespaces.contains_key(&parent) {
                let file = nsfs::open(&procfs.path(place.task.pid, &place.path())).ok();
                procfs.describe(file, ns.inum, ns.level, namespaces);
                namespaces.entry(parent).or_insert_with(|| SnapshotNamespace::bare(parent, level));
            }
        }
    }
}

/// The holder for an open file. `tid` is set if a thread other than the first has its own file table.
pub(super) fn fd_of(process: &SnapshotProcess, fd: u32, tid: Option<u32>) -> Holder {
    Holder::Fd { pid: process.pid, comm: process.comm.clone(), fd, tid }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::snapshot::SnapshotSource, text::Name};

    fn process(pid: u32) -> SnapshotProcess {
        SnapshotProcess {
            comm: Some(Name::from("x")),
            ns: Some(NsInum(7)),
            start_boot_ns: Some(BootNs(1_000)),
            ..SnapshotProcess::bare(HostPid(pid))
        }
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            processes: [3, 5, 9].map(process).to_vec(),
            ..Snapshot::empty(SnapshotSource::Iterator, BootNs(0))
        }
    }

    fn task(pid: u32, tid: u32) -> Task {
        Task { pid: HostPid(pid), tid, start_boot_ns: BootNs(1_000) }
    }

    const ROOT: Root = Root { mount_ns: 900, mount: 1, folder: 2 };

    fn held(inum: u32) -> SnapshotNamespace {
        SnapshotNamespace::bare(NsInum(inum), 1)
    }

    fn holders(from_kernel: KernelHolders, snapshot: &Snapshot) -> Vec<(NsInum, Holder)> {
        let mut snapshot = snapshot.clone();
        from_kernel.kept.put_into(&mut snapshot);
        snapshot.holders
    }

    #[test]
    fn threads_that_share_their_files_hold_a_namespace_once() {
        let snapshot = snapshot();
        let mut from_kernel = KernelHolders::of_all_but(HostPid(9));
        from_kernel.add_root(task(3, 4), ROOT, &snapshot);
        for (tid, table) in [(4, 100), (6, 100), (7, 200), (8, 200), (3, 300)] {
            from_kernel.add_file(task(3, tid), 11, table, held(20), &snapshot);
        }
        let fd = |tid| (NsInum(20), fd_of(&process(3), 11, tid));
        assert_eq!(holders(from_kernel, &snapshot), [fd(None), fd(Some(4)), fd(Some(7))]);
    }

    #[test]
    fn only_reported_processes_of_the_snapshot_are_holders() {
        let snapshot = snapshot();
        let mut from_kernel = KernelHolders::of_all_but(HostPid(9));
        for pid in [3, 4, 9] {
            from_kernel.add_root(task(pid, pid), ROOT, &snapshot);
        }
        from_kernel.add_root(Task { start_boot_ns: BootNs(2_000), ..task(5, 5) }, ROOT, &snapshot);
        assert!([4, 5, 9].iter().all(|&pid| from_kernel.root_of(HostPid(pid)).is_none()), "{from_kernel:?}");
        assert_eq!(from_kernel.root_of(HostPid(3)), Some((3, ROOT)));
        for pid in [3, 4, 5, 9] {
            from_kernel.add_file(task(pid, pid), 11, 1, held(20), &snapshot);
        }
        from_kernel.add_file(Task { start_boot_ns: BootNs(2_000), ..task(3, 3) }, 12, 1, held(20), &snapshot);
        assert_eq!(holders(from_kernel, &snapshot), [(NsInum(20), fd_of(&process(3), 11, None))]);
    }

    #[test]
    fn pid_for_children_with_the_own_namespace_holds_nothing() {
        let snapshot = snapshot();
        let mut from_kernel = KernelHolders::of_all_but(HostPid(9));
        for (tid, inum) in [(5, 20), (6, 20), (7, 7), (8, 21)] {
            from_kernel.add_children(task(5, tid), held(inum), &snapshot);
        }
        let goes =
            |inum| (NsInum(inum), Holder::PidForChildren { pid: HostPid(5), comm: Some(Name::from("x")) });
        assert_eq!(holders(from_kernel, &snapshot), [goes(20), goes(21)]);
    }

    #[test]
    fn better_known_values_stay() {
        let known = SnapshotNamespace { user_ns: Some(1), born_boot_ns: Some(BootNs(5)), ..held(20) };
        let mut namespaces = BTreeMap::from([
            (NsInum(20), known.clone()),
            (NsInum(21), SnapshotNamespace { born_boot_ns: Some(BootNs(6)), ..held(21) }),
        ]);
        let snapshot = snapshot();
        let mut from_kernel = KernelHolders::of_all_but(HostPid(9));
        for inum in [20, 21, 22] {
            let parent = Some(NsInum(7));
            let ns = SnapshotNamespace { user_ns: Some(2), parent, ..held(inum) };
            from_kernel.add_children(task(5, 5), ns, &snapshot);
        }
        let empty = tempfile::tempdir().expect("a temporary directory");
        from_kernel.describe(&Procfs::at(empty.path()), &mut namespaces);
        assert_eq!(namespaces[&NsInum(20)], known);
        let learnt = &namespaces[&NsInum(21)];
        assert_eq!((learnt.user_ns, learnt.born_boot_ns), (Some(2), Some(BootNs(6))));
        assert_eq!(namespaces[&NsInum(22)].user_ns, Some(2));
        let around = &namespaces[&NsInum(7)];
        assert_eq!(around, &SnapshotNamespace::bare(NsInum(7), 0), "its file is missing");
    }
}
