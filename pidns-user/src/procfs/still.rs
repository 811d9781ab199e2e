//! Checks whether a known holder still holds its namespace. That reads a few files instead of those of all processes.

use std::{fs, os::unix::ffi::OsStrExt as _};

use super::{
    Procfs,
    mountinfo::{mounts, namespace_of, unescape},
    parse::inum_of,
    read,
};
use crate::{
    event::identity::{HostPid, NsInum},
    event::snapshot::{Holder, ProcMount},
};

impl Procfs {
    /// Whether this still holds the namespace, as far as it can be read.
    pub fn still_holds(&self, holder: &Holder, inum: NsInum) -> bool {
        let leads_there = |task: String, file: String| {
            let link = fs::read_link(self.path(task, &file));
            link.is_ok_and(|link| inum_of(link.as_os_str().as_bytes()) == Some(inum))
        };
        match holder {
            Holder::Fd { pid, fd, tid, .. } => {
                leads_there(tid.map_or_else(|| pid.to_string(), |tid| tid.to_string()), format!("fd/{fd}"))
            }
            Holder::PidForChildren { pid, .. } => {
                leads_there(pid.to_string(), "ns/pid_for_children".to_owned())
            }
            Holder::Mount { pid, .. } => self
                .mountinfo(*pid)
                .is_some_and(|text| mounts(&text).any(|mount| namespace_of(&mount) == Some(inum))),
            Holder::ProcMount(ProcMount { path, pid, .. }) => self.mountinfo(*pid).is_some_and(|text| {
                mounts(&text).any(|mount| mount.kind == b"proc" && unescape(mount.place) == path.as_bytes())
            }),
            // Events report nested namespaces.
            Holder::Child { .. } => true,
        }
    }

    fn mountinfo(&self, pid: HostPid) -> Option<Vec<u8>> {
        read(&self.path(pid, "mountinfo")).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn a_file_that_this_process_has_open_holds_its_namespace_until_it_is_closed() {
        let procfs = Procfs::default();
        let file = fs::File::open("/proc/self/ns/pid").expect("a namespace file can be opened");
        let link = fs::read_link("/proc/self/ns/pid").expect("a link");
        let inum = inum_of(link.as_os_str().as_bytes()).expect("an inode number");
        let holder = Holder::Fd {
            pid: HostPid(std::process::id()),
            comm: None,
            fd: file.as_raw_fd() as u32,
            tid: None,
        };
        assert!(procfs.still_holds(&holder, inum));
        assert!(!procfs.still_holds(&holder, NsInum(1)), "another namespace");
        drop(file);
        assert!(!procfs.still_holds(&holder, inum));
    }
}
