//! Reads what a process is doing at this moment.

use super::{
    Procfs,
    freezer::V1Freezer,
    is_gone,
    mountinfo::{mounts, unescape},
    parse, read,
};
use crate::{
    event::identity::{HostPid, ProcessKey},
    event::snapshot::Snapshot,
    text::Name,
};

/// Kernel functions in which a frozen task waits: with a v1 cgroup or during suspend (kernel/freezer.c), and with a v2
/// cgroup (kernel/signal.c; it has another name before 5.2). A task that was frozen while asleep is not in them.
const FREEZERS: [&[u8]; 3] = [b"__refrigerator", b"do_freezer_trap", b"ptrace_freezer_trap"];

/// The current activity of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessActivity {
    /// State of its first thread, a letter as in proc(5).
    pub state: char,
    /// Its parent.
    pub ppid: HostPid,
    /// Thread group id of the process that traces its first thread.
    pub tracer: Option<HostPid>,
    /// Threads, zombie ones included.
    pub threads: u64,
    /// The kernel function in which its first thread sleeps (/proc/PID/wchan). `None` if it does not sleep or the file
    /// cannot be read.
    pub wchan: Option<Name>,
    /// Whether it sleeps in a function for frozen tasks, or is in uninterruptible sleep (D) in a frozen v1 cgroup.
    pub frozen: bool,
}

impl ProcessActivity {
    /// The processes that can keep it from being gone: if it is a zombie, its parent and its tracer; if it is stopped,
    /// its tracer.
    pub fn keepers(&self) -> impl Iterator<Item = HostPid> + use<> {
        let is_zombie = matches!(self.state, 'Z' | 'X');
        let parent = is_zombie.then_some(self.ppid);
        parent.into_iter().chain(self.tracer.filter(|_| is_zombie || self.state == 't'))
    }
}

/// Reads activities of processes, for one pass over them.
pub struct ActivityReader<'a> {
    procfs: &'a Procfs,
    freezer: V1Freezer<'a>,
}

impl<'a> ActivityReader<'a> {
    /// A reader for this /proc.
    pub fn new(procfs: &'a Procfs) -> Self {
        Self { procfs, freezer: V1Freezer::new(procfs) }
    }

    /// Reads the activity of a process; `None` if it is gone, even if another process has its PID by now.
    ///
    /// # Errors
    /// The reason why its files cannot be read.
    pub fn activity(&self, process: ProcessKey) -> Result<Option<ProcessActivity>, String> {
        let pid = process.pid;
        let read = |file: &str| -> Result<Option<Vec<u8>>, String> {
            let path = self.procfs.path(pid, file);
            match read(&path) {
                Ok(text) => Ok(Some(text)),
                Err(error) if is_gone(&error) => Ok(None),
                Err(error) => Err(format!("{}: {error}", path.display())),
            }
        };
        let Some(status) = read("status")? else { return Ok(None) };
        // Not every user may read wchan; everything else is known without it.
        let wchan = read("wchan").ok().flatten().filter(|wchan| wchan != b"0" && !wchan.is_empty());
        // The file with the start comes last. If the process still has its PID then, the files before are about it too.
        let Some(stat) = read("stat")?.and_then(|stat| parse::parse_stat(&stat)) else { return Ok(None) };
        if stat.start_ticks != process.start.ticks() {
            return Ok(None);
        }
        let number = |label: &[u8]| parse::line(&status, label).and_then(parse::number::<u32>);
        let tracer = number(b"TracerPid:").filter(|&tid| tid != 0);
        let is_frozen = wchan.as_deref().is_some_and(|wchan| FREEZERS.contains(&wchan))
            || (stat.state == 'D' && self.freezer.has_frozen(pid));
        Ok(Some(ProcessActivity {
            state: stat.state,
            ppid: HostPid(stat.ppid),
            tracer: tracer.map(|tid| self.procfs.thread(tid).map_or(HostPid(tid), |thread| thread.process)),
            threads: number(b"Threads:").map_or(1, u64::from),
            frozen: is_frozen,
            wchan: wchan.map(|wchan| Name::from(wchan.as_slice())),
        }))
    }
}

impl Procfs {
    /// Adds the kernel function in which each process in state D sleeps. Few processes are in that state.
    pub fn add_wait_channels(&self, snapshot: &mut Snapshot) {
        for process in snapshot.processes.iter_mut().filter(|process| process.state == Some('D')) {
            let Ok(wchan) = read(&self.path(process.pid, "wchan")) else { continue };
            // Another process may have its PID by now, or it may have woken up.
            let stat = read(&self.path(process.pid, "stat")).ok().and_then(|stat| parse::parse_stat(&stat));
            let sleeps = stat.is_some_and(|stat| {
                stat.state == 'D'
                    && process.start_boot_ns.is_none_or(|start| start.ticks() == stat.start_ticks)
            });
            let is_named = sleeps && wchan != b"0" && !wchan.is_empty();
            process.wchan = is_named.then(|| Name::from(wchan.as_slice()));
        }
    }

    /// The device of the proc file system that is mounted at /proc for this process, or for this program if `pid` is
    /// `None`. `None` if no proc is mounted there. Two mounts of one file system show the same PID namespace.
    ///
    /// # Errors
    /// The reason why its mounts cannot be read.
    pub fn device_of_proc(&self, pid: Option<HostPid>) -> Result<Option<u64>, String> {
        let path = match pid {
            Some(pid) => self.path(pid, "mountinfo"),
            None => self.path("self", "mountinfo"),
        };
        match read(&path) {
            Ok(text) => {
                let seen = mounts(&text).rfind(|mount| unescape(mount.place) == b"/proc");
                Ok(seen.filter(|mount| mount.kind == b"proc").map(|mount| mount.device))
            }
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::event::identity::BootNs;

    #[test]
    fn a_process_is_read_and_a_gone_process_is_none() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let folder = root.path().join("70");
        fs::create_dir_all(&folder).expect("create a directory");
        fs::write(folder.join("stat"), "70 (x) D 7 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4567 8 9")
            .expect("write a file");
        fs::write(folder.join("status"), "Name:\tx\nTracerPid:\t9\nNSpid:\t70\t1\nThreads:\t3\n")
            .expect("write a file");
        fs::write(folder.join("wchan"), "__refrigerator").expect("write a file");
        let procfs = Procfs::at(root.path());
        let activity = ProcessActivity {
            state: 'D',
            ppid: HostPid(7),
            tracer: Some(HostPid(9)),
            threads: 3,
            wchan: Some(Name::from("__refrigerator")),
            frozen: true,
        };
        let reader = ActivityReader::new(&procfs);
        let key = |pid, ticks| ProcessKey::new(HostPid(pid), BootNs::from_ticks(ticks).saturating_add(1_234));
        assert_eq!(reader.activity(key(70, 4567)), Ok(Some(activity)));
        assert_eq!(reader.activity(key(71, 4567)), Ok(None));
        assert_eq!(reader.activity(key(70, 4566)), Ok(None), "an earlier process with its PID");
    }

    #[test]
    fn this_process_is_running() {
        let procfs = Procfs::default();
        let own = HostPid(std::process::id());
        let start = BootNs::from_ticks(procfs.start_ticks(own).expect("own stat"));
        let this = ActivityReader::new(&procfs).activity(ProcessKey::new(own, start));
        let activity = this.expect("may be read").expect("it exists");
        assert!(activity.threads >= 1 && !activity.frozen, "{activity:?}");
    }
}
