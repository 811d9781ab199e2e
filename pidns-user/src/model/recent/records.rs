//! Records of namespaces, their processes, and incidents in them.

use std::sync::Arc;

use crate::{
    event::{
        Cause, Exit, Process, ReachedLimit, Token,
        container::Container,
        finding::Evidence,
        identity::{BootNs, NsInum},
        snapshot::SnapshotNamespace,
    },
    model::Window,
};

/// The end of a namespace's PID 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// Time.
    pub at: BootNs,
    /// PID 1 itself.
    pub process: Process,
    /// Its exit code or signal.
    pub exit: Exit,
    /// The cause.
    pub cause: Cause,
    /// Number of PIDs in use besides its own, nested namespaces included.
    pub members: u32,
}

/// The end of a teardown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornDown {
    /// Time of the end.
    pub at: BootNs,
    /// Processes that the kernel killed.
    pub killed: u32,
    /// Nested namespaces that ended with it.
    pub nested: Vec<NsInum>,
    /// Duration in nanoseconds.
    pub duration_ns: u64,
}

/// Births, exits and reaps of a namespace's processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lives {
    /// Number of forks.
    pub births: Window,
    /// Number of exits.
    pub exits: Window,
    /// Number of reaps.
    pub reaps: Window,
}

/// The recent history of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceRecord {
    /// The namespace.
    pub ns: SnapshotNamespace,
    /// The process that created it; `None` if no event shows it.
    pub creator: Option<Process>,
    /// The first parent of its PID 1; `None` if no event shows it.
    pub init_parent: Option<Process>,
    /// The end of its PID 1, if an event reported it.
    pub death: Option<Death>,
    /// The end of its teardown, if an event reported it.
    pub torn_down: Option<TornDown>,
    /// The processes that held up its teardown, by the findings about it.
    pub held_up_by: Vec<Evidence>,
    /// When it was first known to be dying, for the case that no event reports when its PID 1 ended.
    pub dying_since: Option<BootNs>,
    /// The time since which it is known to have no process.
    pub empty_since: Option<BootNs>,
    /// Births, exits and reaps, if there were any.
    pub lives: Option<Box<Lives>>,
    /// When it was removed.
    pub gone: Option<BootNs>,
}

/// The kind of an incident.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IncidentKind {
    /// A fork, or a new thread, was refused.
    ForkRefused {
        /// The error.
        errno: String,
        /// The reason.
        reason: Token,
        /// Whether it was a thread.
        thread: bool,
    },
    /// A new namespace was refused.
    CreationRefused {
        /// The system call.
        via: Token,
        /// The error.
        errno: String,
        /// The reason.
        reason: Token,
    },
    /// A signal to PID 1 was ignored.
    SignalIgnored {
        /// Name of the signal.
        signal: String,
        /// Origin of the signal: `inside`, `ancestor`, `kernel` or `parent_death`.
        from: Token,
    },
    /// A member was killed because memory ran out.
    MemberOom,
}

/// An incident that happened once or repeatedly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// The kind of incident.
    pub kind: IncidentKind,
    /// The namespace in which it happened. For a refused fork, the namespace of the child. `None` if it is unknown.
    pub ns: Option<SnapshotNamespace>,
    /// The affected process. For a signal, the PID 1 that ignored it.
    pub process: Process,
    /// For a signal: its sender.
    pub sender: Option<Process>,
    /// For a refusal: the limit that was reached.
    pub limit: Option<ReachedLimit>,
    /// Time of the first occurrence.
    pub first: BootNs,
    /// Time of the last occurrence.
    pub last: BootNs,
    /// Number of occurrences.
    pub count: u64,
}

/// The main process of a container without its own PID namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MainProcess {
    /// The container.
    pub container: Arc<Container>,
    /// The first known process of the container.
    pub process: Process,
    /// When it ended; if no event reported that, when a snapshot no longer had it.
    pub ended: Option<BootNs>,
}

impl NamespaceRecord {
    pub(super) fn new(ns: SnapshotNamespace) -> Self {
        Self {
            ns,
            creator: None,
            init_parent: None,
            death: None,
            torn_down: None,
            held_up_by: Vec::new(),
            dying_since: None,
            empty_since: None,
            lives: None,
            gone: None,
        }
    }

    /// Whether it is about this namespace, and not about another one with the same inode number.
    pub fn is_of(&self, ns: &SnapshotNamespace) -> bool {
        self.ns.inum == ns.inum && !self.ns.differs_from(ns)
    }

    /// Whether it is about the namespace with this inode number in which a process with this start can have been.
    pub(super) fn had(&self, inum: NsInum, start: BootNs) -> bool {
        self.ns.inum == inum && !self.ns.is_younger_than(Some(start))
    }

    pub(super) fn lives(&mut self) -> &mut Lives {
        self.lives.get_or_insert_default()
    }
}
