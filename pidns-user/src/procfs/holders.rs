//! Finds what keeps namespaces alive besides their processes: open files, pid_for_children, mounts, and nested
//! namespaces.

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::PathBuf,
};

use rustix::io::Errno;

use super::{
    Procfs, is_gone,
    kernel_holders::{KernelHolders, fd_of},
    mount_paths::{MountPoint, MountTree},
    mountinfo::{self, namespace_of, unescape},
    nsfs,
    parse::{inum_of, may_trace},
    proc_mounts::{ProcMounts, Resolved, device_of},
    read,
};
use crate::{
    event::identity::{HostPid, NsInum},
    event::snapshot::{Holder, Snapshot, SnapshotProcess, SnapshotSource},
    text::Name,
};

/// Limit for roots whose mounts are read in one mount namespace.
const MAX_ROOTS: usize = 8;
/// Limit for threads of a process whose pid_for_children is read.
const MAX_THREADS: usize = 64;

/// The mounts that were read.
#[derive(Default)]
struct Mounts {
    /// The mount namespaces that were read, each with the roots of its processes, because a process with another root
    /// does not see mounts outside it. The root is `None` if it cannot be read.
    looked_at: BTreeMap<u32, Vec<Option<PathBuf>>>,
    /// Ids of mounts, because two roots may show the same mount.
    seen: HashSet<u32>,
    procs: ProcMounts,
    /// Number of mounted namespaces that were not opened, because a file system's server may not answer.
    behind_server: u64,
}

impl Mounts {
    /// Whether the mounts seen from this root have not been read yet.
    fn are_new(&self, mount_ns: u32, root: &Option<PathBuf>) -> bool {
        self.looked_at.get(&mount_ns).is_none_or(|roots| roots.len() < MAX_ROOTS && !roots.contains(root))
    }
}

impl Procfs {
    /// Adds the holders of namespaces to the snapshot, and the namespaces that exist only because of them. Holders of
    /// this process itself are omitted: it got them from its parent. For processes in `from_kernel` only mounts are
    /// read here, once per root. Calls `between` after each process.
    pub fn add_holders(
        &self,
        snapshot: &mut Snapshot,
        mut from_kernel: KernelHolders,
        between: &mut dyn FnMut(),
    ) {
        let own = fs::read_link(self.root.join("self")).ok();
        let own = own.and_then(|link| link.to_str()?.parse().ok()).map(HostPid);
        // If the kernel lists a process and this /proc does not, the process has not ended.
        let is_hidden = snapshot.source == SnapshotSource::Iterator && self.hides_processes();
        let is_denied = |error: &io::Error| is_hidden || !is_gone(error);
        let mut mounts = Mounts::default();
        let mut kept = std::mem::take(&mut from_kernel.kept);
        let namespaces = &mut snapshot.namespaces;
        from_kernel.describe(self, namespaces);
        let mut roots = HashSet::new();
        let mut add = |inum, holder, open: &mut dyn FnMut() -> Option<OwnedFd>| {
            if namespaces.get(&inum).is_none_or(|ns| ns.user_ns.is_none()) {
                self.describe(open(), inum, 1, namespaces);
            }
            kept.add(inum, holder);
        };
        for process in &snapshot.processes {
            between();
            let SnapshotProcess { pid, comm, ns, .. } = process;
            if process.is_zombie() || Some(*pid) == own {
                // A zombie has released everything.
                continue;
            }
            if let Some((tid, root)) = from_kernel.root_of(*pid) {
                let alive = if tid == pid.0 { String::new() } else { format!("task/{tid}/") };
                if !roots.contains(&root) {
                    match self.mounts(*pid, &alive, &mut mounts, &mut add) {
                        Ok(()) => drop(roots.insert(root)),
                        // Another process with this root may be readable.
                        Err(error) => snapshot.unread.mounts += u64::from(is_denied(&error)),
                    }
                }
                continue;
            }
            let threads = self.threads(process);
            // A first thread that has ended has released everything, but the other threads may still have it.
            let has_ended = matches!(process.state, Some('Z' | 'X'));
            let alive = threads.first().filter(|_| has_ended).map(|tid| format!("task/{tid}/"));
            let alive = alive.unwrap_or_default();
            let mut denied = false;
            let mut going_to = Vec::new();
            let others =
                threads.iter().take(MAX_THREADS).map(|tid| format!("task/{tid}/ns/pid_for_children"));
            for link in [format!("{alive}ns/pid_for_children")].into_iter().chain(others) {
                match self.link(*pid, &link) {
                    Ok(Some(inum)) if Some(inum) != *ns && !going_to.contains(&inum) => {
                        going_to.push(inum);
                        let holder = Holder::PidForChildren { pid: *pid, comm: comm.clone() };
                        add(inum, holder, &mut || nsfs::open(&self.path(*pid, &link)).ok());
                    }
                    Ok(_) => {}
                    Err(error) => denied |= is_denied(&error),
                }
            }
            match self.files(*pid, &alive) {
                Ok((files, all)) => {
                    denied |= !all;
                    let tid = threads.first().copied().filter(|_| has_ended);
                    for (fd, inum) in files {
                        let holder = fd_of(process, fd, tid);
                        let link = self.path(*pid, &format!("{alive}fd/{fd}"));
                        add(inum, holder, &mut || nsfs::open(&link).ok());
                    }
                }
                Err(error) => denied |= is_denied(&error),
            }
            snapshot.unread.files += u64::from(denied);
            if let Err(error) = self.mounts(*pid, &alive, &mut mounts, &mut add) {
                snapshot.unread.mounts += u64::from(is_denied(&error));
            }
        }
        snapshot.unread.behind_server = mounts.behind_server;
        let Resolved { holding, left_out, unnamed } = self.resolve(mounts.procs, snapshot);
        snapshot.unnamed = unnamed;
        // A proc can show a namespace outside this PID namespace, such as the host's /proc in a container. It is
        // omitted like that namespace.
        let seen = holding.into_iter().filter(|(inum, _)| snapshot.namespaces.contains_key(inum));
        seen.for_each(|(inum, mount)| kept.add(inum, Holder::ProcMount(mount)));
        let seen = left_out.into_iter().filter(|(inum, _)| snapshot.namespaces.contains_key(inum));
        seen.for_each(|(inum, count)| kept.leave_out(inum, count));
        let children = snapshot.namespaces.values().filter_map(|ns| Some((ns.parent?, ns.inum)));
        children.for_each(|(parent, ns)| kept.add(parent, Holder::Child { ns }));
        kept.put_into(snapshot);
    }

    /// The threads of a process except its first; empty if it has no others.
    fn threads(&self, process: &SnapshotProcess) -> Vec<u32> {
        if process.threads.is_none_or(|threads| threads < 2) {
            return Vec::new();
        }
        let threads = fs::read_dir(self.path(process.pid, "task")).into_iter().flatten().flatten();
        let threads = threads.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        threads.filter(|&tid| tid != process.pid.0).take(MAX_THREADS).collect()
    }

    /// Adds the PID namespaces and procs that are mounted in this process's mount namespace, unless another process has
    /// already added them. `alive` is the path to a thread that has not ended.
    fn mounts(
        &self,
        pid: HostPid,
        alive: &str,
        mounts: &mut Mounts,
        add: &mut impl FnMut(NsInum, Holder, &mut dyn FnMut() -> Option<OwnedFd>),
    ) -> io::Result<()> {
        let Some(mount_ns) = self.namespace_link(pid, &format!("{alive}ns/mnt"), "mnt:[")? else {
            return Ok(());
        };
        let root = self.path(pid, &format!("{alive}root"));
        // This is its path in its mount namespace. Do not follow the link: that may wait for a server.
        let identity = fs::read_link(&root).ok();
        if !mounts.are_new(mount_ns, &identity) {
            return Ok(());
        }
        let text = read(&self.path(pid, &format!("{alive}mountinfo")))?;
        mounts.looked_at.entry(mount_ns).or_default().push(identity);
        let mut reach = None;
        for mount in mountinfo::mounts(&text) {
            let inum = namespace_of(&mount);
            if (inum.is_none() && mount.kind != b"proc") || !mounts.seen.insert(mount.id) {
                continue;
            }
            let kind = reach.get_or_insert_with(|| MountTree::new(&text)).path_kind(&mount);
            let place = MountPoint::new(&root, &mount, kind);
            if let Some(inum) = inum {
                let path = unescape(mount.place);
                let holder = Holder::Mount { path: Name::from(&path[..]), mount_ns, pid };
                add(inum, holder, &mut || match place.open() {
                    Ok(found) => nsfs::reopen(&found).ok()?,
                    Err(error) => {
                        mounts.behind_server += u64::from(error == Errno::AGAIN);
                        None
                    }
                });
            } else {
                mounts.procs.add(&mount, mount_ns, pid, place);
            }
        }
        Ok(())
    }

    /// Finds the namespaces that mounted procs show.
    fn resolve(&self, procs: ProcMounts, snapshot: &Snapshot) -> Resolved {
        // The namespace of this /proc is known without reading its PID 1, which may be unreadable.
        let outermost = snapshot.processes.iter().filter(|process| process.level() == Some(0));
        let own = device_of(&self.root).zip(outermost.flat_map(|process| process.ns).next());
        let status = fs::read(self.root.join("self/status")).unwrap_or_default();
        procs.resolve(own, may_trace(&status))
    }

    /// The descriptors of PID namespaces, and whether all descriptors could be read.
    fn files(&self, pid: HostPid, alive: &str) -> io::Result<(Vec<(u32, NsInum)>, bool)> {
        let (mut files, mut all) = (Vec::new(), true);
        for entry in fs::read_dir(self.path(pid, &format!("{alive}fd")))? {
            // The process may end meanwhile.
            let Ok(entry) = entry else { break };
            let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            match fs::read_link(entry.path()) {
                Ok(link) => {
                    files.extend(inum_of(link.as_os_str().as_bytes()).map(|inum| (fd, inum)));
                }
                // It was closed meanwhile, or its path is longer than a page and so not a namespace.
                Err(error) if is_gone(&error) || error.raw_os_error() == Some(libc::ENAMETOOLONG) => {}
                Err(_) => all = false,
            }
        }
        Ok((files, all))
    }
}
