//! A process of the model: who it is, where it is from, and how far it has come.

use crate::{
    event::{Exit, Process},
    snapshot,
};

/// Identity of a process: its PID at level 0, and its start (CLOCK_BOOTTIME, nanoseconds).
pub type Identity = (u32, u64);

/// How a process got into its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// Forked by a member, or as its first process.
    Born,
    /// Forked by a process of another namespace.
    Joined {
        /// That process's PID at level 0.
        parent: u32,
    },
    /// Before it was watched.
    Unseen,
}

/// A process that exists, or is a zombie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resident {
    /// As the last word about it has it, but for `ppid`.
    pub process: Process,
    /// Its parent at level 0; `None` where it has none, or another one than it began with that nobody named yet.
    pub parent: Option<u32>,
    /// Whether its parent ended before it.
    pub orphaned: bool,
    /// How it got in.
    pub entered: Entered,
    /// Letter of its state (proc(5)) and threads, where a snapshot told them.
    pub looked: (Option<char>, Option<u32>),
    /// Since when it is a zombie (CLOCK_BOOTTIME, nanoseconds), and how it ended.
    pub ended: Option<(u64, Option<Exit>)>,
    /// The namespace that its children go to, where that is not its own.
    pub children_ns: Option<u32>,
}

impl Resident {
    /// Which process it is.
    pub fn identity(&self) -> Identity {
        identity(&self.process)
    }

    /// In the form that a look at the kernel has.
    pub fn as_looked_at(&self) -> snapshot::Process {
        let Process { pid, pids, comm, start_boot_ns, uid, ns, ppid: _ } = &self.process;
        let (state, threads) = match (&self.ended, self.looked) {
            (Some(_), _) => (Some('Z'), Some(1)),
            (None, looked) => looked,
        };
        snapshot::Process {
            pid: *pid,
            pids: pids.clone(),
            comm: Some(comm.clone()),
            start_boot_ns: Some(*start_boot_ns),
            ppid: self.parent,
            uid: Some(*uid),
            ns: Some(*ns),
            state,
            threads,
            // No event tells these.
            tracer: None,
            cgroup_id: None,
        }
    }
}

pub(super) fn identity(process: &Process) -> Identity {
    (process.pid, process.start_boot_ns)
}
