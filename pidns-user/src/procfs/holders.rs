//! What keeps namespaces alive besides their processes: open files, children to come, mounts, and namespaces within.

use std::{collections::BTreeSet, ffi::OsStr, fs, io, os::unix::ffi::OsStrExt as _, path::Path};

use super::{
    Procfs, is_gone,
    kept::Kept,
    mountinfo::namespace_mounts,
    parse::{inum_of, may_trace},
    proc_mounts::{ProcMounts, device_of},
    read,
};
use crate::{
    snapshot::{Holder, ProcMount, Process, Snapshot, Unnamed},
    text::Name,
};

impl Procfs {
    /// Adds to the snapshot what holds namespaces, and those that exist by that alone. What this process itself holds
    /// it has from who started it.
    pub fn add_holders(&self, snapshot: &mut Snapshot) {
        let own = fs::read_link(self.root.join("self")).ok();
        let own = own.and_then(|link| link.to_str()?.parse::<u32>().ok());
        let mut mount_namespaces = BTreeSet::new();
        let mut procs = ProcMounts::default();
        let mut kept = Kept::default();
        let namespaces = &mut snapshot.namespaces;
        let mut add = |inum, holder, file: &Path| {
            if namespaces.get(&inum).is_none_or(|ns| ns.user_ns.is_none()) {
                self.describe(file, inum, 1, namespaces);
            }
            kept.add(inum, holder);
        };
        for process in &snapshot.processes {
            let Process { pid, comm, ns, .. } = process;
            if process.is_zombie() || Some(*pid) == own {
                // A zombie has let go of all.
                continue;
            }
            let mut denied = false;
            match self.link(*pid, "ns/pid_for_children") {
                Ok(Some(inum)) if Some(inum) != *ns => {
                    let holder = Holder::PidForChildren { pid: *pid, comm: comm.clone() };
                    add(inum, holder, &self.path(*pid, "ns/pid_for_children"));
                }
                Ok(_) => {}
                Err(error) => denied |= !is_gone(&error),
            }
            match self.files(*pid) {
                Ok(files) => {
                    for (fd, inum) in files {
                        let holder = Holder::Fd { pid: *pid, comm: comm.clone(), fd };
                        add(inum, holder, &self.path(*pid, &format!("fd/{fd}")));
                    }
                }
                Err(error) => denied |= !is_gone(&error),
            }
            snapshot.unread.files += u64::from(denied);
            match self.namespace_link(*pid, "ns/mnt", "mnt:[") {
                Ok(Some(mount_ns)) => {
                    if mount_namespaces.contains(&mount_ns) {
                        continue;
                    }
                    match read(&self.path(*pid, "mountinfo")) {
                        Ok(text) => {
                            mount_namespaces.insert(mount_ns);
                            procs.add(&text, mount_ns, *pid, &self.path(*pid, "root"));
                            for (inum, path) in namespace_mounts(&text) {
                                let inside = Path::new(OsStr::from_bytes(&path));
                                let inside = inside.strip_prefix("/").unwrap_or(inside);
                                let file = self.path(*pid, "root").join(inside);
                                let holder =
                                    Holder::Mount { path: Name::from(&path[..]), mount_ns, pid: *pid };
                                add(inum, holder, &file);
                            }
                        }
                        Err(error) => snapshot.unread.mounts += u64::from(!is_gone(&error)),
                    }
                }
                Ok(None) => {}
                Err(error) => snapshot.unread.mounts += u64::from(!is_gone(&error)),
            }
        }
        let (holding, unnamed) = self.resolve(procs, snapshot);
        snapshot.unnamed = unnamed;
        // One that shows what is outside of this PID namespace, as with the host's /proc in a container, is left out with that.
        let seen = holding.into_iter().filter(|(inum, _)| snapshot.namespaces.contains_key(inum));
        seen.for_each(|(inum, mount)| kept.add(inum, Holder::ProcMount(mount)));
        let children = snapshot.namespaces.values().filter_map(|ns| Some((ns.parent?, ns.inum)));
        children.for_each(|(parent, ns)| kept.add(parent, Holder::Child { ns }));
        kept.put_into(snapshot);
    }

    /// The namespaces that mounted procs show.
    fn resolve(&self, procs: ProcMounts, snapshot: &Snapshot) -> (Vec<(u32, ProcMount)>, Vec<Unnamed>) {
        // What this /proc shows is known without a look at its PID 1, which may be kept from everybody.
        let outermost = snapshot.processes.iter().filter(|process| process.level() == Some(0));
        let own = device_of(&self.root).zip(outermost.flat_map(|process| process.ns).next());
        let status = fs::read(self.root.join("self/status")).unwrap_or_default();
        procs.resolve(own, may_trace(&status))
    }

    /// The descriptors that are PID namespaces.
    fn files(&self, pid: u32) -> io::Result<Vec<(u32, u32)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.path(pid, "fd"))? {
            let entry = entry?;
            let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            match fs::read_link(entry.path()) {
                Ok(link) => {
                    files.extend(inum_of(link.as_os_str().as_bytes(), b"pid:[").map(|inum| (fd, inum)));
                }
                // Closed meanwhile.
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(files)
    }
}
