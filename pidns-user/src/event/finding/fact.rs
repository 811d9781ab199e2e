//! The facts that show a finding.

use serde::{Deserialize, Serialize};

use crate::{
    event::{
        Cause, Exit, Process, ReachedLimit, Token, bounds,
        identity::{BootNs, NsInum},
        objects::is_false,
        snapshot::Holder,
    },
    text::Name,
};

/// A fact with its source and time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Its source.
    pub source: EvidenceSource,
    /// When it was observed.
    pub boot_ns: BootNs,
    /// The fact.
    #[serde(flatten)]
    pub fact: Fact,
}

/// Source of a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvidenceSource {
    /// A hook in the kernel.
    Hook,
    /// A snapshot of all processes, kept current by events.
    Snapshot,
    /// A file of /proc or of a cgroup.
    Proc,
}

/// Counts of something in recent time windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windows {
    /// In the last minute.
    pub in_1_min: u64,
    /// In the last 5 minutes.
    pub in_5_min: u64,
    /// In the last 15 minutes.
    pub in_15_min: u64,
}

/// Number of processes with one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameCount {
    /// The name.
    #[serde(deserialize_with = "bounds::comm")]
    pub comm: Name,
    /// The number.
    pub count: u64,
}

/// Role of a process in a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It should reap others and does not.
    Reaper,
    /// It created the namespace.
    Creator,
    /// It is the parent of members of the namespace.
    Parent,
    /// It forked the process with the problem.
    Forker,
    /// It is a container's main process.
    Main,
    /// It is still there.
    Survivor,
}

/// The reason why a member of a dying namespace has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockedBy {
    /// It is a zombie, and its parent in an outer namespace has not reaped it.
    Parent,
    /// Another process traces it.
    Tracer,
    /// Its cgroup is frozen, or the system is suspended.
    Freezer,
    /// It is in uninterruptible sleep (state D).
    Kernel,
    /// It is PID 1 of a nested namespace and waits for the processes there.
    OwnNamespace,
    /// We found no reason.
    Unknown,
}

/// A fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fact {
    /// Zombies.
    Zombies {
        /// Their number.
        count: u64,
        /// When the oldest became a zombie; if no event shows that, since when it is known.
        oldest_boot_ns: BootNs,
        /// Number of orphans among them: their parent has ended.
        orphans: u64,
        /// Their names, the most frequent first.
        names: Vec<NameCount>,
        /// The names of the processes that forked them, if known; the most frequent first.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        forked_by: Vec<NameCount>,
    },
    /// Forks, exits and reaps of processes in the namespace.
    Lives {
        /// Forks.
        births: Windows,
        /// Exits.
        exits: Windows,
        /// Reaps.
        reaps: Windows,
    },
    /// Processes that were started in the last minute and have not ended.
    Young {
        /// Their number.
        count: u64,
        /// Their names, the most frequent first.
        names: Vec<NameCount>,
        /// The names of the processes that forked them, if known; the most frequent first.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        forked_by: Vec<NameCount>,
    },
    /// A process that plays a role in the finding.
    Process {
        /// Its role.
        role: Role,
        /// The process.
        process: Process,
        /// Whether it has ended.
        #[serde(default, skip_serializing_if = "is_false")]
        ended: bool,
    },
    /// A limit and its usage.
    Limit {
        /// The limit.
        limit: ReachedLimit,
        /// Growth of the usage in the last minute; absent if it has not grown or is unknown.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        growth_per_minute: Option<u64>,
        /// Seconds until the limit is reached at that rate.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds_left: Option<u64>,
    },
    /// PID 1 of the namespace ended.
    InitExit {
        /// PID 1.
        process: Process,
        /// How it ended.
        exit: Exit,
        /// Why it ended.
        cause: Cause,
        /// PIDs in use in the namespace and in nested ones, without PID 1.
        members: u32,
    },
    /// All members of the namespace are gone.
    Teardown {
        /// Number of processes that the kernel killed.
        killed: u32,
        /// Nested namespaces that died with it.
        nested: Vec<NsInum>,
        /// From the end of PID 1 to the end of the last member.
        duration_ns: u64,
    },
    /// A process that delays the end of the namespace.
    Blocker {
        /// The process.
        process: Process,
        /// The reason why it has not ended.
        by: BlockedBy,
        /// The process that prevents its end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keeper: Option<Box<Process>>,
        /// The kernel function that it sleeps in (/proc/PID/wchan).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wchan: Option<Name>,
    },
    /// Forks were refused.
    RefusedFork {
        /// The process that tried.
        process: Process,
        /// The error that it got.
        errno: String,
        /// The reason.
        reason: Token,
        /// Whether the call was to create a thread.
        #[serde(default, skip_serializing_if = "is_false")]
        thread: bool,
        /// If its children start in another namespace: the system call that it made for that, "unshare" or "setns".
        #[serde(default, skip_serializing_if = "Option::is_none")]
        elsewhere_by: Option<Token>,
        /// Number of refusals.
        count: u64,
    },
    /// Creations of a namespace were refused.
    RefusedCreation {
        /// The process that tried.
        process: Process,
        /// The system call.
        via: Token,
        /// The error that it got.
        errno: String,
        /// The reason.
        reason: Token,
        /// Number of refusals.
        count: u64,
    },
    /// The PID namespaces of a user namespace, which count against its limit.
    Namespaces {
        /// The user namespace.
        user_ns: u32,
        /// Their number.
        count: u64,
        /// Number of those without a process.
        without_process: u64,
        /// The names of their PID 1s, the most frequent first.
        names: Vec<NameCount>,
    },
    /// A signal was sent to PID 1.
    Signal {
        /// Its name.
        signal: String,
        /// The sending process; absent if the kernel sent it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sender: Option<Process>,
        /// Its origin: "inside", "ancestor", "kernel" or "parent_death".
        from: Token,
        /// The effect: "delivered", "ignored", "already_pending", "queue_full" or "info_lost".
        fate: Token,
        /// Number of such signals.
        count: u64,
    },
    /// A holder that keeps the namespace.
    Holder {
        /// The holder.
        holder: Holder,
    },
    /// The namespace has further holders that are not listed.
    HoldersLeftOut {
        /// Number of further holders.
        count: u64,
    },
    /// Further processes, like those of the facts before, that are not listed.
    ProcessesLeftOut {
        /// Number of further processes.
        count: u64,
    },
    /// The depth of the namespace.
    Depth {
        /// Its level.
        level: u32,
        /// The deepest level that the kernel allows.
        limit: u32,
    },
    /// The thread count of a process.
    Threads {
        /// The process.
        process: Process,
        /// Number of its threads.
        threads: u64,
    },
    /// The children of a process will be born in another namespace than its own.
    ChildrenGoTo {
        /// The process.
        process: Process,
        /// The namespace of its children.
        ns: NsInum,
    },
    /// /proc shows another namespace than the process is in.
    ProcShows {
        /// The namespace that /proc shows.
        ns: NsInum,
        /// The mount point of that proc, as the process sees it.
        path: Name,
    },
    /// A process was killed because memory ran out.
    OomKill {
        /// The process.
        process: Process,
        /// Number of members killed this way.
        count: u64,
    },
    /// A fact that could not be read.
    Unseen {
        /// The fact, with the reason.
        what: String,
    },
}

impl Fact {
    /// The processes that the fact names.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        let (first, second) = match self {
            Self::Process { process, .. }
            | Self::InitExit { process, .. }
            | Self::RefusedFork { process, .. }
            | Self::RefusedCreation { process, .. }
            | Self::Threads { process, .. }
            | Self::OomKill { process, .. }
            | Self::ChildrenGoTo { process, .. } => (Some(process), None),
            Self::Blocker { process, keeper, .. } => (Some(process), keeper.as_deref()),
            Self::Signal { sender, .. } => (sender.as_ref(), None),
            Self::Zombies { .. }
            | Self::Lives { .. }
            | Self::Limit { .. }
            | Self::Namespaces { .. }
            | Self::Young { .. }
            | Self::Teardown { .. }
            | Self::Holder { .. }
            | Self::HoldersLeftOut { .. }
            | Self::ProcessesLeftOut { .. }
            | Self::Depth { .. }
            | Self::ProcShows { .. }
            | Self::Unseen { .. } => (None, None),
        };
        first.into_iter().chain(second)
    }

    /// The number that this fact counts, if it can grow.
    pub fn count(&self) -> Option<u64> {
        match self {
            Self::Zombies { count, .. }
            | Self::RefusedFork { count, .. }
            | Self::RefusedCreation { count, .. }
            | Self::Signal { count, .. }
            | Self::OomKill { count, .. }
            | Self::Threads { threads: count, .. } => Some(*count),
            _ => None,
        }
    }
}
