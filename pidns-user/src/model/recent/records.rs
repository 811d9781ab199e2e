//! What is remembered of namespaces, their processes, and what went wrong in them.

use std::sync::Arc;

use crate::{
    event::{
        Cause, Exit, Namespace, Process, ReachedLimit, Token,
        container::Container,
        identity::{BootNs, NsInum},
        snapshot::SnapshotNamespace,
    },
    model::Window,
};

/// How PID 1 of a namespace ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// When.
    pub at: BootNs,
    /// PID 1.
    pub process: Process,
    /// How.
    pub exit: Exit,
    /// Why.
    pub cause: Cause,
    /// PIDs in use besides its own, there and below.
    pub members: u32,
}

/// How a teardown ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornDown {
    /// When.
    pub at: BootNs,
    /// Processes that the kernel killed.
    pub killed: u32,
    /// Namespaces below that went with it.
    pub nested: Vec<NsInum>,
    /// How long it took.
    pub duration_ns: u64,
}

/// Births, exits and reapings of a namespace's processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lives {
    /// Forks.
    pub births: Window,
    /// Ends.
    pub exits: Window,
    /// Reapings.
    pub reaps: Window,
}

/// What is remembered of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceRecord {
    /// The namespace.
    pub ns: SnapshotNamespace,
    /// Which process created it; `None` where that was not seen.
    pub creator: Option<Process>,
    /// The process whose child its PID 1 was at first; `None` where it was not seen.
    pub init_parent: Option<Process>,
    /// How its PID 1 ended.
    pub death: Option<Death>,
    /// How its teardown ended.
    pub torn_down: Option<TornDown>,
    /// Since when it is known to be dying, where no event says when its PID 1 ended.
    pub dying_since: Option<BootNs>,
    /// Since when it is known to have no process.
    pub empty_since: Option<BootNs>,
    /// What came and went, where anything did.
    pub lives: Option<Box<Lives>>,
    /// When it was gone.
    pub gone: Option<BootNs>,
}

/// What went wrong at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IncidentKind {
    /// A fork, or a new thread, was refused.
    ForkRefused {
        /// The error.
        errno: String,
        /// Why.
        reason: Token,
        /// Whether a thread was asked for.
        thread: bool,
    },
    /// A new namespace was refused.
    CreationRefused {
        /// The call.
        via: Token,
        /// The error.
        errno: String,
        /// Why.
        reason: Token,
    },
    /// A signal to PID 1 was ignored.
    SignalIgnored {
        /// Its name.
        signal: String,
        /// From where it came.
        from: Token,
    },
    /// A member was killed because memory ran out.
    MemberOom,
}

/// The same thing, once or more often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// What.
    pub kind: IncidentKind,
    /// The namespace in which; of a refused fork the one where the child would have been.
    pub ns: Option<Namespace>,
    /// To which process.
    pub process: Process,
    /// Of a signal: which process sent it.
    pub sender: Option<Process>,
    /// Of a refused fork: the limit.
    pub limit: Option<ReachedLimit>,
    /// When first and when last.
    pub first: BootNs,
    /// When last.
    pub last: BootNs,
    /// How often.
    pub count: u64,
}

/// The main process of a container that has no PID namespace of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MainProcess {
    /// The container.
    pub container: Arc<Container>,
    /// The process: the first that is known of it.
    pub process: Process,
    /// When it ended, and how.
    pub ended: Option<(BootNs, Exit)>,
}

impl NamespaceRecord {
    pub(super) fn new(ns: SnapshotNamespace) -> Self {
        Self {
            ns,
            creator: None,
            init_parent: None,
            death: None,
            torn_down: None,
            dying_since: None,
            empty_since: None,
            lives: None,
            gone: None,
        }
    }

    pub(super) fn lives(&mut self) -> &mut Lives {
        self.lives.get_or_insert_default()
    }
}
