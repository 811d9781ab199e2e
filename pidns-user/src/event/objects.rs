//! Parts of events.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    Token, bounds,
    identity::{BootNs, HostPid, NamespaceKey, NsInum, ProcessKey},
};
use crate::{event::container::Container, text::Name};

/// Inode number of the initial PID namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h).
pub const INITIAL_NS: NsInum = NsInum(0xefff_fffc);

/// Size of a task's name in the kernel in bytes, with the closing NUL (`TASK_COMM_LEN`, include/linux/sched.h).
pub const COMM_LEN: usize = 16;

/// A process. [`Self::key`] is its identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its PID at level 0.
    pub pid: HostPid,
    /// Its PID at each level, from 0 to the innermost.
    #[serde(deserialize_with = "bounds::pids")]
    pub pids: Vec<u32>,
    /// The kernel's short name for it, escaped.
    #[serde(deserialize_with = "bounds::comm")]
    pub comm: Name,
    /// When it was started.
    pub start_boot_ns: BootNs,
    /// Its real parent at level 0; absent if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ppid: Option<HostPid>,
    /// Real user id, in the initial user namespace.
    pub uid: u32,
    /// Inode number of its innermost PID namespace.
    pub ns: NsInum,
    /// The container of its own cgroup, if that is not the container of its namespace's PID 1: containers can share a
    /// PID namespace. Absent if they are the same or it is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Arc<Container>>,
}

/// A PID namespace. [`Self::key`] is its identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Inode number, as in `pid:[4026532847]`.
    pub inum: NsInum,
    /// Depth; 0 is the initial namespace.
    #[serde(deserialize_with = "bounds::level")]
    pub level: u32,
    /// Inode number of its parent; absent for the initial one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<NsInum>,
    /// When it was created, or when its init was started if no hook saw the creation. Absent if both are unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub born_boot_ns: Option<BootNs>,
    /// The kernel's own 64-bit number for it (6.18 and later).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_id: Option<u64>,
    /// Inode number of the user namespace that owns it.
    pub user_ns: u32,
    /// Owner of that user namespace: a user id in the initial user namespace.
    pub owner_uid: u32,
    /// The container of its PID 1; absent if PID 1 is in no container, or it is not known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Arc<Container>>,
}

impl Process {
    /// Its identity.
    pub fn key(&self) -> ProcessKey {
        ProcessKey { pid: self.pid, start: self.start_boot_ns }
    }

    /// Whether it is PID 1 of its namespace.
    pub fn is_init(&self) -> bool {
        self.pids.last() == Some(&1)
    }

    /// Whether it is PID 1 of a namespace other than the host's.
    pub fn is_nested_init(&self) -> bool {
        self.pids.len() > 1 && self.is_init()
    }
}

impl Namespace {
    /// Its identity.
    pub fn key(&self) -> NamespaceKey {
        NamespaceKey { inum: self.inum, born: self.born_boot_ns }
    }
}

/// A PID that a fork requested and that is in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenPid {
    /// The PID.
    pub pid: u32,
    /// Inode number of the namespace in which it is in use.
    pub ns: NsInum,
    /// "process", "thread" (not the first of its process), "process_group" or "session" (their first process is gone).
    #[serde(rename = "as")]
    pub used_as: Token,
}

/// A reached limit. Unknown facts are absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachedLimit {
    /// "pids_cgroup", "pid_max", "nproc_limit", "max_pid_namespaces", "max_user_namespaces" or "depth_limit".
    pub kind: Token,
    /// The limit's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<u64>,
    /// The usage right after the refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
    /// Path of the limit's cgroup in its hierarchy, if /proc still shows the refused process in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Name>,
    /// Id of that cgroup: the inode number of its directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_id: Option<u64>,
    /// The user whose processes or namespaces count, in the initial user namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Inode number of the PID namespace that the limit belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ns: Option<NsInum>,
    /// Inode number of the user namespace that the limit belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_ns: Option<u32>,
}

impl ReachedLimit {
    /// Number of tasks that it allows. After the first round, the kernel does not use PIDs below 300 again
    /// (`RESERVED_PIDS`, kernel/pid.c).
    pub fn usable(&self) -> Option<u64> {
        const RESERVED_PIDS: u64 = 300;
        let value = self.value?;
        Some(if self.kind == "pid_max" { value.saturating_sub(RESERVED_PIDS) } else { value })
    }

    /// The share in use, in percent; 255 for everything above.
    pub fn percent(&self) -> Option<u8> {
        let (usable, current) = (self.usable()?, self.current?);
        Some((current.saturating_mul(100) / usable.max(1)).min(u64::from(u8::MAX)) as u8)
    }
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Exit {
    /// It exited.
    Code {
        /// 0 to 255.
        code: u32,
    },
    /// A signal killed it.
    Signal {
        /// "SIGKILL".
        signal: String,
        /// Whether a core was dumped.
        #[serde(default, skip_serializing_if = "is_false")]
        core: bool,
    },
}

/// Why an init died, as far as hooks saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    /// It ended by itself.
    Exited,
    /// A process sent it a signal.
    Signal {
        /// "SIGKILL".
        signal: String,
        /// The sending process; absent if the kernel sent the signal (a timer, for example).
        #[serde(skip_serializing_if = "Option::is_none")]
        sender: Option<Process>,
    },
    /// Its parent ended, and it had requested a signal for that case (PR_SET_PDEATHSIG).
    ParentDeath {
        /// "SIGKILL".
        signal: String,
        /// Its parent until then.
        parent: Process,
        /// Whether only the thread that had forked the init ended, and not the whole parent.
        #[serde(default, skip_serializing_if = "is_false")]
        thread: bool,
    },
    /// The init of an outer namespace died.
    Cascade {
        /// Inode number of the outer namespace.
        ns: NsInum,
    },
    /// A process in the namespace called reboot(2).
    Reboot {
        /// "restart", "restart2", "halt" or "power_off". The tracepoint set reports only "restart" or "halt", also for
        /// the other two: the kernel keeps no difference.
        command: Token,
    },
    /// Memory ran out and the kernel chose it.
    Oom {
        /// The chosen process.
        victim: Process,
    },
    /// It did something that the processor or the kernel forbids.
    Fault {
        /// "SIGSEGV".
        signal: String,
    },
    /// No hook saw it.
    Unknown,
}

/// Whether to omit a field.
pub(crate) fn is_false(value: &bool) -> bool {
    !value
}

/// Records of one kind: sent by the kernel side, and lost because the ring buffer was full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelCount {
    /// Sent.
    pub submitted: u64,
    /// Lost.
    pub lost: u64,
}

/// Counts of threads, without the main threads of processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadCount {
    /// Created.
    pub created: u64,
    /// Ended.
    pub ended: u64,
}

/// Size of the model at the end of a stream, and how often it was wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCount {
    /// Processes, zombies included.
    pub processes: u64,
    /// Namespaces.
    pub namespaces: u64,
    /// How often it was compared with the kernel.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub checks: u64,
    /// Number of processes and namespaces that differed although no event had been lost.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub drift: u64,
    /// Contradictions between events that are impossible if no event is missing, by kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub surprises: BTreeMap<Token, u64>,
}

pub(crate) fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// The filter of a stream, as given on the command line; absent: no filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamFilter {
    /// Names of the events.
    pub events: Vec<Token>,
    /// Inode numbers of the namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<NsInum>,
    /// Names of containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<String>,
    /// PIDs in the initial namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pids: Vec<HostPid>,
    /// Patterns for comm.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub comms: Vec<String>,
    /// Levels, as given on the command line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<String>,
}
