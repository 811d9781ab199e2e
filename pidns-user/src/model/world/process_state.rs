//! A process in the model: identity, origin and state.

use crate::{
    event::identity::{BootNs, HostPid, NsInum, ProcessKey},
    event::snapshot::{Freezer, SnapshotProcess},
    event::{Exit, Process},
    text::Name,
};

/// The way in which a process entered its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entered {
    /// Forked by a member, or as its first process.
    Born,
    /// Forked by a process of another namespace.
    Joined {
        /// The forker at that time; its PID may belong to another process now.
        forker: Box<Process>,
    },
    /// Before tracing started. A snapshot found its parent outside of the namespace.
    ParentOutside {
        /// That parent's PID at level 0.
        parent: HostPid,
    },
    /// Before tracing started.
    Unseen,
}

/// Facts that only snapshots show, as of the last one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// Letter of its first thread's state (proc(5)).
    pub state: Option<char>,
    /// Threads, zombie ones included.
    pub threads: Option<u32>,
    /// Number of threads that have not begun to exit.
    pub threads_live: Option<u32>,
    /// Whether all its threads are exiting, but it is no zombie yet.
    pub exiting: bool,
    /// Whether it is frozen.
    pub frozen: bool,
    /// The freezer, if it is frozen.
    pub freezer: Option<Freezer>,
    /// PID at level 0 of the tracer of its first thread.
    pub tracer: Option<HostPid>,
    /// Whether it adopts orphaned descendants.
    pub subreaper: Option<bool>,
    /// The id of its cgroup (v2).
    pub cgroup_id: Option<u64>,
    /// The path of its cgroup.
    pub cgroup: Option<Name>,
    /// When it last ran, if it is exiting.
    pub last_ran: Option<BootNs>,
    /// The kernel function in which its first thread sleeps, in state D.
    pub wchan: Option<Name>,
}

impl Observation {
    /// Whether it is a zombie: all threads have exited, not reaped yet.
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, Some('Z' | 'X')) && self.threads.is_none_or(|threads| threads <= 1)
    }
}

/// The process that adopts the children of one that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NewParent {
    /// PID 1 of its namespace, if known.
    pub(super) init: Option<ProcessKey>,
    /// Whether no other process is possible.
    pub(super) certain: bool,
}

/// The end of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// When; `None` if no event reported it.
    pub since: Option<BootNs>,
    /// Exit code or signal; `None` if unknown.
    pub exit: Option<Exit>,
    /// Its parent at that time (PID at level 0), the first that should reap it.
    pub parent: Option<HostPid>,
}

/// A process that exists, or is a zombie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessState {
    /// From its last record, without `ppid` (see `parent`).
    pub process: Process,
    /// Its parent at level 0; `None` if it has none, or if it is uncertain: see [`World::reaper`].
    ///
    /// [`World::reaper`]: super::World::reaper
    pub parent: Option<HostPid>,
    /// Whether one of its parents has ended.
    pub orphaned: bool,
    /// For an orphan whose new parent is uncertain: what we know about that parent.
    pub(super) heir: Option<NewParent>,
    /// The way in which it entered its namespace.
    pub entered: Entered,
    /// From the last snapshot that lists it.
    pub observed: Observation,
    /// Set once an event or a snapshot shows that it ended; it may still be exiting.
    pub ended: Option<Ended>,
    /// The namespace in which its children will be born, if not its own.
    pub children_ns: Option<NsInum>,
    /// The system call that set it, if an event showed it: "unshare" or "setns".
    pub children_ns_by: Option<&'static str>,
}

impl ProcessState {
    /// Its identity.
    pub fn key(&self) -> ProcessKey {
        self.process.key()
    }

    /// Whether this record is about this process.
    pub(super) fn is(&self, process: &Process) -> bool {
        self.key().is_same(process.key())
    }

    /// Whether it has this start time, so is this process and not another with its PID.
    pub fn has_started(&self, start_boot_ns: BootNs) -> bool {
        self.process.start_boot_ns.is_same(start_boot_ns)
    }

    /// Whether it is PID 1 of its namespace.
    pub fn is_init(&self) -> bool {
        self.process.is_init()
    }

    /// In the form of a kernel snapshot; `exiting`: events reported its exit, but /proc does not show a zombie yet.
    pub fn as_snapshot(&self, exiting: bool) -> SnapshotProcess {
        let Process { pid, pids, comm, start_boot_ns, uid, ns, ppid: _, container } = &self.process;
        let Observation { subreaper, cgroup_id, cgroup, .. } = self.observed.clone();
        let Observation { state, threads, threads_live, frozen, freezer, tracer, .. } = match &self.ended {
            Some(_) if exiting => Observation::default(),
            // A zombie cannot be traced any more (ptrace_attach(), kernel/ptrace.c).
            Some(_) if self.observed.is_zombie() => self.observed.clone(),
            Some(_) => Observation { state: Some('Z'), threads: Some(1), ..Observation::default() },
            None => self.observed.clone(),
        };
        SnapshotProcess {
            pid: *pid,
            pids: pids.clone(),
            comm: Some(comm.clone()),
            start_boot_ns: Some(*start_boot_ns),
            ppid: self.parent,
            uid: Some(*uid),
            ns: Some(*ns),
            state,
            threads,
            threads_live,
            exiting,
            frozen,
            freezer,
            tracer,
            subreaper,
            cgroup_id,
            cgroup,
            cgroup_set: None,
            last_ran_boot_ns: self.observed.last_ran.filter(|_| exiting),
            wchan: self.observed.wchan.clone(),
            zombie_since_boot_ns: self.ended.as_ref().and_then(|ended| ended.since).filter(|_| !exiting),
            container: container.clone(),
        }
    }
}
