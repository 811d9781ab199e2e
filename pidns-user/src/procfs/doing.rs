//! What a process is doing at this moment.

use super::{
    Procfs,
    freezer::V1Freezer,
    is_gone,
    mountinfo::{mounts, unescape},
    parse, read,
};
use crate::{event::identity::HostPid, text::Name};

/// Kernel functions in which a frozen task waits that was not asleep: of a v1 cgroup or a suspended machine (kernel/freezer.c), and of a v2 cgroup
/// (kernel/signal.c, whose name is another one before 5.2).
const FREEZERS: [&[u8]; 3] = [b"__refrigerator", b"do_freezer_trap", b"ptrace_freezer_trap"];

/// What a process is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doing {
    /// State of its first thread, a letter as proc(5) has it.
    pub state: char,
    /// Its parent.
    pub ppid: HostPid,
    /// Thread group id of the process that traces its first thread.
    pub tracer: Option<HostPid>,
    /// Threads, zombie ones included.
    pub threads: u64,
    /// The kernel function that its first thread sleeps in (/proc/PID/wchan); `None` where it does not sleep, and where that may
    /// not be read.
    pub wchan: Option<Name>,
    /// Whether it sleeps where frozen tasks do, or sleeps otherwise (D) and its v1 cgroup is frozen.
    pub frozen: bool,
}

/// Reads what processes are doing: for one pass over them.
pub struct DoingReader<'a> {
    procfs: &'a Procfs,
    freezer: V1Freezer<'a>,
}

impl<'a> DoingReader<'a> {
    /// Reads nothing yet.
    pub fn new(procfs: &'a Procfs) -> Self {
        Self { procfs, freezer: V1Freezer::new(procfs) }
    }

    /// What the process of this PID is doing; `None` where it is gone.
    ///
    /// # Errors
    /// Its files may not be read: the reason.
    pub fn doing(&self, pid: HostPid) -> Result<Option<Doing>, String> {
        let read = |file: &str| -> Result<Option<Vec<u8>>, String> {
            let path = self.procfs.path(pid, file);
            match read(&path) {
                Ok(text) => Ok(Some(text)),
                Err(error) if is_gone(&error) => Ok(None),
                Err(error) => Err(format!("{}: {error}", path.display())),
            }
        };
        let (Some(stat), Some(status)) = (read("stat")?, read("status")?) else { return Ok(None) };
        let Some(stat) = parse::parse_stat(&stat) else { return Ok(None) };
        let number = |label: &[u8]| parse::line(&status, label).and_then(parse::number::<u32>);
        let tracer = number(b"TracerPid:").filter(|&tid| tid != 0);
        // Not every user may read it, and all else is known without.
        let wchan = read("wchan").ok().flatten().filter(|wchan| wchan != b"0" && !wchan.is_empty());
        let is_frozen = wchan.as_deref().is_some_and(|wchan| FREEZERS.contains(&wchan))
            || (stat.state == 'D' && self.freezer.has_frozen(pid));
        Ok(Some(Doing {
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
    /// The number of the file system that is mounted at /proc of this process's mounts (`None`: of this program's own), where that
    /// is a proc. Two mounts of one file system show the same PID namespace.
    ///
    /// # Errors
    /// Its mounts may not be read: the reason.
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

    #[test]
    fn a_process_is_read_and_one_that_is_gone_is_none() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let folder = root.path().join("70");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("stat"), "70 (x) D 7 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4567 8 9")
            .expect("a file");
        fs::write(folder.join("status"), "Name:\tx\nTracerPid:\t9\nNSpid:\t70\t1\nThreads:\t3\n")
            .expect("a file");
        fs::write(folder.join("wchan"), "__refrigerator").expect("a file");
        let procfs = Procfs::at(root.path());
        let doing = Doing {
            state: 'D',
            ppid: HostPid(7),
            tracer: Some(HostPid(9)),
            threads: 3,
            wchan: Some(Name::from("__refrigerator")),
            frozen: true,
        };
        let reader = DoingReader::new(&procfs);
        assert_eq!(reader.doing(HostPid(70)), Ok(Some(doing)));
        assert_eq!(reader.doing(HostPid(71)), Ok(None));
    }

    #[test]
    fn this_process_runs() {
        let procfs = Procfs::default();
        let this = DoingReader::new(&procfs).doing(HostPid(std::process::id()));
        let doing = this.expect("may be read").expect("is there");
        assert!(doing.threads >= 1 && !doing.frozen, "{doing:?}");
    }
}
