//! What exists at one moment: processes, namespaces, and what keeps namespaces alive. One value, from either source.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Process, bounds};
use crate::{
    event::container::Container,
    event::identity::{BootNs, HostPid, NamespaceKey, NsInum, ProcessKey, TICK_NS},
    event::objects::{Namespace, is_false, is_zero},
    text::{Name, or_unknown},
};

/// Where the processes were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotSource {
    /// The kernel's task iterator.
    Iterator,
    /// /proc: starts are rounded down to ticks of 10 ms.
    Proc,
    /// A recording: what its events make of what it began with.
    Recording,
}

/// What froze a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Freezer {
    /// Its cgroup (v2, `cgroup.freeze`): it takes no signal but SIGKILL.
    CgroupV2,
    /// Its cgroup (v1, `freezer.state`), or the machine is suspended: it takes no signal at all.
    CgroupV1OrSuspend,
}

/// A process that exists. What may not be read is absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SnapshotProcess {
    /// Its PID at level 0.
    pub pid: HostPid,
    /// Its PID at each level, from 0 to the innermost; none where they may not be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pids: Vec<u32>,
    /// The kernel's short name for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<Name>,
    /// When it was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_boot_ns: Option<BootNs>,
    /// Its real parent at level 0; absent where it has none there, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ppid: Option<HostPid>,
    /// Real user id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Inode number of its innermost PID namespace; absent where it may not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ns: Option<NsInum>,
    /// State of its first thread, a letter as proc(5) has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<char>,
    /// Threads, zombie ones included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// How many of these have not begun to exit. Known from the task iterator alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads_live: Option<u32>,
    /// Whether all its threads are exiting and it is no zombie yet: a PID 1 that waits for the processes of its namespace to go.
    #[serde(skip_serializing_if = "is_false")]
    pub exiting: bool,
    /// Whether it is frozen. Known from the task iterator alone.
    #[serde(skip_serializing_if = "is_false")]
    pub frozen: bool,
    /// By what, where it is frozen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freezer: Option<Freezer>,
    /// Thread group id at level 0 of the process that traces its first thread (ptrace(2)). Where it is absent
    /// [`Self::knows_tracer`] says whether there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracer: Option<HostPid>,
    /// Whether it adopts the orphans among its descendants (PR_SET_CHILD_SUBREAPER). Known from the task iterator alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subreaper: Option<bool>,
    /// The id of its cgroup (v2): the inode number of the cgroup's folder, where that is mounted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_id: Option<u64>,
    /// The path of its cgroup: in the hierarchy of v2, or where it is in the root of that, in the one of v1 that has the pids
    /// controller, or else in the first of v1 in whose root it is not. As /proc/PID/cgroup shows it to the reader. Absent where that
    /// may not be read, or was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Name>,
    /// Since when it is a zombie: when an event reported it, or else when its first thread last ran, which the task iterator knows to
    /// about a tenth of a second. That is too early for a process whose first thread ended long before the others, and too late by
    /// the time for which the machine was suspended since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zombie_since_boot_ns: Option<BootNs>,
    /// Of one that is exiting: when it last ran. It has waited since then, or for longer. Known from the task iterator alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_ran_boot_ns: Option<BootNs>,
    /// What it runs in, by its own cgroup, where that is not what the PID 1 of its namespace runs in; absent where it is the
    /// same, is not known, or was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Arc<Container>>,
}

impl SnapshotProcess {
    /// Whether all its threads have ended, and its parent has not reaped it. (With other threads alive a first one
    /// that has ended is in state Z too.)
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, Some('Z' | 'X')) && self.threads.is_none_or(|threads| threads <= 1)
    }

    /// One of which nothing but its PID is known.
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
            zombie_since_boot_ns: None,
            last_ran_boot_ns: None,
            container: None,
        }
    }

    /// One as an event describes it.
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

    /// Whether its first thread has ended and others have not been released: it is no zombie, and its parent cannot reap it.
    pub fn outlives_first_thread(&self) -> bool {
        matches!(self.state, Some('Z' | 'X')) && !self.is_zombie() && !self.exiting
    }

    /// Whether it is known if another process traces it. In a recording, of processes that its snapshot found.
    pub fn knows_tracer(&self, source: SnapshotSource) -> bool {
        match source {
            SnapshotSource::Iterator | SnapshotSource::Proc => !self.pids.is_empty(),
            SnapshotSource::Recording => self.tracer.is_some() || self.threads_live.is_some(),
        }
    }

    /// Its identity; `None` where its start may not be read.
    pub fn key(&self) -> Option<ProcessKey> {
        Some(ProcessKey { pid: self.pid, start: self.start_boot_ns? })
    }

    /// Its level: 0 in the outermost namespace; `None` where that may not be read.
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
    /// Depth: 0 is the outermost that can be seen, on the host the initial one.
    #[serde(deserialize_with = "bounds::level")]
    pub level: u32,
    /// Inode number of its parent; absent at level 0, and where it may not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<NsInum>,
    /// When its init was started; absent where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub born_boot_ns: Option<BootNs>,
    /// The kernel's own 64-bit number for it (6.18 and later).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_id: Option<u64>,
    /// Inode number of the user namespace that owns it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_ns: Option<u32>,
    /// Who owns that one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner_uid: Option<u32>,
    /// Whether no process can be forked there any more, as its PID 1 is exiting or has ended, and processes are left.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dying: bool,
    /// What its PID 1 runs in; absent where that is no container, is not known, or was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Arc<Container>>,
}

impl SnapshotNamespace {
    /// Its identity.
    pub fn key(&self) -> NamespaceKey {
        NamespaceKey { inum: self.inum, born: self.born_boot_ns }
    }

    /// Whether it is another one than this, which has or had the same number, as far as that is known.
    pub fn is_another(&self, other: &Self) -> bool {
        if let (Some(one), Some(other)) = (self.kernel_id, other.kernel_id) {
            return one != other;
        }
        let births = self.born_boot_ns.zip(other.born_boot_ns);
        births.is_some_and(|(one, other)| one.max(other).saturating_since(one.min(other)) > TICK_NS)
    }

    /// Whether what was born then is older, as far as that is known: it cannot be in it.
    pub fn is_younger_than(&self, start: Option<BootNs>) -> bool {
        self.born_boot_ns.zip(start).is_some_and(|(born, start)| start.saturating_add(TICK_NS) < born)
    }

    /// As an event describes it.
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
            container: container.clone(),
        }
    }

    /// One of which nothing else is known.
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
            container: None,
        }
    }
}

/// What keeps a namespace alive, besides its processes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Holder {
    /// A process has it open as a file.
    Fd {
        /// The process.
        pid: HostPid,
        /// Its name.
        #[serde(default, deserialize_with = "bounds::known_comm", skip_serializing_if = "Option::is_none")]
        comm: Option<Name>,
        /// The descriptor.
        fd: u32,
        /// The thread that has it, where that has files of its own: `/proc/PID/task/TID/fd` has it then, and `/proc/PID/fd` not.
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
        /// Where, as the processes of that mount namespace see it.
        path: Name,
        /// Inode number of the mount namespace.
        mount_ns: u32,
        /// A process there: `/proc/PID/root` leads to it.
        pid: HostPid,
    },
    /// A proc that shows it is mounted somewhere.
    ProcMount(ProcMount),
    /// A namespace within it exists.
    Child {
        /// Its inode number.
        ns: NsInum,
    },
}

/// Where a proc is mounted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcMount {
    /// The place, as the processes of that mount namespace see it.
    pub path: Name,
    /// Inode number of the mount namespace.
    pub mount_ns: u32,
    /// A process there: `/proc/PID/root` leads to it.
    pub pid: HostPid,
}

/// A mounted proc, of which it is not known which namespace it shows. It keeps that one's structure all the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Unnamed {
    /// The mount.
    #[serde(flatten)]
    pub mount: ProcMount,
    /// Why it is not known.
    pub why: WhyUnnamed,
    /// How many more mounts of this proc there are in this mount namespace.
    #[serde(skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

/// Why it is not known which namespace a proc shows: only its PID 1 shows that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyUnnamed {
    /// It shows no process: the namespace has none any more, or none yet.
    NoProcess,
    /// Something else has been mounted over it, or only parts of it are mounted.
    OutOfSight,
    /// It, or its PID 1, may not be read.
    Unreadable,
    /// The way there leads through a file system whose server may not answer (FUSE, NFS and the like).
    BehindServer,
}

/// How much could not be read for want of a privilege.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// Processes of which nothing but the PID is known.
    pub processes: u64,
    /// Processes whose namespace is not known.
    pub namespaces: u64,
    /// Processes whose open files, or where whose children go, are not known.
    pub files: u64,
    /// Processes whose mounts are not known.
    pub mounts: u64,
    /// Whether this /proc hides the processes of others (its mount option hidepid), so that their number is unknown.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
    /// Mounted namespaces that were not opened, as the way there leads through a file system whose server may not answer. Of
    /// one that nothing else shows, its level, parent and owner are not known.
    #[serde(skip_serializing_if = "is_zero")]
    pub behind_server: u64,
}

impl Unread {
    /// Whether all was read.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// What exists at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Where the processes were read.
    pub source: SnapshotSource,
    /// When it was begun.
    pub boot_ns: BootNs,
    /// The processes, by PID.
    pub processes: Vec<SnapshotProcess>,
    /// The namespaces, by inode number.
    pub namespaces: BTreeMap<NsInum, SnapshotNamespace>,
    /// What holds namespaces: their inode numbers first. Empty unless it was asked for.
    pub holders: Vec<(NsInum, Holder)>,
    /// How many more hold a namespace than are in `holders`, by its inode number.
    pub holders_left_out: BTreeMap<NsInum, u64>,
    /// The mounted procs of which it is unknown what they show. Empty unless holders were asked for.
    pub unnamed: Vec<Unnamed>,
    /// What could not be read.
    pub unread: Unread,
}

impl Snapshot {
    /// An empty snapshot that was begun at this time.
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

    /// The containers that processes run in by their own cgroup where the PID 1 of their namespace does not, each with that
    /// namespace's inode number: once for each such process.
    pub fn sharing_containers(&self) -> impl Iterator<Item = (NsInum, &Arc<Container>)> {
        let own =
            self.processes.iter().filter_map(|process| Some((process.ns?, process.container.as_ref()?)));
        own.filter(|(_, container)| !container.is_unit())
    }

    /// The containers that are known, each with the inode number of the namespace whose PID 1 runs in it.
    pub fn containers(&self) -> impl Iterator<Item = (NsInum, &Arc<Container>)> {
        self.namespaces.values().filter_map(|ns| Some((ns.inum, ns.container.as_ref()?)))
    }
}
