//! What events are made of.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    Token, bounds,
    identity::{BootNs, HostPid, NamespaceKey, NsInum, ProcessKey},
};
use crate::{event::container::Container, text::Name};

/// Inode number of the initial PID namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h).
pub const INITIAL_NS: NsInum = NsInum(0xefff_fffc);

/// Bytes that the kernel keeps of a process's name (`TASK_COMM_LEN`, include/linux/sched.h), the closing NUL included.
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
    /// Its real parent, in the initial namespace; absent where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ppid: Option<HostPid>,
    /// Real user id, in the initial user namespace.
    pub uid: u32,
    /// Inode number of its innermost PID namespace.
    pub ns: NsInum,
    /// What it runs in, by its own cgroup, where that is not what the PID 1 of its namespace runs in: containers can share a
    /// PID namespace. Absent where it is the same, or not known.
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
    /// Its creation, or its init's start where no hook saw the creation. Absent where neither is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub born_boot_ns: Option<BootNs>,
    /// The kernel's own 64-bit number for it (6.18 and later).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_id: Option<u64>,
    /// Inode number of the user namespace that owns it.
    pub user_ns: u32,
    /// Who owns that one: a user id in the initial user namespace.
    pub owner_uid: u32,
    /// What its PID 1 runs in; absent where that is no container, or not known yet.
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

/// A PID that a fork asked for and that is in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenPid {
    /// The PID.
    pub pid: u32,
    /// Inode number of the namespace in which it is.
    pub ns: NsInum,
    /// "process", "thread" (one that is not its process's first), "process_group" or "session" (whose first process is gone).
    #[serde(rename = "as")]
    pub used_as: Token,
}

/// A limit that is reached: all that is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachedLimit {
    /// "pids_cgroup", "pid_max", "nproc_limit", "max_pid_namespaces", "max_user_namespaces" or "depth_limit".
    pub kind: Token,
    /// The most that it allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<u64>,
    /// How much of that was used right after the refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
    /// Path of the cgroup that it is set on, in its hierarchy, where the process that was refused still shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Name>,
    /// Number of that cgroup: inode number of its folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_id: Option<u64>,
    /// User whose processes or namespaces count, in the initial user namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Inode number of the PID namespace whose limit it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ns: Option<NsInum>,
    /// Inode number of the user namespace whose limit it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_ns: Option<u32>,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Exit {
    /// By itself.
    Code {
        /// 0 to 255.
        code: u32,
    },
    /// By a signal.
    Signal {
        /// "SIGKILL".
        signal: String,
        /// Whether a core was dumped.
        #[serde(default, skip_serializing_if = "is_false")]
        core: bool,
    },
}

/// Why an init died, as far as a hook saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    /// It ended by itself.
    Exited,
    /// A process sent it a signal.
    Signal {
        /// "SIGKILL".
        signal: String,
        /// Who; absent where the kernel did (a timer, say).
        #[serde(skip_serializing_if = "Option::is_none")]
        sender: Option<Process>,
    },
    /// Its parent ended, and it had asked for a signal then (PR_SET_PDEATHSIG).
    ParentDeath {
        /// "SIGKILL".
        signal: String,
        /// The parent that it had until then.
        parent: Process,
        /// Whether only that thread of the parent ended which had forked the init.
        #[serde(default, skip_serializing_if = "is_false")]
        thread: bool,
    },
    /// An outer namespace's init died.
    Cascade {
        /// Inode number of that namespace.
        ns: NsInum,
    },
    /// reboot(2) inside the namespace.
    Reboot {
        /// "restart", "restart2", "halt" or "power_off"; in the tracepoint set "restart" or "halt" alone, which stand
        /// for the others too: the kernel keeps no difference.
        command: Token,
    },
    /// The kernel chose it when memory ran out.
    Oom {
        /// The process that was chosen.
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

/// Whether a field is left out.
pub(crate) fn is_false(value: &bool) -> bool {
    !value
}

/// What the kernel side sent of one kind, and what the ring buffer had no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelCount {
    /// Sent.
    pub submitted: u64,
    /// Lost.
    pub lost: u64,
}

/// Threads, which are no processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadCount {
    /// Created.
    pub created: u64,
    /// Ended.
    pub ended: u64,
}

/// What exists at the end of a stream by its events, and how often that was found to be wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCount {
    /// Processes, zombies included.
    pub processes: u64,
    /// Namespaces.
    pub namespaces: u64,
    /// How often that was compared with what the kernel has.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub checks: u64,
    /// How many processes and namespaces were found to differ then, where no event had been lost.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub drift: u64,
    /// Contradictions in events that had been impossible had everything been seen, by kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub surprises: BTreeMap<Token, u64>,
}

pub(crate) fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// What a stream is limited to, as given on the command line; absent: not limited.
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
    /// Patterns of comm.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub comms: Vec<String>,
    /// Levels, as given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<String>,
}
