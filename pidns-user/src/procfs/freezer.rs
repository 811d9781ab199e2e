//! Checks whether a v1 cgroup has frozen a process.
//!
//! A task in a freezable sleep (nanosleep, futex, poll and others, since Linux 6.1) stays in it. Then neither its
//! state, which shows as D, nor the function in which it sleeps shows that it is frozen
//! (Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst; kernel/freezer.c).

use std::{cell::OnceCell, ffi::OsStr, os::unix::ffi::OsStrExt as _};

use super::{
    Procfs,
    cgroup::{CgroupMount, below, cgroup_mounts},
    read,
};
use crate::event::identity::HostPid;

/// Checks processes. Used for one pass, so that mounts are read only once.
pub(super) struct V1Freezer<'a> {
    procfs: &'a Procfs,
    mounts: OnceCell<Vec<CgroupMount>>,
}

impl<'a> V1Freezer<'a> {
    pub(super) fn new(procfs: &'a Procfs) -> Self {
        Self { procfs, mounts: OnceCell::new() }
    }

    /// Whether the process is in a frozen cgroup; `false` if unknown.
    pub(super) fn has_frozen(&self, pid: HostPid) -> bool {
        let Ok(text) = read(&self.procfs.path(pid, "cgroup")) else { return false };
        let Some(path) = path(&text) else { return false };
        let mounts = self.mounts.get_or_init(|| self.mounts());
        let Some((mount, rest)) = mounts.iter().find_map(|mount| Some((mount, below(path, &mount.root)?)))
        else {
            return false;
        };
        // This state includes the enclosing cgroups.
        let state = read(&mount.folder.join(OsStr::from_bytes(rest)).join("freezer.state"));
        state.is_ok_and(|state| state.trim_ascii_end() == b"FROZEN")
    }

    fn mounts(&self) -> Vec<CgroupMount> {
        let text = read(&self.procfs.path("self", "mountinfo")).unwrap_or_default();
        let mut found = cgroup_mounts(&text, |mount| mount.kind == b"cgroup" && lists_freezer(mount.options));
        found.retain(CgroupMount::is_seen);
        found
    }
}

fn lists_freezer(list: &[u8]) -> bool {
    list.split(|&byte| byte == b',').any(|name| name == b"freezer")
}

/// The path of the cgroup that can freeze the process: "7:freezer:/a" in a /proc/PID/cgroup.
fn path(text: &[u8]) -> Option<&[u8]> {
    text.split(|&byte| byte == b'\n').find_map(|line| {
        let mut fields = line.splitn(3, |&byte| byte == b':').skip(1);
        fields.next().filter(|list| lists_freezer(list))?;
        fields.next()
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt as _};

    use super::*;

    #[test]
    fn the_freezer_cgroup_shows_whether_a_process_is_frozen() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let device = fs::metadata(root.path()).expect("read metadata").dev();
        let put = |file: &str, text: &str| {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().expect("a parent directory")).expect("create a directory");
            fs::write(path, text).expect("write a file");
        };
        let line = |name: &str, options: &str| {
            let (major, minor) = (libc::major(device), libc::minor(device));
            let place = root.path().join(name).display().to_string();
            format!("32 25 {major}:{minor} / {place} rw - cgroup cgroup {options}\n")
        };
        put("pids/a/freezer.state", "FROZEN\n");
        put("self/mountinfo", &(line("pids", "rw,pids") + &line("cold", "rw,freezer")));
        for (pid, group, state) in [(70, "a", "FROZEN\n"), (71, "b:c", "FREEZING\n"), (72, "d", "THAWED\n")] {
            put(&format!("cold/{group}/freezer.state"), state);
            put(&format!("{pid}/cgroup"), &format!("8:pids:/a\n7:freezer:/{group}\n0::/a\n"));
        }
        put("73/cgroup", "8:pids:/a\n0::/a\n");
        put("74/cgroup", "7:freezer:/../a\n");
        put("75/cgroup", "7:freezer:/gone\n");
        let procfs = Procfs::at(root.path());
        let freezer = V1Freezer::new(&procfs);
        let frozen: Vec<u32> = (70..=76).filter(|&pid| freezer.has_frozen(HostPid(pid))).collect();
        assert_eq!(frozen, [70]);
    }
}
