//! The PID 1s, alone: less to read than everything.

use std::{fs, os::unix::ffi::OsStrExt as _};

use super::{Procfs, cgroup::CgroupIds, parse::inum_of};
use crate::event::identity::NsInum;
use crate::event::snapshot::SnapshotProcess;

impl Procfs {
    /// The PID 1 of each namespace below that of this /proc, each with the namespace's inode number. What may not be read,
    /// or is gone by then, is left out.
    pub fn inits(&self) -> Vec<(NsInum, SnapshotProcess)> {
        let own = fs::read_link(self.root.join("self/ns/pid")).ok();
        let own = own.and_then(|link| inum_of(link.as_os_str().as_bytes()));
        let mut cgroups = CgroupIds::new(self);
        let mut inits = Vec::new();
        for pid in self.pids().unwrap_or_default() {
            // Most processes are in the same namespace as this one: of these the link is all that is read.
            let Ok(Some(inum)) = self.link(pid, "ns/pid") else { continue };
            if Some(inum) == own {
                continue;
            }
            if let Some(process) = self.process(pid, &mut cgroups)
                && process.is_init()
            {
                inits.push((inum, process));
            }
        }
        inits
    }
}
