//! A process of the model: who it is, where it is from, and how far it has come.

use crate::{
    event::identity::{BootNs, HostPid, NsInum, ProcessKey},
    event::snapshot::{Freezer, SnapshotProcess},
    event::{Exit, Process},
    text::Name,
};

/// How a process got into its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entered {
    /// Forked by a member, or as its first process.
    Born,
    /// Forked by a process of another namespace.
    Joined {
        /// That process as it was then: it may be gone, and another one have its PID.
        forker: Box<Process>,
    },
    /// Before it was watched. A snapshot found its parent outside of the namespace.
    ParentOutside {
        /// That parent's PID at level 0.
        parent: HostPid,
    },
    /// Before it was watched.
    Unseen,
}

/// What a snapshot shows of a process at its moment, and no event reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// Letter of its first thread's state (proc(5)).
    pub state: Option<char>,
    /// Threads, zombie ones included.
    pub threads: Option<u32>,
    /// How many of these have not begun to exit.
    pub threads_live: Option<u32>,
    /// Whether all its threads are exiting and it is no zombie yet.
    pub exiting: bool,
    /// Whether it is frozen.
    pub frozen: bool,
    /// By what.
    pub freezer: Option<Freezer>,
    /// PID at level 0 of the process that traces its first thread.
    pub tracer: Option<HostPid>,
    /// Whether it adopts the orphans among its descendants.
    pub subreaper: Option<bool>,
    /// The id of its cgroup (v2).
    pub cgroup_id: Option<u64>,
    /// The path of its cgroup.
    pub cgroup: Option<Name>,
    /// When it last ran, where it is exiting.
    pub last_ran: Option<BootNs>,
}

impl Observation {
    /// Whether all its threads have ended, and its parent has not reaped it.
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, Some('Z' | 'X')) && self.threads.is_none_or(|threads| threads <= 1)
    }
}

/// Who takes the children of a process that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heir {
    /// PID 1 of its namespace, where that is known.
    pub(super) init: Option<ProcessKey>,
    /// Whether it can be no other process.
    pub(super) certain: bool,
}

/// How and when a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// When; `None` where no event says that.
    pub since: Option<BootNs>,
    /// How it ended, likewise.
    pub exit: Option<Exit>,
    /// Whose child it was then, by that one's PID at level 0: who was to reap it first.
    pub parent: Option<HostPid>,
}

/// A process that exists, or is a zombie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessState {
    /// As its last record has it, but for `ppid`.
    pub process: Process,
    /// Its parent at level 0; `None` where it has none, or where that is not certain: see [`World::reaper`].
    ///
    /// [`World::reaper`]: super::World::reaper
    pub parent: Option<HostPid>,
    /// Whether a parent of it has ended.
    pub orphaned: bool,
    /// Of an orphan without a parent that is certain: what is known of the next one.
    pub(super) heir: Option<Heir>,
    /// How it got in.
    pub entered: Entered,
    /// What the last snapshot that has it shows.
    pub observed: Observation,
    /// Set once an event or a snapshot shows that it ended; it may still be exiting.
    pub ended: Option<Ended>,
    /// The namespace that its children go to, where that is not its own.
    pub children_ns: Option<NsInum>,
}

impl ProcessState {
    /// Its identity.
    pub fn key(&self) -> ProcessKey {
        self.process.key()
    }

    /// Whether this record is about it.
    pub(super) fn is(&self, process: &Process) -> bool {
        self.key().is_same(process.key())
    }

    /// Whether it is the one of its PID that was started then.
    pub fn has_started(&self, start_boot_ns: BootNs) -> bool {
        self.process.start_boot_ns.is_same(start_boot_ns)
    }

    /// Whether it is PID 1 of its namespace.
    pub fn is_init(&self) -> bool {
        self.process.pids.last() == Some(&1)
    }

    /// In the form of a snapshot of the kernel; `exiting`: it has ended for the events, and is no zombie yet.
    pub fn as_snapshot(&self, exiting: bool) -> SnapshotProcess {
        let Process { pid, pids, comm, start_boot_ns, uid, ns, ppid: _, container } = &self.process;
        let Observation { subreaper, cgroup_id, cgroup, .. } = self.observed.clone();
        let Observation { state, threads, threads_live, frozen, freezer, tracer, .. } = match &self.ended {
            Some(_) if exiting => Observation::default(),
            // A zombie that nothing traces gets no tracer any more (ptrace_attach(), kernel/ptrace.c).
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
            last_ran_boot_ns: self.observed.last_ran.filter(|_| exiting),
            zombie_since_boot_ns: self.ended.as_ref().and_then(|ended| ended.since).filter(|_| !exiting),
            container: container.clone(),
        }
    }
}
