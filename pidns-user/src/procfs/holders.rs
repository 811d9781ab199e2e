//! What keeps namespaces alive besides their processes: open files, children to come, mounts, and namespaces within.

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::PathBuf,
};

use rustix::io::Errno;

use super::{
    Procfs, is_gone,
    mountinfo::{self, namespace_of, unescape},
    nsfs,
    parse::{inum_of, may_trace},
    proc_mounts::{ProcMounts, Resolved, device_of},
    reach::{MountPlace, Reach},
    read,
    ties::{Ties, fd_of},
};
use crate::{
    event::identity::{HostPid, NsInum},
    event::snapshot::{Holder, Snapshot, SnapshotProcess, SnapshotSource},
    text::Name,
};

/// Most roots of processes of one mount namespace whose mounts are read.
const MOST_ROOTS: usize = 8;
/// Most threads of a process that are asked where their children go.
const MOST_THREADS: usize = 64;

/// What was seen of mounts.
#[derive(Default)]
struct Mounts {
    /// Each mount namespace with the roots that processes there have: who has changed it sees no mounts outside of it. Of one
    /// that may not be read nothing is known.
    looked_at: BTreeMap<u32, Vec<Option<PathBuf>>>,
    /// Mounts by their number, as two roots may show one.
    seen: HashSet<u32>,
    procs: ProcMounts,
    /// How many mounted namespaces were not opened, as the way there leads through a file system whose server may not answer.
    behind_server: u64,
}

impl Mounts {
    /// Whether the mounts that a process with this root sees are still to be read.
    fn are_new(&self, mount_ns: u32, root: &Option<PathBuf>) -> bool {
        self.looked_at.get(&mount_ns).is_none_or(|roots| roots.len() < MOST_ROOTS && !roots.contains(root))
    }
}

impl Procfs {
    /// Adds to the snapshot what holds namespaces, and those that exist by that alone. What this process itself holds
    /// it has from who started it. Of the processes in `ties` only the mounts are read here, of those with one root once.
    /// `between` is called after each process that was read.
    pub fn add_holders(&self, snapshot: &mut Snapshot, mut ties: Ties, between: &mut dyn FnMut()) {
        let own = fs::read_link(self.root.join("self")).ok();
        let own = own.and_then(|link| link.to_str()?.parse().ok()).map(HostPid);
        // What the kernel lists and this /proc does not show has not ended.
        let is_hidden = snapshot.source == SnapshotSource::Iterator && self.hides_processes();
        let is_denied = |error: &io::Error| is_hidden || !is_gone(error);
        let mut mounts = Mounts::default();
        let mut kept = std::mem::take(&mut ties.kept);
        let namespaces = &mut snapshot.namespaces;
        ties.describe(self, namespaces);
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
                // A zombie has let go of all.
                continue;
            }
            if let Some((tid, root)) = ties.root_of(*pid) {
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
            // A first thread that has ended has let go of all, which the others still have.
            let has_ended = matches!(process.state, Some('Z' | 'X'));
            let alive = threads.first().filter(|_| has_ended).map(|tid| format!("task/{tid}/"));
            let alive = alive.unwrap_or_default();
            let mut denied = false;
            let mut going_to = Vec::new();
            let others =
                threads.iter().take(MOST_THREADS).map(|tid| format!("task/{tid}/ns/pid_for_children"));
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
        // One that shows what is outside of this PID namespace, as with the host's /proc in a container, is left out with that.
        let seen = holding.into_iter().filter(|(inum, _)| snapshot.namespaces.contains_key(inum));
        seen.for_each(|(inum, mount)| kept.add(inum, Holder::ProcMount(mount)));
        let seen = left_out.into_iter().filter(|(inum, _)| snapshot.namespaces.contains_key(inum));
        seen.for_each(|(inum, count)| kept.leave_out(inum, count));
        let children = snapshot.namespaces.values().filter_map(|ns| Some((ns.parent?, ns.inum)));
        children.for_each(|(parent, ns)| kept.add(parent, Holder::Child { ns }));
        kept.put_into(snapshot);
    }

    /// The threads of a process but the first one; none where it has but one.
    fn threads(&self, process: &SnapshotProcess) -> Vec<u32> {
        if process.threads.is_none_or(|threads| threads < 2) {
            return Vec::new();
        }
        let threads = fs::read_dir(self.path(process.pid, "task")).into_iter().flatten().flatten();
        let threads = threads.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        threads.filter(|&tid| tid != process.pid.0).take(MOST_THREADS).collect()
    }

    /// Adds the PID namespaces and procs that are mounted where this process is, unless another one has added them.
    /// `alive` leads to a thread that has not ended.
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
        // Its path in its mount namespace. The link is not followed: that may wait for a server.
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
            let way = reach.get_or_insert_with(|| Reach::new(&text)).way_to(&mount);
            let place = MountPlace::new(&root, &mount, way);
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

    /// The namespaces that mounted procs show.
    fn resolve(&self, procs: ProcMounts, snapshot: &Snapshot) -> Resolved {
        // What this /proc shows is known without reading its PID 1, which may be unreadable.
        let outermost = snapshot.processes.iter().filter(|process| process.level() == Some(0));
        let own = device_of(&self.root).zip(outermost.flat_map(|process| process.ns).next());
        let status = fs::read(self.root.join("self/status")).unwrap_or_default();
        procs.resolve(own, may_trace(&status))
    }

    /// The descriptors that are PID namespaces, and whether these are all.
    fn files(&self, pid: HostPid, alive: &str) -> io::Result<(Vec<(u32, NsInum)>, bool)> {
        let (mut files, mut all) = (Vec::new(), true);
        for entry in fs::read_dir(self.path(pid, &format!("{alive}fd")))? {
            // It may end meanwhile.
            let Ok(entry) = entry else { break };
            let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            match fs::read_link(entry.path()) {
                Ok(link) => {
                    files.extend(inum_of(link.as_os_str().as_bytes()).map(|inum| (fd, inum)));
                }
                // Closed meanwhile; or a file whose path is longer than a page, and so no namespace.
                Err(error) if is_gone(&error) || error.raw_os_error() == Some(libc::ENAMETOOLONG) => {}
                Err(_) => all = false,
            }
        }
        Ok((files, all))
    }
}
