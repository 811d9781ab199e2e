//! Event bodies: the kinds of events, with their fields.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Cause, Exit, KernelCount, ModelCount, Namespace, Process, ReachedLimit, StreamFilter, TakenPid,
    ThreadCount, Token, bounds,
    objects::{is_false, is_zero},
};
use crate::{
    event::finding::{Finding, FindingState},
    event::identity::{BootNs, HostPid, NsInum},
    event::snapshot::{Freezer, Holder, SnapshotNamespace},
    text::Name,
};

/// Events: `Variant = "name", "label in tables" { fields }`.
macro_rules! bodies {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $label:literal { $($(#[$fdoc:meta])* $field:ident: $type:ty,)* })*) => {
        /// The kind of an event, with its fields.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
        #[serde(untagged)]
        pub enum Body { $($(#[$doc])* $variant { $($(#[$fdoc])* $field: $type,)* },)* }

        /// [`Body`] as read from JSON: the name selects the variant.
        #[derive(Deserialize)]
        #[serde(tag = "event")]
        pub(super) enum Named { $(#[serde(rename = $name)] $variant { $($(#[$fdoc])* $field: $type,)* },)* }

        impl From<Named> for Body {
            fn from(named: Named) -> Self {
                match named { $(Named::$variant { $($field),* } => Self::$variant { $($field),* },)* }
            }
        }

        impl Body {
            /// The names of all events, in the order of docs/events.md.
            pub const NAMES: &[&str] = &[$($name,)*];

            /// Their labels in tables, in the same order.
            pub const LABELS: &[&str] = &[$($label,)*];

            /// The event's label in tables.
            pub fn label(&self) -> &'static str {
                match self { $(Self::$variant { .. } => $label,)* }
            }

            /// The event's name.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant { .. } => $name,)* }
            }
        }
    };
}

bodies! {
    /// The first event.
    StreamStart = "stream.start", "start" {
        /// Version of pidns-trace.
        version: Token,
        /// Host name; absent if /proc does not show it.
        #[serde(skip_serializing_if = "Option::is_none")]
        host: Option<String>,
        /// Kernel release; absent if /proc does not show it.
        #[serde(skip_serializing_if = "Option::is_none")]
        kernel: Option<String>,
        /// Wall clock at CLOCK_BOOTTIME 0.
        boot_time: String,
        /// The form of each hook, by hook.
        hooks: BTreeMap<String, String>,
        /// When the last hook was attached: events from before can be missing. Absent in older recordings.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hooked_boot_ns: Option<BootNs>,
        /// The stream's filter.
        filter: StreamFilter,
    }
    /// A PID namespace that exists already: in recordings, after `stream.start` and after a `stream.resync`.
    SnapshotNamespace = "snapshot.namespace", "is there" {
        /// The namespace.
        ns: SnapshotNamespace,
        /// Holders that keep it alive, besides its processes.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        holders: Vec<Holder>,
        /// Number of further holders that are not listed.
        #[serde(default, skip_serializing_if = "is_zero")]
        holders_left_out: u64,
    }
    /// A process that exists already: in recordings, at the same places as `snapshot.namespace`.
    SnapshotProcess = "snapshot.process", "runs" {
        /// The process.
        process: Process,
        /// State of its first thread, a letter as in proc(5); absent if it cannot be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<char>,
        /// Number of threads, with zombie threads; absent if it cannot be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        threads: Option<u32>,
        /// Threads not yet exiting, if the task iterator reports them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        threads_live: Option<u32>,
        /// Whether all its threads are exiting and it is not a zombie yet.
        #[serde(default, skip_serializing_if = "is_false")]
        exiting: bool,
        /// Whether it is frozen.
        #[serde(default, skip_serializing_if = "is_false")]
        frozen: bool,
        /// The mechanism that froze it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        freezer: Option<Freezer>,
        /// PID at level 0 of the process that traces its first thread.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tracer: Option<HostPid>,
        /// Whether it adopts orphans among its descendants.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subreaper: Option<bool>,
        /// Its cgroup v2 id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cgroup_id: Option<u64>,
        /// The path of its cgroup.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cgroup: Option<Name>,
        /// When it became a zombie, if known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        zombie_since_boot_ns: Option<BootNs>,
        /// For an exiting process: when it last ran, if known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_ran_boot_ns: Option<BootNs>,
        /// In state D: the kernel function in which its first thread sleeps (/proc/PID/wchan), if it can be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wchan: Option<Name>,
        /// Whether it entered its namespace from outside, as far as its parent shows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        joined: Option<bool>,
    }
    /// A PID namespace was created.
    NamespaceCreate = "namespace.create", "create" {
        /// The namespace.
        ns: Namespace,
        /// "clone", "clone3" or "unshare"; absent for a 32-bit call.
        #[serde(skip_serializing_if = "Option::is_none")]
        via: Option<Token>,
        /// The process that created it.
        creator: Process,
    }
    /// A PID namespace could not be created.
    NamespaceCreateFailed = "namespace.create_failed", "create failed" {
        /// "clone", "clone3" or "unshare".
        via: Token,
        /// The process that tried.
        creator: Process,
        /// "ENOSPC".
        errno: String,
        /// The reason, as far as the kernel's state shows it.
        reason: Token,
        /// The limit that was reached.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<ReachedLimit>,
        /// The requested PIDs, the innermost first.
        #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "bounds::chosen")]
        set_tid: Vec<i32>,
        /// The requested PID that is in use.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        taken: Option<TakenPid>,
        /// The process that uses it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        holder: Option<Process>,
        /// The capability that the caller lacks to choose PIDs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        capability: Option<Token>,
        /// Inode number of the user namespace in which the capability is missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user_ns: Option<u32>,
    }
    /// A namespace got its PID 1.
    NamespaceInit = "namespace.init", "init" {
        /// The namespace.
        ns: Namespace,
        /// PID 1 in it.
        process: Process,
    }
    /// setns into a namespace succeeded.
    NamespaceJoin = "namespace.join", "join" {
        /// The namespace.
        ns: Namespace,
        /// The process whose children will be members.
        process: Process,
        /// Inode number of the namespace that its children went to before; absent if not observed.
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<NsInum>,
    }
    /// setns was refused.
    NamespaceJoinFailed = "namespace.join_failed", "join failed" {
        /// The namespace; absent if the call named it through a pidfd.
        #[serde(skip_serializing_if = "Option::is_none")]
        ns: Option<Namespace>,
        /// The process that tried.
        process: Process,
        /// "EINVAL".
        errno: String,
        /// The reason, as far as the kernel's state shows it.
        reason: Token,
        /// The capability that the caller lacks.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        capability: Option<Token>,
        /// Inode number of the user namespace in which the capability is missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user_ns: Option<u32>,
    }
    /// PID 1 of a namespace exits.
    NamespaceInitExit = "namespace.init_exit", "init exit" {
        /// The namespace.
        ns: Namespace,
        /// PID 1.
        process: Process,
        /// How it ended.
        exit: Exit,
        /// Why it ended.
        cause: Cause,
        /// PIDs in use in it and in nested namespaces, without PID 1: processes, their further threads, zombies.
        members: u32,
    }
    /// The kernel has killed all members of a namespace, and they are gone.
    NamespaceTeardown = "namespace.teardown", "teardown" {
        /// The namespace.
        ns: Namespace,
        /// Number of processes that the kernel sent SIGKILL to.
        killed: u32,
        /// Inode numbers of the nested namespaces that died with it.
        nested: Vec<NsInum>,
        /// From the exit of PID 1 to the end of the last member.
        duration_ns: u64,
    }
    /// The last reference to a namespace is gone: processes, files, mounts.
    NamespaceDestroy = "namespace.destroy", "destroy" {
        /// The namespace.
        ns: Namespace,
        /// Time since its birth; absent if unknown.
        #[serde(skip_serializing_if = "Option::is_none")]
        lived_ns: Option<u64>,
    }
    /// A process was forked.
    ProcessFork = "process.fork", "fork" {
        /// The new process.
        process: Process,
        /// The process that forked it.
        parent: Process,
        /// Whether the two are in different PID namespaces.
        #[serde(default, skip_serializing_if = "is_false")]
        crosses: bool,
        /// Whether its PIDs were chosen by clone3's set_tid.
        #[serde(default, skip_serializing_if = "is_false")]
        restored: bool,
    }
    /// A process runs another program.
    ProcessExec = "process.exec", "exec" {
        /// The process, after the exec.
        process: Process,
        /// The executed file.
        filename: Name,
        /// The arguments, with `--args`.
        #[serde(skip_serializing_if = "Option::is_none")]
        args: Option<Vec<Name>>,
        /// Whether there are further arguments.
        #[serde(default, skip_serializing_if = "is_false")]
        args_truncated: bool,
    }
    /// The last thread of a process ended.
    ProcessExit = "process.exit", "exit" {
        /// The process.
        process: Process,
        /// How it ended.
        exit: Exit,
        /// How long it lived.
        ran_ns: u64,
        /// The peak number of its threads; absent if it was not observed from its start.
        #[serde(skip_serializing_if = "Option::is_none")]
        threads: Option<u32>,
        /// Why it ended, if a hook saw the cause; absent if it ended by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<Cause>,
        /// Inode number of the dying namespace that killed it.
        #[serde(skip_serializing_if = "Option::is_none")]
        cascade: Option<NsInum>,
        /// Whether it has another parent than at its start.
        #[serde(default, skip_serializing_if = "is_false")]
        orphaned: bool,
    }
    /// A zombie was reaped.
    ProcessReap = "process.reap", "reap" {
        /// The process at its exit, or at its reaping if no hook saw the exit.
        process: Process,
        /// How long it was a zombie; absent if no hook saw its exit.
        #[serde(skip_serializing_if = "Option::is_none")]
        zombie_ns: Option<u64>,
    }
    /// A signal was sent to PID 1 of a namespace.
    InitSignal = "init.signal", "init signal" {
        /// The namespace.
        ns: Namespace,
        /// PID 1.
        process: Process,
        /// "SIGTERM".
        signal: String,
        /// The sending process; absent if the kernel sent it. With "parent_death": the parent that ended.
        #[serde(skip_serializing_if = "Option::is_none")]
        sender: Option<Process>,
        /// "inside", "ancestor", "kernel", or "parent_death": the init requested this signal (PR_SET_PDEATHSIG).
        from: Token,
        /// "delivered", "ignored", "already_pending", "queue_full" or "info_lost".
        fate: Token,
    }
    /// fork or clone was refused.
    ForkFailed = "fork.failed", "fork failed" {
        /// The process that tried.
        process: Process,
        /// The namespace in which the child would have been born.
        #[serde(skip_serializing_if = "Option::is_none")]
        ns: Option<Namespace>,
        /// "ENOMEM".
        errno: String,
        /// The reason, as far as the kernel's state shows it.
        reason: Token,
        /// Whether the call was to create a thread.
        #[serde(default, skip_serializing_if = "is_false")]
        thread: bool,
        /// The limit that was reached.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<ReachedLimit>,
        /// The requested PIDs, the innermost first.
        #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "bounds::chosen")]
        set_tid: Vec<i32>,
        /// The requested PID that is in use.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        taken: Option<TakenPid>,
        /// The process that uses it. If it is the id of a process group or session: a member.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        holder: Option<Process>,
        /// The capability that the caller lacks to choose PIDs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        capability: Option<Token>,
        /// Inode number of the user namespace in which the capability is missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user_ns: Option<u32>,
    }
    /// A finding was opened, has changed, or was closed.
    Finding = "finding", "finding" {
        /// Whether it was opened, has changed, or was closed.
        state: FindingState,
        /// The finding.
        finding: Box<Finding>,
    }
    /// Events were dropped since the last `stream.lost`.
    StreamLost = "stream.lost", "LOST" {
        /// "ring": the ring buffer was full. "hook": the kernel skipped a program.
        stage: Token,
        /// Number of lost events.
        count: u64,
    }
    /// A snapshot after a loss. The following `snapshot.*` events list everything that exists; the rest is gone.
    StreamResync = "stream.resync", "resync" {
        /// Processes and namespaces whose beginning was missed.
        added: u64,
        /// Processes and namespaces whose end was missed.
        removed: u64,
        /// Processes and namespaces that the model had wrong.
        changed: u64,
    }
    /// The last event.
    StreamEnd = "stream.end", "end" {
        /// Number of printed events by name, without this one.
        events: BTreeMap<Token, u64>,
        /// Number of lost events by stage.
        lost: BTreeMap<Token, u64>,
        /// Counts of the kernel side, by record.
        kernel: BTreeMap<Token, KernelCount>,
        /// Threads created and ended. They are only counted.
        threads: ThreadCount,
        /// Ends that no hook reported and a sweep of the maps found, by event.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        swept: BTreeMap<Token, u64>,
        /// Objects not tracked because a kernel map was full, by the event or field that is missing as a result.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        untracked: BTreeMap<Token, u64>,
        /// Size of the model, if the stream kept one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<ModelCount>,
        /// How long the stream ran.
        duration_ns: u64,
    }
}

impl Body {
    /// The namespace that the event is about.
    pub fn namespace(&self) -> Option<&Namespace> {
        match self {
            Self::NamespaceCreate { ns, .. }
            | Self::NamespaceInit { ns, .. }
            | Self::NamespaceJoin { ns, .. }
            | Self::NamespaceInitExit { ns, .. }
            | Self::NamespaceTeardown { ns, .. }
            | Self::NamespaceDestroy { ns, .. }
            | Self::InitSignal { ns, .. } => Some(ns),
            Self::NamespaceJoinFailed { ns, .. } | Self::ForkFailed { ns, .. } => ns.as_ref(),
            Self::NamespaceCreateFailed { .. }
            | Self::ProcessFork { .. }
            | Self::ProcessExec { .. }
            | Self::ProcessExit { .. }
            | Self::ProcessReap { .. }
            | Self::StreamStart { .. }
            | Self::StreamLost { .. }
            | Self::StreamResync { .. }
            | Self::StreamEnd { .. }
            | Self::Finding { .. }
            | Self::SnapshotNamespace { .. }
            | Self::SnapshotProcess { .. } => None,
        }
    }

    /// The process that the event is about.
    pub fn process(&self) -> Option<&Process> {
        match self {
            Self::NamespaceCreate { creator: process, .. }
            | Self::NamespaceCreateFailed { creator: process, .. }
            | Self::NamespaceInit { process, .. }
            | Self::NamespaceJoin { process, .. }
            | Self::NamespaceJoinFailed { process, .. }
            | Self::NamespaceInitExit { process, .. }
            | Self::InitSignal { process, .. }
            | Self::ProcessFork { process, .. }
            | Self::ProcessExec { process, .. }
            | Self::ProcessExit { process, .. }
            | Self::ProcessReap { process, .. }
            | Self::ForkFailed { process, .. }
            | Self::SnapshotProcess { process, .. } => Some(process),
            Self::NamespaceTeardown { .. }
            | Self::NamespaceDestroy { .. }
            | Self::StreamStart { .. }
            | Self::StreamLost { .. }
            | Self::StreamResync { .. }
            | Self::StreamEnd { .. }
            | Self::Finding { .. }
            | Self::SnapshotNamespace { .. } => None,
        }
    }

    /// The same, to add facts to it.
    pub fn process_mut(&mut self) -> Option<&mut Process> {
        match self {
            Self::NamespaceCreate { creator: process, .. }
            | Self::NamespaceCreateFailed { creator: process, .. }
            | Self::NamespaceInit { process, .. }
            | Self::NamespaceJoin { process, .. }
            | Self::NamespaceJoinFailed { process, .. }
            | Self::NamespaceInitExit { process, .. }
            | Self::InitSignal { process, .. }
            | Self::ProcessFork { process, .. }
            | Self::ProcessExec { process, .. }
            | Self::ProcessExit { process, .. }
            | Self::ProcessReap { process, .. }
            | Self::ForkFailed { process, .. }
            | Self::SnapshotProcess { process, .. } => Some(process),
            Self::NamespaceTeardown { .. }
            | Self::NamespaceDestroy { .. }
            | Self::StreamStart { .. }
            | Self::StreamLost { .. }
            | Self::StreamResync { .. }
            | Self::StreamEnd { .. }
            | Self::Finding { .. }
            | Self::SnapshotNamespace { .. } => None,
        }
    }

    /// The namespace that the event is about, to add facts to it.
    pub fn namespace_mut(&mut self) -> Option<&mut Namespace> {
        match self {
            Self::NamespaceCreate { ns, .. }
            | Self::NamespaceInit { ns, .. }
            | Self::NamespaceJoin { ns, .. }
            | Self::NamespaceInitExit { ns, .. }
            | Self::NamespaceTeardown { ns, .. }
            | Self::NamespaceDestroy { ns, .. }
            | Self::InitSignal { ns, .. } => Some(ns),
            Self::NamespaceJoinFailed { ns, .. } | Self::ForkFailed { ns, .. } => ns.as_mut(),
            Self::NamespaceCreateFailed { .. }
            | Self::ProcessFork { .. }
            | Self::ProcessExec { .. }
            | Self::ProcessExit { .. }
            | Self::ProcessReap { .. }
            | Self::StreamStart { .. }
            | Self::StreamLost { .. }
            | Self::StreamResync { .. }
            | Self::StreamEnd { .. }
            | Self::Finding { .. }
            | Self::SnapshotNamespace { .. }
            | Self::SnapshotProcess { .. } => None,
        }
    }
}
