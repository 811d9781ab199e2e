//! Reads /proc, or another root in tests. A process that vanishes meanwhile is gone. Unreadable objects are counted.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Display,
    fs::{self, File},
    io::{self, Read as _},
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
};

use crate::{
    event::Process,
    event::identity::{BootNs, HostPid, NsInum, ProcessKey},
    event::snapshot::{Snapshot, SnapshotNamespace, SnapshotProcess, SnapshotSource},
    text::Name,
};

pub mod activity;
mod arguments;
mod bounded_holders;
mod cgroup;
mod cgroup_texts;
mod freezer;
mod holders;
mod inits;
pub mod kernel_holders;
pub mod limits;
mod mount_paths;
mod mountinfo;
pub(crate) mod nsfs;
mod numbered;
mod parse;
mod proc_mounts;
mod still;
pub mod threads;

use cgroup::CgroupIds;
pub use cgroup_texts::CgroupTexts;
use cgroup_texts::has_left;
pub(crate) use mount_paths::is_without_server;
use mountinfo::hides_processes_at;
use parse::{Stat, Status, inode_of, line, may_trace, number, parse_stat, parse_status};
use proc_mounts::device_of;

/// A proc file system.
#[derive(Clone, Debug)]
pub struct Procfs {
    root: PathBuf,
}

impl Default for Procfs {
    fn default() -> Self {
        Self::at("/proc")
    }
}

impl Procfs {
    /// The proc file system at this path.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Checks that it is mounted: without a mount, an empty directory looks like a /proc without processes.
    ///
    /// # Errors
    /// No proc file system is mounted there.
    pub fn check(&self) -> io::Result<()> {
        match device_of(&self.root) {
            Some(_) => Ok(()),
            None => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!(
                    "no proc file system is mounted at {0}: mount one (`mount -t proc proc {0}`)",
                    self.root.display()
                ),
            )),
        }
    }

    /// Reads all processes and their namespaces. Calls `between` after each process, because this can take seconds.
    pub fn snapshot(&self, boot_ns: BootNs, between: &mut dyn FnMut()) -> io::Result<Snapshot> {
        let mut snapshot = Snapshot::empty(SnapshotSource::Proc, boot_ns);
        self.add_left_out(&mut snapshot, between)?;
        snapshot.unread.hidden = self.hides_processes();
        Ok(snapshot)
    }

    /// Adds processes that the snapshot lacks, and their namespaces. Some kernels hide the machine's PID 1 from BPF
    /// programs, so the task iterator omits it. (If the number of tasks shows that processes are missing, this also
    /// adds those that were forked meanwhile.)
    pub fn add_left_out(&self, snapshot: &mut Snapshot, between: &mut dyn FnMut()) -> io::Result<()> {
        let Snapshot { processes, namespaces, unread, .. } = snapshot;
        let known: HashSet<HostPid> = processes.iter().map(|process| process.pid).collect();
        let listed = match self.left_out_by_number(processes) {
            Some(pids) => pids,
            // This takes longer than the task iterator: the kernel makes an inode for each process.
            None => self.pids()?,
        };
        let mut cgroups = CgroupIds::new(self);
        for pid in listed.into_iter().filter(|pid| !known.contains(pid)) {
            between();
            let Some(mut process) = self.process(pid, &mut cgroups) else { continue };
            match self.link(pid, "ns/pid") {
                Ok(inum) => process.ns = inum,
                Err(error) if is_gone(&error) => continue,
                Err(_) => {}
            }
            if let Some(inum) = process.ns
                && !namespaces.contains_key(&inum)
            {
                self.describe(
                    nsfs::open(&self.path(pid, "ns/pid")).ok(),
                    inum,
                    process.level().unwrap_or(0),
                    namespaces,
                );
            }
            unread.processes += u64::from(process.pids.is_empty());
            processes.push(process);
        }
        processes.sort_by_key(|process| process.pid);
        // A process with a single PID is in the namespace of this /proc, even if its link is unreadable.
        let outermost =
            processes.iter().filter(|process| process.level() == Some(0)).find_map(|process| process.ns);
        let outermost = outermost.or_else(|| Some(namespaces.values().find(|ns| ns.level == 0)?.inum));
        for process in processes.iter_mut().filter(|process| !known.contains(&process.pid)) {
            if process.ns.is_none() && process.level() == Some(0) {
                process.ns = outermost;
            }
            match process.ns {
                None => unread.namespaces += 1,
                Some(inum) if process.is_init() => {
                    if let Some(ns) = namespaces.get_mut(&inum) {
                        let has_ended = process.is_zombie();
                        ns.born_boot_ns = ns.born_boot_ns.or(process.start_boot_ns.filter(|_| !has_ended));
                        ns.dying |= has_ended || process.exiting;
                    }
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// The processes that the list lacks, if the machine's number of tasks shows that these are none, or only PID 1.
    fn left_out_by_number(&self, processes: &[SnapshotProcess]) -> Option<Vec<HostPid>> {
        const FIRST: HostPid = HostPid(1);
        let threads = |process: &SnapshotProcess| process.threads.map(u64::from);
        let mut tasks = processes.iter().map(threads).sum::<Option<u64>>()?;
        let mut left_out = Vec::new();
        if processes.iter().all(|process| process.pid != FIRST) {
            let first = parse_status(&self.text(FIRST, "status").ok()??)?;
            tasks += u64::from(first.threads?);
            left_out.push(FIRST);
        }
        (tasks == self.tasks()?).then_some(left_out)
    }

    /// Adds the paths of cgroups. Only one file is read for processes that are in the same cgroups. Calls `between`
    /// after each file.
    pub fn add_cgroups(&self, snapshot: &mut Snapshot, between: &mut dyn FnMut()) {
        let mut known: HashMap<u64, Name> = HashMap::new();
        let mut processes: Vec<&mut SnapshotProcess> =
            snapshot.processes.iter_mut().filter(|process| process.cgroup.is_none()).collect();
        // A young process may be moved meanwhile by its runtime, and then its file has another path. So read the old
        // first.
        processes.sort_by_key(|process| process.start_boot_ns);
        for process in processes {
            let Some(set) = process.cgroup_set else { continue };
            let has_left = has_left(process);
            if let Some(path) = known.get(&set).filter(|_| !has_left) {
                process.cgroup = Some(path.clone());
                continue;
            }
            between();
            // If it has ended meanwhile, another process with this id is read.
            let text = self.text(process.pid, "cgroup").ok().flatten();
            if let Some(path) = text.as_ref().and_then(|text| cgroup::path(text)) {
                let path = Name::from(path);
                process.cgroup = Some(path.clone());
                if !has_left {
                    known.insert(set, path);
                }
            }
        }
    }

    /// Start of a process in clock ticks since boot.
    pub(crate) fn start_ticks(&self, pid: HostPid) -> Option<u64> {
        Some(parse_stat(&read_record(&self.path(pid, "stat")).ok()?)?.start_ticks)
    }

    /// Whether this process exists. Another process with its PID does not count.
    pub(crate) fn exists(&self, process: ProcessKey) -> bool {
        self.start_ticks(process.pid) == Some(process.start.ticks())
    }

    /// A process without its container; `None` if it is gone or may not be read.
    pub(crate) fn described(&self, pid: HostPid) -> Option<Process> {
        let Status { pids, uid, .. } = parse_status(&self.text(pid, "status").ok()??)?;
        let ns = self.link(pid, "ns/pid").ok()??;
        let stat = parse_stat(&self.text(pid, "stat").ok()??)?;
        Some(Process {
            pid,
            pids: (!pids.is_empty()).then_some(pids)?,
            comm: Name::from(&stat.comm[..]),
            start_boot_ns: BootNs::from_ticks(stat.start_ticks),
            ppid: HostPid::known(stat.ppid),
            uid: uid?,
            ns,
            container: None,
        })
    }

    /// Start of a process in clock ticks since boot, and its parent as in [`Self::parent`].
    pub(crate) fn start_and_parent(&self, pid: HostPid) -> Option<(u64, Option<HostPid>)> {
        let stat = parse_stat(&read_record(&self.path(pid, "stat")).ok()?)?;
        Some((stat.start_ticks, HostPid::known(stat.ppid)))
    }

    /// The owner of a process's user namespace; `None` if it cannot be read.
    pub(crate) fn owner_of_user_namespace(&self, pid: HostPid) -> Option<u32> {
        nsfs::owner_uid(&nsfs::open(&self.path(pid, "ns/user")).ok()?)
    }

    /// The parent of a process; `None` if this /proc shows none, or the process is gone.
    pub(crate) fn parent(&self, pid: HostPid) -> Option<HostPid> {
        HostPid::known(parse_stat(&read_record(&self.path(pid, "stat")).ok()?)?.ppid)
    }

    /// The path of a file of a process or a thread.
    fn path(&self, task: impl Display, file: &str) -> PathBuf {
        self.root.join(task.to_string()).join(file)
    }

    fn pids(&self) -> io::Result<Vec<HostPid>> {
        let mut pids = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            pids.extend(entry?.file_name().to_str().and_then(|name| name.parse().ok()).map(HostPid));
        }
        Ok(pids)
    }

    /// Whether this /proc may omit processes.
    fn hides_processes(&self) -> bool {
        let own = |file| fs::read(self.root.join("self").join(file)).unwrap_or_default();
        hides_processes_at(&own("mountinfo"), self.root.as_os_str().as_bytes()) && !may_trace(&own("status"))
    }

    /// The contents of a file of the process; `None` if it cannot be read.
    fn text(&self, task: impl Display, file: &str) -> Result<Option<Vec<u8>>, Vanished> {
        match read_record(&self.path(task, file)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if is_gone(&error) => Err(Vanished),
            Err(_) => Ok(None),
        }
    }

    /// The process without its namespace; `None` if it is gone.
    fn process(&self, pid: HostPid, cgroups: &mut CgroupIds<'_>) -> Option<SnapshotProcess> {
        let status = match self.text(pid, "status").ok()? {
            Some(text) => parse_status(&text)?,
            None => Status::default(),
        };
        let Status { pids, uid, threads, tracer } = status;
        let stat = self.text(pid, "stat").ok()?.and_then(|text| parse_stat(&text));
        // A kernel without cgroups does not have this file.
        let cgroup = self.text(pid, "cgroup").ok().flatten();
        // stat only shows the first thread, so this is certain only without other threads.
        let is_exiting = stat.as_ref().is_some_and(Stat::is_exiting) && threads == Some(1);
        Some(SnapshotProcess {
            pid,
            pids,
            comm: stat.as_ref().map(|stat| Name::from(&stat.comm[..])),
            start_boot_ns: stat.as_ref().map(|stat| BootNs::from_ticks(stat.start_ticks)),
            ppid: stat.as_ref().and_then(|stat| HostPid::known(stat.ppid)),
            uid,
            ns: None,
            state: stat.map(|stat| stat.state),
            threads,
            threads_live: None,
            exiting: is_exiting,
            frozen: false,
            freezer: None,
            tracer: tracer.and_then(|tid| self.tracer(tid)),
            subreaper: None,
            cgroup_id: cgroup.as_ref().and_then(|text| cgroups.of(text)),
            cgroup: cgroup.as_ref().and_then(|text| cgroup::path(text)).map(Name::from),
            cgroup_set: None,
            zombie_since_boot_ns: None,
            last_ran_boot_ns: None,
            wchan: None,
            container: None,
        })
    }

    /// The process of a tracing thread. If that cannot be read, the thread's own id.
    fn tracer(&self, tid: u32) -> Option<HostPid> {
        match self.text(tid, "status") {
            Ok(Some(status)) => number(line(&status, b"Tgid:")?).map(HostPid),
            Ok(None) => Some(HostPid(tid)),
            Err(Vanished) => None,
        }
    }

    /// The PID namespace that a link names; `None` if it names none, or the process no longer has one.
    fn link(&self, pid: HostPid, file: &str) -> io::Result<Option<NsInum>> {
        Ok(self.namespace_link(pid, file, "pid:[")?.map(NsInum))
    }

    fn namespace_link(&self, pid: HostPid, file: &str, kind: &str) -> io::Result<Option<u32>> {
        match fs::read_link(self.path(pid, file)) {
            Ok(link) => Ok(inode_of(link.as_os_str().as_bytes(), kind.as_bytes())),
            // A zombie has no pid_for_children, and a namespace without an init is not shown yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.path(pid, "").exists() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds facts from this namespace's file: about the namespace and those above it. Without a file, only `inum` and
    /// `level` are known.
    fn describe(
        &self,
        file: Option<OwnedFd>,
        inum: NsInum,
        level: u32,
        namespaces: &mut BTreeMap<NsInum, SnapshotNamespace>,
    ) {
        let mut chain = Vec::new();
        let mut next = file;
        while let Some(fd) = next {
            let Some(found) = nsfs::inum(&fd).map(NsInum) else { break };
            if chain.is_empty() && found != inum {
                // Another process has the PID by now.
                break;
            }
            next = nsfs::parent(&fd);
            let owner = nsfs::owner(&fd);
            let user_ns = owner.as_ref().and_then(nsfs::inum);
            chain.push(SnapshotNamespace {
                kernel_id: nsfs::id(&fd),
                user_ns,
                owner_uid: owner.as_ref().and_then(nsfs::owner_uid),
                ..SnapshotNamespace::bare(found, 0)
            });
        }
        if chain.is_empty() {
            namespaces.entry(inum).or_insert_with(|| SnapshotNamespace::bare(inum, level));
            return;
        }
        // If the owner cannot be read, the parent cannot be read either, and the chain does not show the level.
        let is_alone = chain.len() == 1 && chain[0].user_ns.is_none();
        let parents: Vec<Option<NsInum>> =
            chain.iter().skip(1).map(|ns| Some(ns.inum)).chain([None]).collect();
        let levels = (0..chain.len() as u32).rev();
        for ((mut ns, parent), depth) in chain.into_iter().zip(parents).zip(levels) {
            ns.parent = parent;
            ns.level = if is_alone { level } else { depth };
            match namespaces.get_mut(&ns.inum) {
                // So far, only its number was known.
                Some(known) if known.user_ns.is_none() => {
                    ns.born_boot_ns = known.born_boot_ns;
                    *known = ns;
                }
                Some(_) => {}
                None => drop(namespaces.insert(ns.inum, ns)),
            }
        }
    }
}

/// Memory of this process in bytes (`VmRSS`); `None` if unreadable.
pub(crate) fn own_memory() -> Option<u64> {
    // proc_pid_statm(5): the second number, in pages.
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Reads a file of /proc. [`fs::read`] asks for its size, which is 0, and then reads 32 bytes at a time at first: eight
/// calls for a status, where two suffice.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_until(path, |_, _| false)
}

/// Reads a file that the kernel writes in one piece (stat, status, cgroup). If a read does not fill the buffer, the
/// file is complete.
pub(crate) fn read_record(path: &Path) -> io::Result<Vec<u8>> {
    read_until(path, |count, room| count < room)
}

/// Reads to the end, or until `is_all` accepts the length of a read and the size of its buffer.
fn read_until(path: &Path, is_all: impl Fn(usize, usize) -> bool) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut buffer = [0; 4096];
    let mut text = Vec::new();
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(text),
            Ok(count) => {
                text.extend_from_slice(&buffer[..count]);
                if is_all(count, buffer.len()) {
                    return Ok(text);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The process ended before it was read.
struct Vanished;

/// Whether the process has ended, or has closed the file. Any other error leaves that unknown. Mostly it is EACCES or
/// EPERM, from a permission check or a security module.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

#[cfg(test)]
mod tests;
