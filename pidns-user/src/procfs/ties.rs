//! The holders of namespaces from the kernel's own iterators: no link of /proc is read then for each file of each process.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Procfs, kept::KeptHolders, nsfs};
use crate::{
    event::identity::{BootNs, HostPid, NsInum},
    event::snapshot::{Holder, Snapshot, SnapshotNamespace, SnapshotProcess},
};

/// What was found. Empty: nothing was read, and /proc has all processes.
#[derive(Debug, Default)]
pub struct Ties {
    pub(super) kept: KeptHolders,
    /// Each process that was met, with a thread that has not ended and its root.
    met: HashMap<HostPid, (u32, Root)>,
    /// The namespaces that are held, each with where a file of it is.
    namespaces: BTreeMap<NsInum, (SnapshotNamespace, Place)>,
    /// Whose children go where.
    children: HashSet<(HostPid, NsInum)>,
    /// Tables of files that are not those of the first thread of a process, each with the first thread that was met with it.
    tables: HashMap<(HostPid, u64), u32>,
    own: Option<HostPid>,
}

/// Where a file of a namespace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    task: Task,
    /// `None`: where children will be born.
    fd: Option<u32>,
}

impl Place {
    /// As of the folder of its process.
    fn path(self) -> String {
        let Task { tid, .. } = self.task;
        match self.fd {
            Some(fd) => format!("task/{tid}/fd/{fd}"),
            None => format!("task/{tid}/ns/pid_for_children"),
        }
    }
}

/// Who holds something, or is somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// The process.
    pub pid: HostPid,
    /// The thread.
    pub tid: u32,
    /// The start of the process.
    pub start_boot_ns: BootNs,
}

impl Task {
    fn thread(self) -> Option<u32> {
        (self.tid != self.pid.0).then_some(self.tid)
    }

    /// The process of the snapshot that it is of, if it is in there.
    fn process(self, processes: &[SnapshotProcess]) -> Option<&SnapshotProcess> {
        let index = processes.binary_search_by_key(&self.pid, |process| process.pid).ok()?;
        processes.get(index).filter(|process| process.start_boot_ns == Some(self.start_boot_ns))
    }
}

/// The root of a process in a mount namespace. Two that are the same see the same mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Root {
    /// Inode number of the mount namespace.
    pub mount_ns: u32,
    /// What stands for the mount that the root is in.
    pub mount: u64,
    /// What stands for the folder.
    pub folder: u64,
}

impl Ties {
    /// For a snapshot. What this process itself holds it has from who started it, and is left out.
    pub fn of_all_but(own: HostPid) -> Self {
        Self { own: Some(own), ..Self::default() }
    }

    /// A process's root. All records of processes without one, before or after, is left to /proc.
    pub fn add_root(&mut self, task: Task, root: Root, snapshot: &Snapshot) {
        if Some(task.pid) != self.own && task.process(&snapshot.processes).is_some() {
            self.met.entry(task.pid).or_insert((task.tid, root));
        }
    }

    /// The children of a task will be born in a namespace, which is not its own.
    pub fn add_children(&mut self, task: Task, ns: SnapshotNamespace, snapshot: &Snapshot) {
        let Some(process) = task.process(&snapshot.processes) else { return };
        // The process's own is one to come back to, for a thread that has unshared another.
        if Some(task.pid) == self.own || process.ns == Some(ns.inum) {
            return;
        }
        if self.children.insert((task.pid, ns.inum)) {
            let holder = Holder::PidForChildren { pid: task.pid, comm: process.comm.clone() };
            self.kept.add(ns.inum, holder);
        }
        self.namespaces.entry(ns.inum).or_insert((ns, Place { task, fd: None }));
    }

    /// A task has a namespace open as descriptor `fd`, in this table of files. Roots come before.
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

    /// The root of this process, and a thread of it that has not ended, if it was met.
    pub(super) fn root_of(&self, pid: HostPid) -> Option<(u32, Root)> {
        self.met.get(&pid).copied()
    }

    /// Adds the namespaces that the snapshot knows by their number alone, or not at all. Of those around them that have no
    /// process either the file shows it, if it may be opened.
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

/// A process has it open; `tid`: by a thread that is not its first one and has files of its own.
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

    fn holders(ties: Ties, snapshot: &Snapshot) -> Vec<(NsInum, Holder)> {
        let mut snapshot = snapshot.clone();
        ties.kept.put_into(&mut snapshot);
        snapshot.holders
    }

    #[test]
    fn threads_that_share_their_files_hold_a_namespace_once() {
        let snapshot = snapshot();
        let mut ties = Ties::of_all_but(HostPid(9));
        ties.add_root(task(3, 4), ROOT, &snapshot);
        for (tid, table) in [(4, 100), (6, 100), (7, 200), (8, 200), (3, 300)] {
            ties.add_file(task(3, tid), 11, table, held(20), &snapshot);
        }
        let fd = |tid| (NsInum(20), fd_of(&process(3), 11, tid));
        assert_eq!(holders(ties, &snapshot), [fd(None), fd(Some(4)), fd(Some(7))]);
    }

    #[test]
    fn another_process_of_the_same_number_this_one_and_one_that_was_not_met_are_left_out() {
        let snapshot = snapshot();
        let mut ties = Ties::of_all_but(HostPid(9));
        for pid in [3, 4, 9] {
            ties.add_root(task(pid, pid), ROOT, &snapshot);
        }
        ties.add_root(Task { start_boot_ns: BootNs(2_000), ..task(5, 5) }, ROOT, &snapshot);
        assert!([4, 5, 9].iter().all(|&pid| ties.root_of(HostPid(pid)).is_none()), "{ties:?}");
        assert_eq!(ties.root_of(HostPid(3)), Some((3, ROOT)));
        for pid in [3, 4, 5, 9] {
            ties.add_file(task(pid, pid), 11, 1, held(20), &snapshot);
        }
        ties.add_file(Task { start_boot_ns: BootNs(2_000), ..task(3, 3) }, 12, 1, held(20), &snapshot);
        assert_eq!(holders(ties, &snapshot), [(NsInum(20), fd_of(&process(3), 11, None))]);
    }

    #[test]
    fn children_that_go_to_the_process_own_namespace_hold_nothing() {
        let snapshot = snapshot();
        let mut ties = Ties::of_all_but(HostPid(9));
        for (tid, inum) in [(5, 20), (6, 20), (7, 7), (8, 21)] {
            ties.add_children(task(5, tid), held(inum), &snapshot);
        }
        let goes =
            |inum| (NsInum(inum), Holder::PidForChildren { pid: HostPid(5), comm: Some(Name::from("x")) });
        assert_eq!(holders(ties, &snapshot), [goes(20), goes(21)]);
    }

    #[test]
    fn better_known_values_stay() {
        let known = SnapshotNamespace { user_ns: Some(1), born_boot_ns: Some(BootNs(5)), ..held(20) };
        let mut namespaces = BTreeMap::from([
            (NsInum(20), known.clone()),
            (NsInum(21), SnapshotNamespace { born_boot_ns: Some(BootNs(6)), ..held(21) }),
        ]);
        let snapshot = snapshot();
        let mut ties = Ties::of_all_but(HostPid(9));
        for inum in [20, 21, 22] {
            let parent = Some(NsInum(7));
            let ns = SnapshotNamespace { user_ns: Some(2), parent, ..held(inum) };
            ties.add_children(task(5, 5), ns, &snapshot);
        }
        let empty = tempfile::tempdir().expect("a temporary directory");
        ties.describe(&Procfs::at(empty.path()), &mut namespaces);
        assert_eq!(namespaces[&NsInum(20)], known);
        let learnt = &namespaces[&NsInum(21)];
        assert_eq!((learnt.user_ns, learnt.born_boot_ns), (Some(2), Some(BootNs(6))));
        assert_eq!(namespaces[&NsInum(22)].user_ns, Some(2));
        let around = &namespaces[&NsInum(7)];
        assert_eq!(around, &SnapshotNamespace::bare(NsInum(7), 0), "whose file is not there");
    }
}
