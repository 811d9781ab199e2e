//! Compares the process that a state file names, by PID and start, with the running processes.

use std::path::Path;

use super::super::cgroup;
use crate::{
    event::identity::{HostPid, ProcessKey},
    procfs::{Procfs, read_record},
};

/// Whether a process still exists, and not another one with its PID.
pub(in super::super) fn process_exists(process: ProcessKey, proc: &Path) -> bool {
    Procfs::at(proc).exists(process)
}

/// Returns the parent of a process, if this /proc shows one. The outer `None` means that the process does not exist.
pub(in super::super) fn parent_of(process: ProcessKey, proc: &Path) -> Option<Option<HostPid>> {
    let (start_ticks, parent) = Procfs::at(proc).start_and_parent(process.pid)?;
    (start_ticks == process.start.ticks()).then_some(parent)
}

/// The first process of a container, as its runtime recorded it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Init {
    pub(super) pid: HostPid,
    /// Clock ticks since boot, as in /proc/PID/stat. Absent if the runtime does not record it.
    pub(super) start_ticks: Option<u64>,
}

impl Init {
    /// Why this cannot be the first process of the container of `process`. `path` is the container's own cgroup.
    pub(super) fn doubt(self, process: ProcessKey, path: &[u8], proc: &Path) -> Option<String> {
        let Self { pid, start_ticks } = self;
        if pid == process.pid {
            let earlier = start_ticks.is_some_and(|ticks| ticks != process.start.ticks());
            return earlier.then(|| format!("it is about another process with PID {pid}"));
        }
        // A runtime that fails to clean up leaves files about processes that are long gone.
        let Some(started) = Procfs::at(proc).start_ticks(pid) else {
            return Some(format!("its first process, PID {pid}, is gone"));
        };
        if start_ticks.is_some_and(|ticks| ticks != started) {
            return Some(format!("its first process, PID {pid}, is gone, and another has that PID"));
        }
        // Any process that can make a cgroup can name it after another process's container.
        let text = read_record(&proc.join(format!("{pid}/cgroup"))).unwrap_or_default();
        let parsed = cgroup::parse(&text).unwrap_or_default();
        let is_in_cgroup = parsed.containers.iter().any(|layer| layer.path == path)
            || parsed.candidates.iter().any(|candidate| candidate.path == path);
        (!is_in_cgroup).then(|| format!("its first process, PID {pid}, is not in this cgroup"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::event::identity::BootNs;

    /// A proc file system with these processes: PID, start in ticks, cgroup.
    fn proc(processes: &[(u32, u64, &str)]) -> tempfile::TempDir {
        let proc = tempfile::tempdir().unwrap();
        for (pid, start, cgroup) in processes {
            let folder = proc.path().join(pid.to_string());
            fs::create_dir(&folder).unwrap();
            let zeros = "0 ".repeat(18);
            fs::write(folder.join("stat"), format!("{pid} (a) b) S {zeros}{start} 1 2 3\n")).unwrap();
            fs::write(folder.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
        }
        proc
    }

    fn process(pid: u32, start_ticks: u64) -> ProcessKey {
        ProcessKey::new(HostPid(pid), BootNs::from_ticks(start_ticks).saturating_add(1_234_567))
    }

    const INIT: Init = Init { pid: HostPid(7), start_ticks: Some(500) };

    #[test]
    fn the_first_process_is_identified_by_pid_and_start() {
        let empty = proc(&[]);
        assert_eq!(INIT.doubt(process(7, 500), b"/web", empty.path()), None);
        let doubt = INIT.doubt(process(7, 501), b"/web", empty.path());
        assert_eq!(doubt.as_deref(), Some("it is about another process with PID 7"));
        let undated = Init { start_ticks: None, ..INIT };
        assert_eq!(undated.doubt(process(7, 501), b"/web", empty.path()), None);
    }

    #[test]
    fn a_process_belongs_to_a_container_while_the_first_lives_in_the_same_cgroup() {
        let member = process(9, 900);
        for (alive, expected) in [
            (&[(7, 500, "/a/web")][..], None),
            (&[(7, 500, "/a/web/below/it")], None),
            (&[], Some("is gone")),
            (&[(7, 501, "/a/web")], Some("another has that PID")),
            (&[(7, 500, "/b/web")], Some("not in this cgroup")),
            (&[(7, 500, "/")], Some("not in this cgroup")),
        ] {
            let doubt = INIT.doubt(member, b"/a/web", proc(alive).path());
            match expected {
                None => assert_eq!(doubt, None, "{alive:?}"),
                Some(part) => {
                    assert!(doubt.as_ref().is_some_and(|doubt| doubt.contains(part)), "{alive:?}: {doubt:?}")
                }
            }
        }
    }

    #[test]
    fn the_start_of_a_real_process_is_read() {
        let own = std::process::id();
        assert!(Procfs::default().start_ticks(HostPid(own)).is_some_and(|ticks| ticks > 0));
    }
}
