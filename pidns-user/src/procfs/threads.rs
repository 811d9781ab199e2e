//! Reads threads other than the first of their process, because a snapshot does not list them.

use std::fs;

use super::{Procfs, parse};
use crate::event::identity::HostPid;

/// A thread other than the first of its process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its thread id at level 0 (gettid(2) there).
    pub tid: u32,
    /// Its process: the thread group.
    pub process: HostPid,
    /// Its thread id at each level, from 0 to the innermost; empty if unreadable.
    pub pids: Vec<u32>,
}

impl Procfs {
    /// The thread with this id. `None` if it does not exist or is the first thread of a process, whose id is the PID.
    ///
    /// `/proc/TID` exists for each thread, although /proc does not list it (proc(5)). `NSpid` in its status has the ids
    /// of the thread, not those of its process.
    pub fn thread(&self, tid: u32) -> Option<Thread> {
        let status = self.text(tid, "status").ok()??;
        let process = parse::line(&status, b"Tgid:").and_then(parse::number).map(HostPid)?;
        let pids = parse::parse_status(&status)?.pids;
        (process.0 != tid).then_some(Thread { tid, process, pids })
    }

    /// All threads of a process except its first. Empty if the process is gone or cannot be read.
    pub fn threads_of(&self, process: HostPid) -> Vec<Thread> {
        let Ok(tasks) = fs::read_dir(self.path(process, "task")) else { return Vec::new() };
        let tids = tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok());
        // If a thread has ended meanwhile, another process may have its id.
        tids.filter_map(|tid| self.thread(tid)).filter(|thread| thread.process == process).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &std::path::Path, folder: &str, status: &str) {
        let folder = root.join(folder);
        fs::create_dir_all(&folder).expect("create a directory");
        fs::write(folder.join("status"), status).expect("write a file");
    }

    #[test]
    fn a_thread_has_its_own_ids_and_the_pid_of_its_process() {
        let root = tempfile::tempdir().expect("a temporary directory");
        put(root.path(), "70", "Name:\tx\nTgid:\t70\nPid:\t70\nNSpid:\t70\t1\n");
        put(root.path(), "71", "Name:\tx\nTgid:\t70\nPid:\t71\nNSpid:\t71\t2\n");
        put(root.path(), "70/task/70", "");
        put(root.path(), "70/task/71", "");
        let procfs = Procfs::at(root.path());
        let thread = Thread { tid: 71, process: HostPid(70), pids: vec![71, 2] };
        assert_eq!(procfs.thread(71), Some(thread.clone()));
        assert_eq!(procfs.thread(70), None, "the first thread has the PID of its process");
        assert_eq!(procfs.thread(72), None);
        assert_eq!(procfs.threads_of(HostPid(70)), vec![thread]);
    }

    #[test]
    fn a_thread_of_this_process_is_found() {
        let tid = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        let thread = Procfs::default().thread(tid).expect("each test has its own thread");
        assert_eq!(thread.process, HostPid(std::process::id()));
        assert_eq!(thread.pids.first(), Some(&tid));
        assert!(Procfs::default().threads_of(thread.process).contains(&thread));
    }
}
