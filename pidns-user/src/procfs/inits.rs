//! Reads only the processes of selected namespaces, which is less than everything.

use std::{fs, os::unix::ffi::OsStrExt as _};

use super::{Procfs, cgroup::CgroupIds, parse::inum_of};
use crate::event::identity::NsInum;
use crate::event::snapshot::SnapshotProcess;

impl Procfs {
    /// The processes in the namespace of this /proc.
    pub fn own_members(&self) -> Vec<SnapshotProcess> {
        let own = fs::read_link(self.root.join("self/ns/pid")).ok();
        let own = own.and_then(|link| inum_of(link.as_os_str().as_bytes()));
        let mut cgroups = CgroupIds::new(self);
        let pids = self.pids().unwrap_or_default().into_iter();
        let own = pids.filter(|&pid| own.is_some() && self.link(pid, "ns/pid").is_ok_and(|inum| inum == own));
        own.filter_map(|pid| self.process(pid, &mut cgroups)).collect()
    }

    /// The processes in namespaces below that of this /proc, each with its namespace's inode number. Processes that
    /// cannot be read, or are gone, are omitted.
    pub fn members(&self) -> Vec<(NsInum, SnapshotProcess)> {
        let own = fs::read_link(self.root.join("self/ns/pid")).ok();
        let own = own.and_then(|link| inum_of(link.as_os_str().as_bytes()));
        let mut cgroups = CgroupIds::new(self);
        let mut members = Vec::new();
        for pid in self.pids().unwrap_or_default() {
            // Most processes are in the same namespace as this one. Of these, only the link is read.
            let Ok(Some(inum)) = self.link(pid, "ns/pid") else { continue };
            if Some(inum) == own {
                continue;
            }
            if let Some(process) = self.process(pid, &mut cgroups) {
                members.push((inum, process));
            }
        }
        members
    }
}
