//! Readers of /proc, under a root that a test can replace. A process that vanishes while it is read was never there; what
//! may not be read is counted.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Display,
    fs::{self, File},
    io::{self, Read as _},
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
};

use crate::{
    event::identity::{BootNs, HostPid, NsInum},
    event::snapshot::{Snapshot, SnapshotNamespace, SnapshotProcess, SnapshotSource},
    text::Name,
};

mod arguments;
mod cgroup;
pub mod doing;
mod freezer;
mod holders;
mod inits;
mod kept;
pub mod limits;
mod mountinfo;
pub(crate) mod nsfs;
mod numbered;
mod parse;
mod proc_mounts;
mod reach;
mod still;
pub mod threads;
pub mod ties;

use cgroup::CgroupIds;
use mountinfo::hides_processes_at;
use parse::{Stat, Status, inode_of, line, may_trace, number, parse_stat, parse_status};
use proc_mounts::device_of;
pub(crate) use reach::is_without_server;

/// A /proc.
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
    /// The one that is mounted there.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Whether there is one: a folder that nothing is mounted at has the form of a /proc without processes.
    ///
    /// # Errors
    /// There is none.
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

    /// Its processes and their namespaces. `between` is called after each process that was read: a snapshot can take seconds.
    pub fn snapshot(&self, boot_ns: BootNs, between: &mut dyn FnMut()) -> io::Result<Snapshot> {
        let mut snapshot = Snapshot::empty(SnapshotSource::Proc, boot_ns);
        self.add_left_out(&mut snapshot, between)?;
        snapshot.unread.hidden = self.hides_processes();
        Ok(snapshot)
    }

    /// Adds the processes that are not in it, and their namespaces. The task iterator leaves some out: kernels have been met
    /// that keep the machine's PID 1 from BPF programs. (And with them who was forked meanwhile.)
    pub fn add_left_out(&self, snapshot: &mut Snapshot, between: &mut dyn FnMut()) -> io::Result<()> {
        let Snapshot { processes, namespaces, unread, .. } = snapshot;
        let known: BTreeSet<HostPid> = processes.iter().map(|process| process.pid).collect();
        let mut cgroups = CgroupIds::new(self);
        for pid in self.pids()?.into_iter().filter(|pid| !known.contains(pid)) {
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
        // A process with a single PID is in the namespace of this /proc, be its link readable or not.
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

    /// Adds the paths of cgroups. `sets` are processes and what stands for the cgroups that they are in: of those with the same
    /// number one file is read. `between` is called after each.
    pub fn add_cgroups(&self, snapshot: &mut Snapshot, sets: &[(HostPid, u64)], between: &mut dyn FnMut()) {
        let sets: HashMap<HostPid, u64> = sets.iter().copied().collect();
        let mut known: HashMap<u64, Name> = HashMap::new();
        let mut processes: Vec<&mut SnapshotProcess> =
            snapshot.processes.iter_mut().filter(|process| process.cgroup.is_none()).collect();
        // The file of a process that is being moved has another path by now. A young one may be: its runtime does that.
        processes.sort_by_key(|process| process.start_boot_ns);
        for process in processes {
            let Some(&set) = sets.get(&process.pid) else { continue };
            if let Some(path) = known.get(&set) {
                process.cgroup = Some(path.clone());
                continue;
            }
            between();
            // One that has ended meanwhile does not affect the others.
            let text = self.text(process.pid, "cgroup").ok().flatten();
            if let Some(path) = text.as_ref().and_then(|text| cgroup::path(text)) {
                let path = Name::from(path);
                process.cgroup = Some(path.clone());
                known.insert(set, path);
            }
        }
    }

    /// When a process was started: clock ticks since boot.
    pub(crate) fn start_ticks(&self, pid: HostPid) -> Option<u64> {
        Some(parse_stat(&read_record(&self.path(pid, "stat")).ok()?)?.start_ticks)
    }

    /// When a process was started, in clock ticks since boot, and its parent as of [`Self::parent`].
    pub(crate) fn start_and_parent(&self, pid: HostPid) -> Option<(u64, Option<HostPid>)> {
        let stat = parse_stat(&read_record(&self.path(pid, "stat")).ok()?)?;
        Some((stat.start_ticks, HostPid::known(stat.ppid)))
    }

    /// The parent of a process; `None` where it has none that this /proc shows, or is gone.
    pub(crate) fn parent(&self, pid: HostPid) -> Option<HostPid> {
        HostPid::known(parse_stat(&read_record(&self.path(pid, "stat")).ok()?)?.ppid)
    }

    /// A file of a process or a thread.
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

    /// Whether there may be processes that this /proc does not list.
    fn hides_processes(&self) -> bool {
        let own = |file| fs::read(self.root.join("self").join(file)).unwrap_or_default();
        hides_processes_at(&own("mountinfo"), self.root.as_os_str().as_bytes()) && !may_trace(&own("status"))
    }

    /// The contents of a file of the process; `None` where it may not be read.
    fn text(&self, task: impl Display, file: &str) -> Result<Option<Vec<u8>>, Vanished> {
        match read_record(&self.path(task, file)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if is_gone(&error) => Err(Vanished),
            Err(_) => Ok(None),
        }
    }

    /// The process, but for its namespace; `None` where it is gone.
    fn process(&self, pid: HostPid, cgroups: &mut CgroupIds<'_>) -> Option<SnapshotProcess> {
        let status = match self.text(pid, "status").ok()? {
            Some(text) => parse_status(&text)?,
            None => Status::default(),
        };
        let Status { pids, uid, threads, tracer } = status;
        let stat = self.text(pid, "stat").ok()?.and_then(|text| parse_stat(&text));
        // Its stat does not cover the threads but the first.
        // A kernel without cgroups has no such file.
        let cgroup = self.text(pid, "cgroup").ok().flatten();
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
            zombie_since_boot_ns: None,
            last_ran_boot_ns: None,
            container: None,
        })
    }

    /// The process of a thread that traces another one; the thread's own number where it may not be read.
    fn tracer(&self, tid: u32) -> Option<HostPid> {
        match self.text(tid, "status") {
            Ok(Some(status)) => number(line(&status, b"Tgid:")?).map(HostPid),
            Ok(None) => Some(HostPid(tid)),
            Err(Vanished) => None,
        }
    }

    /// The PID namespace that a link names; `None` where it names none, or the process is past having one.
    fn link(&self, pid: HostPid, file: &str) -> io::Result<Option<NsInum>> {
        Ok(self.namespace_link(pid, file, "pid:[")?.map(NsInum))
    }

    fn namespace_link(&self, pid: HostPid, file: &str, kind: &str) -> io::Result<Option<u32>> {
        match fs::read_link(self.path(pid, file)) {
            Ok(link) => Ok(inode_of(link.as_os_str().as_bytes(), kind.as_bytes())),
            // A zombie's children go nowhere; and a namespace without an init yet is not shown.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.path(pid, "").exists() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds the facts of this namespace's file about it and those above it; `None` where it cannot be opened. `level` stands
    /// where the file has no level.
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
                // The process is another one by now.
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
        // One whose owner may not be read has no readable parent either, and its level is not known by that.
        let is_alone = chain.len() == 1 && chain[0].user_ns.is_none();
        let parents: Vec<Option<NsInum>> =
            chain.iter().skip(1).map(|ns| Some(ns.inum)).chain([None]).collect();
        let levels = (0..chain.len() as u32).rev();
        for ((mut ns, parent), depth) in chain.into_iter().zip(parents).zip(levels) {
            ns.parent = parent;
            ns.level = if is_alone { level } else { depth };
            match namespaces.get_mut(&ns.inum) {
                // Known by its number alone.
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

/// Bytes of memory that this process has taken (`VmRSS`); `None` where that cannot be read.
pub(crate) fn own_memory() -> Option<u64> {
    // proc_pid_statm(5): the second number, in pages.
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// All of a file of /proc. [`fs::read`] asks for its size, which is 0, and begins with 32 bytes, and 32 more: eight calls
/// for a status, of which two are needed.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_until(path, |_, _| false)
}

/// All of a file that the kernel writes in one piece (stat, status, cgroup): what fills no buffer is all of it.
pub(crate) fn read_record(path: &Path) -> io::Result<Vec<u8>> {
    read_until(path, |count, room| count < room)
}

/// Reads to the end, or until `is_all` accepts what one call has read into its buffer.
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

/// Whether the process has ended, or what it had open is closed. Anything else keeps it from being read, and leaves it
/// unknown: mostly EACCES or EPERM, of whatever guards it.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

#[cfg(test)]
mod tests;
