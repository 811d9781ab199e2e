//! The state at one moment: processes, namespaces, and the holders that keep namespaces alive. All sources yield it.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Process, bounds};
use crate::{
    event::container::Container,
    event::identity::{BootNs, HostPid, NamespaceKey, NsInum, ProcessKey, TICK_NS},
    event::objects::{Namespace, is_false, is_zero},
    text::{Name, or_unknown},
};

/// Source of the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotSource {
    /// The kernel's task iterator.
    Iterator,
    /// /proc. It rounds starts down to ticks of 10 ms.
    Proc,
    /// A recording: the initial snapshot, updated by the events.
    Recording,
}

/// The mechanism that froze a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Freezer {
    /// Its cgroup (v2, `cgroup.freeze`). SIGKILL still works; other signals wait.
    CgroupV2,
    /// Its cgroup (v1, `freezer.state`), or a system suspend. No signal works, not even SIGKILL.
    CgroupV1OrSuspend,
}

/// A process that exists. Facts that cannot be read are absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SnapshotProcess {
    /// Its PID at level 0.
    pub pid: HostPid,
    /// Its PID at each level, from 0 to the innermost; empty if they cannot be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pids: Vec<u32>,
    /// The kernel's short name for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<Name>,
    /// When it was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_boot_ns: Option<BootNs>,
    /// Its real parent at level 0; also absent if it has none there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ppid: Option<HostPid>,
    /// Real user id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Inode number of its innermost PID namespace; absent if it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ns: Option<NsInum>,
    /// State of its first thread, a letter as in proc(5).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<char>,
    /// Number of its threads, with zombie threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// Number of its threads that are not yet exiting. Only the task iterator reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads_live: Option<u32>,
    /// Whether all its threads are exiting and it is not a zombie yet, such as a PID 1 that waits for the end of its
    /// members.
    #[serde(skip_serializing_if = "is_false")]
    pub exiting: bool,
    /// Whether it is frozen. Only the task iterator reports it.
    #[serde(skip_serializing_if = "is_false")]
    pub frozen: bool,
    /// The mechanism that froze it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freezer: Option<Freezer>,
    /// Thread group id at level 0 of the process that traces its first thread (ptrace(2)). If absent,
    /// [`Self::knows_tracer`] says whether it is known that there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracer: Option<HostPid>,
    /// Whether it adopts orphans among its descendants (PR_SET_CHILD_SUBREAPER). Only the task iterator reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subreaper: Option<bool>,
    /// Its cgroup v2 id: the inode number of the cgroup's directory in the v2 mount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_id: Option<u64>,
    /// Path of its cgroup, as /proc/PID/cgroup shows it to the reader. It is the path in v2. If the process is in the
    /// root of v2, it is the path in the v1 hierarchy with the pids controller, or else in the first v1 hierarchy in
    /// which the process is not in the root. Absent if it cannot be read or was not requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Name>,
    /// An opaque id of its cgroups in all hierarchies. Processes of one snapshot with the same id are in the same
    /// cgroups. Only the task iterator reports it.
    #[serde(skip)]
    pub cgroup_set: Option<u64>,
    /// When it became a zombie. If no event reported that, it is when its first thread last ran, from the task iterator
    /// and exact to about 0.1 s. That is too early if the first thread ended long before the others. It is too late by
    /// the duration of system suspends since then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zombie_since_boot_ns: Option<BootNs>,
    /// For an exiting process: when it last ran. It has waited at least since then. Only the task iterator reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_ran_boot_ns: Option<BootNs>,
    /// In state D: the kernel function in which its first thread sleeps (/proc/PID/wchan), if it can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wchan: Option<Name>,
    /// The container of its own cgroup, if that is not the container of its namespace's PID 1. Absent if they are the
    /// same, if it is unknown, or if it was not requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Arc<Container>>,
}

impl SnapshotProcess {
    /// Whether all its threads have ended and its parent has not reaped it. (A first thread that ended before the
    /// others is in state Z too.)
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, Some('Z' | 'X')) && self.threads.is_none_or(|threads| threads <= 1)
    }

    /// A process of which only the PID is known.
    pub fn bare(pid: HostPid) -> Self {
        Self {
            pid,
            pids: Vec::new(),
            comm: None,
            start_boot_ns: None,
            ppid: None,
            uid: None,
            ns: None,
            state: None,
            threads: None,
            threads_live: None,
            exiting: false,
            frozen: false,
            freezer: None,
            tracer: None,
            subreaper: None,
            cgroup_id: None,
            cgroup: None,
            cgroup_set: None,
            zombie_since_boot_ns: None,
            last_ran_boot_ns: None,
            wchan: None,
            container: None,
        }
    }

    /// A process as an event describes it.
    pub fn of(process: &Process) -> Self {
        let Process { pid, pids, comm, start_boot_ns, ppid, uid, ns, container } = process;
        Self {
            pids: pids.clone(),
            comm: Some(comm.clone()),
            start_boot_ns: Some(*start_boot_ns),
            ppid: *ppid,
            uid: Some(*uid),
            ns: Some(*ns),
            container: container.clone(),
            ..Self::bare(*pid)
        }
    }

    /// Whether its first thread has ended while other threads remain. Its parent cannot reap it yet.
    pub fn outlives_first_thread(&self) -> bool {
        matches!(self.state, Some('Z' | 'X')) && !self.is_zombie() && !self.exiting
    }

    /// Whether it is known if another process traces it. In a recording that is known only for processes of a snapshot.
    pub fn knows_tracer(&self, source: SnapshotSource) -> bool {
        match source {
            SnapshotSource::Iterator | SnapshotSource::Proc => !self.pids.is_empty(),
            SnapshotSource::Recording => self.tracer.is_some() || self.threads_live.is_some(),
        }
    }

    /// Its identity; `None` if its start cannot be read.
    pub fn key(&self) -> Option<ProcessKey> {
        Some(ProcessKey { pid: self.pid, start: self.start_boot_ns? })
    }

    /// Its level, 0 in the outermost namespace; `None` if it cannot be read.
    pub fn level(&self) -> Option<u32> {
        self.pids.len().checked_sub(1).map(|level| level as u32)
    }

    /// Its name, for people.
    pub fn name(&self) -> String {
        or_unknown(self.comm.as_ref())
    }

    /// Whether it is PID 1 of its namespace.
    pub fn is_init(&self) -> bool {
        self.pids.last() == Some(&1)
    }
}

/// A PID namespace that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotNamespace {
    /// Inode number, as in `pid:[4026532847]`.
    pub inum: NsInum,
    /// Depth; 0 is the outermost visible namespace, on the host the initial one.
    #[serde(deserialize_with = "bounds::level")]
    pub level: u32,
    /// Inode number of its parent; absent at level 0 and if it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<NsInum>,
    /// When its init was started; absent if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub born_boot_ns: Option<BootNs>,
    /// The kernel's own 64-bit number for it (6.18 and later).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_id: Option<u64>,
    /// Inode number of the user namespace that owns it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_ns: Option<u32>,
    /// Owner of that user namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner_uid: Option<u32>,
    /// Whether its PID 1 is exiting or has ended while processes are left. No process can be forked into it any more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dying: bool,
    /// Its own `kernel.pid_max`; absent before 6.14, and if it was not lowered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid_max: Option<PidMax>,
    /// The container of its PID 1; absent if PID 1 is in no container, if it is unknown, or if it was not requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Arc<Container>>,
}

/// The `kernel.pid_max` of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidMax {
    /// The limit. No PID is as high.
    pub value: u32,
    /// Number of PIDs in use by processes, threads and zombies.
    pub current: u32,
}

impl SnapshotNamespace {
    /// Its identity.
    pub fn key(&self) -> NamespaceKey {
        NamespaceKey { inum: self.inum, born: self.born_boot_ns }
    }

    /// Whether the two are known to be different namespaces that had the same inode number.
    pub fn differs_from(&self, other: &Self) -> bool {
        if let (Some(one), Some(other)) = (self.kernel_id, other.kernel_id) {
            return one != other;
        }
        let births = self.born_boot_ns.zip(other.born_boot_ns);
        births.is_some_and(|(one, other)| one.max(other).saturating_since(one.min(other)) > TICK_NS)
    }

    /// Whether a process or namespace with this start is known to be older than this namespace. Then it cannot be in
    /// it.
    pub fn is_younger_than(&self, start: Option<BootNs>) -> bool {
        self.born_boot_ns.zip(start).is_some_and(|(born, start)| start.saturating_add(TICK_NS) < born)
    }

    /// A namespace as an event describes it.
    pub fn of(ns: &Namespace) -> Self {
        let Namespace { inum, level, parent, born_boot_ns, kernel_id, user_ns, owner_uid, ref container } =
            *ns;
        Self {
            inum,
            level,
            parent,
            born_boot_ns,
            kernel_id,
            user_ns: Some(user_ns),
            owner_uid: Some(owner_uid),
            dying: false,
            pid_max: None,
            container: container.clone(),
        }
    }

    /// A namespace of which only number and level are known.
    pub fn bare(inum: NsInum, level: u32) -> Self {
        Self {
            inum,
            level,
            parent: None,
            born_boot_ns: None,
            kernel_id: None,
            user_ns: None,
            owner_uid: None,
            dying: false,
            pid_max: None,
            container: None,
        }
    }
}

/// A holder: something other than its own processes that keeps a namespace alive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Holder {
    /// A process has it open as a file descriptor.
    Fd {
        /// The process.
        pid: HostPid,
        /// Its name.
        #[serde(default, deserialize_with = "bounds::known_comm", skip_serializing_if = "Option::is_none")]
        comm: Option<Name>,
        /// The descriptor.
        fd: u32,
        /// The thread that has the descriptor, if the thread has its own file table. It is then in
        /// `/proc/PID/task/TID/fd` and not in `/proc/PID/fd`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tid: Option<u32>,
    },
    /// A process's children will be born in it (`/proc/PID/ns/pid_for_children`).
    PidForChildren {
        /// The process.
        pid: HostPid,
        /// Its name.
        #[serde(default, deserialize_with = "bounds::known_comm", skip_serializing_if = "Option::is_none")]
        comm: Option<Name>,
    },
    /// It is mounted somewhere.
    Mount {
        /// Mount point, as the processes of that mount namespace see it.
        path: Name,
        /// Inode number of the mount namespace.
        mount_ns: u32,
        /// A process in that mount namespace: `/proc/PID/root` leads there.
        pid: HostPid,
    },
    /// A mounted proc that shows it.
    ProcMount(ProcMount),
    /// A nested namespace.
    Child {
        /// Its inode number.
        ns: NsInum,
    },
}

/// A mount of a proc file system.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcMount {
    /// Mount point, as the processes of that mount namespace see it.
    pub path: Name,
    /// Inode number of the mount namespace.
    pub mount_ns: u32,
    /// A process in that mount namespace: `/proc/PID/root` leads there.
    pub pid: HostPid,
}

/// A mounted proc whose namespace is unknown. It still keeps the namespace's structure in memory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Unnamed {
    /// The mount.
    #[serde(flatten)]
    pub mount: ProcMount,
    /// Why its namespace is unknown.
    pub why: WhyUnnamed,
    /// Number of further mounts of this proc in this mount namespace.
    #[serde(skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

/// Why it is unknown which namespace a proc shows. Only the PID 1 in it identifies the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyUnnamed {
    /// It shows no process: the namespace has none any more or none yet.
    NoProcess,
    /// Another mount covers it, or only parts of it are mounted.
    OutOfSight,
    /// It or its PID 1 cannot be read.
    Unreadable,
    /// Its path leads through a file system whose server may not answer (FUSE, NFS and similar).
    BehindServer,
}

/// Amount of information that could not be read: privileges are missing, or a file system may not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// Processes of which only the PID is known.
    pub processes: u64,
    /// Processes whose namespace is unknown.
    pub namespaces: u64,
    /// Processes whose open files or whose children's namespace is unknown.
    pub files: u64,
    /// Processes whose mounts are unknown.
    pub mounts: u64,
    /// Whether this /proc hides other users' processes (mount option hidepid), so that their number is unknown.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
    /// Mounted namespaces that were not opened because their path leads through a file system whose server may not
    /// answer. If nothing else shows such a namespace, its level, parent and owner are unknown.
    #[serde(skip_serializing_if = "is_zero")]
    pub behind_server: u64,
}

impl Unread {
    /// Whether everything was read.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// The state at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Source of the processes.
    pub source: SnapshotSource,
    /// When the snapshot started.
    pub boot_ns: BootNs,
    /// The processes, by PID.
    pub processes: Vec<SnapshotProcess>,
    /// The namespaces, by inode number.
    pub namespaces: BTreeMap<NsInum, SnapshotNamespace>,
    /// Holders with the inode number of the namespace that they keep. Empty unless requested.
    pub holders: Vec<(NsInum, Holder)>,
    /// Number of further holders by the inode number of the namespace.
    pub holders_left_out: BTreeMap<NsInum, u64>,
    /// Mounted procs whose namespace is unknown. Empty unless holders were requested.
    pub unnamed: Vec<Unnamed>,
    /// Information that could not be read.
    pub unread: Unread,
}

impl Snapshot {
    /// An empty snapshot that started at this time.
    pub fn empty(source: SnapshotSource, boot_ns: BootNs) -> Self {
        Self {
            source,
            boot_ns,
            processes: Vec::new(),
            namespaces: BTreeMap::new(),
            holders: Vec::new(),
            holders_left_out: BTreeMap::new(),
            unnamed: Vec::new(),
            unread: Unread::default(),
        }
    }

    /// The containers of processes that are in another container than the PID 1 of their namespace, with that
    /// namespace's inode number. Repeated for each such process.
    pub fn sharing_containers(&self) -> impl Iterator<Item = (NsInum, &Arc<Container>)> {
        let own =
            self.processes.iter().filter_map(|process| Some((process.ns?, process.container.as_ref()?)));
        own.filter(|(_, container)| !container.is_unit())
    }

    /// The containers of PID 1s, each with the inode number of the namespace.
    pub fn containers(&self) -> impl Iterator<Item = (NsInum, &Arc<Container>)> {
        self.namespaces.values().filter_map(|ns| Some((ns.inum, ns.container.as_ref()?)))
    }
}
