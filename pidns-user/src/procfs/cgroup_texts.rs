//! Reads /proc/PID/cgroup once for all processes of a snapshot that are in the same cgroups.

use std::{collections::HashMap, sync::Arc};

use super::{
    Procfs,
    parse::{PF_EXITING, Stat, parse_stat},
    read_record,
};
use crate::event::{identity::ProcessKey, snapshot::SnapshotProcess};

/// The cgroups of a snapshot's processes, as /proc/PID/cgroup shows them.
#[derive(Debug)]
pub struct CgroupTexts {
    procfs: Procfs,
    by_set: HashMap<u64, Known>,
}

/// The text that one process showed, or more.
#[derive(Debug)]
struct Known {
    text: Arc<[u8]>,
    /// Whether two processes in a row showed it. One alone may have been moved since the snapshot, as a runtime moves
    /// the first process of a container.
    is_confirmed: bool,
}

impl CgroupTexts {
    /// For one snapshot of this /proc.
    pub fn new(procfs: Procfs) -> Self {
        Self { procfs, by_set: HashMap::new() }
    }

    /// The cgroups of a process of the snapshot; empty if they cannot be read, and `None` if the process is gone.
    pub fn of(&mut self, process: &SnapshotProcess) -> Option<Arc<[u8]>> {
        let set = process.cgroup_set.filter(|_| !has_left(process));
        if let Some(known) = set.and_then(|set| self.by_set.get(&set)).filter(|known| known.is_confirmed) {
            return Some(Arc::clone(&known.text));
        }
        let (text, stat) = self.read(process.key()?)?;
        let Some(set) = set.filter(|_| stat.flags & PF_EXITING == 0) else { return Some(text) };
        let known =
            self.by_set.entry(set).or_insert_with(|| Known { text: Arc::clone(&text), is_confirmed: false });
        known.is_confirmed = known.text == text && !Arc::ptr_eq(&known.text, &text);
        known.text = Arc::clone(&text);
        Some(text)
    }

    /// `None` if the process is gone.
    fn read(&self, process: ProcessKey) -> Option<(Arc<[u8]>, Stat)> {
        let text = read_record(&self.procfs.path(process.pid, "cgroup")).unwrap_or_default();
        let stat = parse_stat(&read_record(&self.procfs.path(process.pid, "stat")).ok()?)?;
        (stat.start_ticks == process.start.ticks()).then(|| (text.into(), stat))
    }
}

/// Whether /proc may show other cgroups for a process than for others with its `cgroup_set`. After its end it is shown
/// in the root of the v1 hierarchies.
pub(super) fn has_left(process: &SnapshotProcess) -> bool {
    process.exiting || matches!(process.state, Some('Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::event::identity::{BootNs, HostPid};

    fn put(base: &Path, pid: u32, flags: u32, cgroup: &str) {
        let folder = base.join(pid.to_string());
        fs::create_dir_all(&folder).expect("create a directory");
        fs::write(folder.join("cgroup"), format!("0::{cgroup}\n")).expect("write a file");
        let stat = format!("{pid} (x) S 1 1 1 0 -1 {flags} {}500 1 2\n", "0 ".repeat(12));
        fs::write(folder.join("stat"), stat).expect("write a file");
    }

    fn process(pid: u32, set: u64) -> SnapshotProcess {
        SnapshotProcess {
            start_boot_ns: Some(BootNs::from_ticks(500)),
            cgroup_set: Some(set),
            ..SnapshotProcess::bare(HostPid(pid))
        }
    }

    /// What is found for each process in turn.
    fn found(base: &Path, processes: &[SnapshotProcess]) -> Vec<String> {
        let mut texts = CgroupTexts::new(Procfs::at(base));
        let text = |text: Option<Arc<[u8]>>| {
            text.map_or("gone".to_owned(), |text| String::from_utf8_lossy(&text).into())
        };
        processes.iter().map(|process| text(texts.of(process))).collect()
    }

    #[test]
    fn processes_in_the_same_cgroups_are_read_until_two_agree() {
        let base = tempfile::tempdir().expect("a temporary directory");
        // The first one is moved after the snapshot, and the last three are only found by the others.
        for (pid, cgroup) in [(1, "/moved"), (2, "/web"), (3, "/web"), (4, "/not read"), (5, "/other")] {
            put(base.path(), pid, 0, cgroup);
        }
        let all = [
            process(1, 7),
            process(2, 7),
            process(3, 7),
            process(4, 7),
            process(5, 8),
            process(6, 7),
            process(7, 8),
        ];
        let expected =
            ["0::/moved\n", "0::/web\n", "0::/web\n", "0::/web\n", "0::/other\n", "0::/web\n", "gone"];
        assert_eq!(found(base.path(), &all), expected);
    }

    #[test]
    fn ended_processes_and_other_processes_with_the_same_pid_say_nothing_about_the_rest() {
        let base = tempfile::tempdir().expect("a temporary directory");
        for pid in [1, 2] {
            put(base.path(), pid, PF_EXITING, "/");
        }
        for pid in [3, 4, 5, 6] {
            put(base.path(), pid, 0, "/web");
        }
        put(base.path(), 7, 0, "/");
        let zombie = SnapshotProcess { state: Some('Z'), ..process(7, 7) };
        let earlier = SnapshotProcess { start_boot_ns: Some(BootNs::from_ticks(499)), ..process(6, 7) };
        let all =
            [process(1, 7), process(2, 7), zombie.clone(), process(3, 7), earlier, process(4, 7), zombie];
        let expected = ["0::/\n", "0::/\n", "0::/\n", "0::/web\n", "gone", "0::/web\n", "0::/\n"];
        assert_eq!(found(base.path(), &all), expected);
    }
}
