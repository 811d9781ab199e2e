//! What happens, with the fields of each event.

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

/// Events: `Variant = "name", "what a table calls it" { fields }`.
macro_rules! bodies {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $label:literal { $($(#[$fdoc:meta])* $field:ident: $type:ty,)* })*) => {
        /// What happened, with the fields of that event.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
        #[serde(untagged)]
        pub enum Body { $($(#[$doc])* $variant { $($(#[$fdoc])* $field: $type,)* },)* }

        /// [`Body`] as it is read: the name selects the variant.
        #[derive(Deserialize)]
        #[serde(tag = "event")]
        pub(super) enum Named { $(#[serde(rename = $name)] $variant { $($(#[$fdoc])* $field: $type,)* },)* }

        impl From<Named> for Body {
            fn from(named: Named) -> Self {
                match named { $(Named::$variant { $($field),* } => Self::$variant { $($field),* },)* }
            }
        }

        impl Body {
            /// The names of all events, in the order of the contract.
            pub const NAMES: &[&str] = &[$($name,)*];

            /// What a table calls them, in the same order.
            pub const LABELS: &[&str] = &[$($label,)*];

            /// What a table calls the event.
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
        /// Hook to form.
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
        /// Holders that keep it alive, in addition to its processes.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        holders: Vec<Holder>,
        /// Number of holders left out of `holders`.
        #[serde(default, skip_serializing_if = "is_zero")]
        holders_left_out: u64,
    }
    /// A process that exists already, in recordings at the same places.
    SnapshotProcess = "snapshot.process", "runs" {
        /// The process.
        process: Process,
        /// State of its first thread, a letter as proc(5) has it; absent where it may not be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<char>,
        /// Threads, zombie ones included; absent if they may not be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        threads: Option<u32>,
        /// Threads not yet exiting, if the task iterator reports them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        threads_live: Option<u32>,
        /// Whether all its threads are exiting and it is no zombie yet.
        #[serde(default, skip_serializing_if = "is_false")]
        exiting: bool,
        /// Whether it is frozen.
        #[serde(default, skip_serializing_if = "is_false")]
        frozen: bool,
        /// By what.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        freezer: Option<Freezer>,
        /// PID at level 0 of the process that traces its first thread.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tracer: Option<HostPid>,
        /// Whether it adopts the orphans among its descendants.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subreaper: Option<bool>,
        /// The id of its cgroup (v2).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cgroup_id: Option<u64>,
        /// The path of its cgroup.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cgroup: Option<Name>,
        /// Since when it is a zombie, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        zombie_since_boot_ns: Option<BootNs>,
        /// When it last ran, where it is exiting and that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_ran_boot_ns: Option<BootNs>,
        /// Whether it entered its namespace from outside, as far as its parent shows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        joined: Option<bool>,
    }
    /// A PID namespace comes to exist.
    NamespaceCreate = "namespace.create", "create" {
        /// The namespace.
        ns: Namespace,
        /// "clone", "clone3" or "unshare"; absent where a 32-bit call was used.
        #[serde(skip_serializing_if = "Option::is_none")]
        via: Option<Token>,
        /// Who made it.
        creator: Process,
    }
    /// It could not.
    NamespaceCreateFailed = "namespace.create_failed", "create failed" {
        /// "clone", "clone3" or "unshare".
        via: Token,
        /// Who tried.
        creator: Process,
        /// "ENOSPC".
        errno: String,
        /// Why, as far as the kernel's state shows.
        reason: Token,
        /// The limit that refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<ReachedLimit>,
        /// The PIDs that were asked for, the innermost first.
        #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "bounds::chosen")]
        set_tid: Vec<i32>,
        /// The one of them that is in use.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        taken: Option<TakenPid>,
        /// The process that has it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        holder: Option<Process>,
        /// The capability that is missing to choose PIDs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        capability: Option<Token>,
        /// Inode number of the user namespace in which it is missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user_ns: Option<u32>,
    }
    /// Its first process exists.
    NamespaceInit = "namespace.init", "init" {
        /// The namespace.
        ns: Namespace,
        /// PID 1 in it.
        process: Process,
    }
    /// setns into it succeeded.
    NamespaceJoin = "namespace.join", "join" {
        /// The namespace.
        ns: Namespace,
        /// Whose children will be members.
        process: Process,
        /// Inode number of the namespace that its children went to before; absent where that was not observed.
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<NsInum>,
    }
    /// setns was refused.
    NamespaceJoinFailed = "namespace.join_failed", "join failed" {
        /// The namespace; absent where the call named it through a pidfd.
        #[serde(skip_serializing_if = "Option::is_none")]
        ns: Option<Namespace>,
        /// Who tried.
        process: Process,
        /// "EINVAL".
        errno: String,
        /// Why, as far as the kernel's state shows.
        reason: Token,
        /// The capability that is missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        capability: Option<Token>,
        /// Inode number of the user namespace in which it is missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user_ns: Option<u32>,
    }
    /// Its PID 1 exits.
    NamespaceInitExit = "namespace.init_exit", "init exit" {
        /// The namespace.
        ns: Namespace,
        /// PID 1.
        process: Process,
        /// How it ended.
        exit: Exit,
        /// Why.
        cause: Cause,
        /// PIDs in use in it and below, besides the init's: processes, their further threads, zombies.
        members: u32,
    }
    /// The kernel killed all members, and they are gone.
    NamespaceTeardown = "namespace.teardown", "teardown" {
        /// The namespace.
        ns: Namespace,
        /// Processes that the kernel sent SIGKILL to.
        killed: u32,
        /// Inode numbers of the namespaces below that went down with it.
        nested: Vec<NsInum>,
        /// From the init's exit to the end.
        duration_ns: u64,
    }
    /// The last reference to it is gone: processes, files, mounts.
    NamespaceDestroy = "namespace.destroy", "destroy" {
        /// The namespace.
        ns: Namespace,
        /// From its birth; absent where that is not known.
        #[serde(skip_serializing_if = "Option::is_none")]
        lived_ns: Option<u64>,
    }
    /// A process exists.
    ProcessFork = "process.fork", "fork" {
        /// The new one.
        process: Process,
        /// Who forked it.
        parent: Process,
        /// Whether they are in different PID namespaces.
        #[serde(default, skip_serializing_if = "is_false")]
        crosses: bool,
        /// Whether its PIDs were chosen by clone3's set_tid.
        #[serde(default, skip_serializing_if = "is_false")]
        restored: bool,
    }
    /// It runs another program.
    ProcessExec = "process.exec", "exec" {
        /// The process, after the exec.
        process: Process,
        /// The file.
        filename: Name,
        /// The arguments, with `--args`.
        #[serde(skip_serializing_if = "Option::is_none")]
        args: Option<Vec<Name>>,
        /// Whether there are more than these.
        #[serde(default, skip_serializing_if = "is_false")]
        args_truncated: bool,
    }
    /// Its last thread ended.
    ProcessExit = "process.exit", "exit" {
        /// The process.
        process: Process,
        /// How.
        exit: Exit,
        /// How long it lived.
        ran_ns: u64,
        /// The most threads it ever had; absent where it was not observed from its start.
        #[serde(skip_serializing_if = "Option::is_none")]
        threads: Option<u32>,
        /// Why, where a hook saw it; absent where the process ended by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<Cause>,
        /// Inode number of the dying namespace that killed it.
        #[serde(skip_serializing_if = "Option::is_none")]
        cascade: Option<NsInum>,
        /// Whether its parent is no longer the one it began with.
        #[serde(default, skip_serializing_if = "is_false")]
        orphaned: bool,
    }
    /// Its zombie is gone.
    ProcessReap = "process.reap", "reap" {
        /// The process, as it was at its exit, or where that was not seen at its reaping.
        process: Process,
        /// How long it was a zombie, where its exit was seen.
        #[serde(skip_serializing_if = "Option::is_none")]
        zombie_ns: Option<u64>,
    }
    /// A signal was sent to a namespace's PID 1.
    InitSignal = "init.signal", "init signal" {
        /// The namespace.
        ns: Namespace,
        /// PID 1.
        process: Process,
        /// "SIGTERM".
        signal: String,
        /// Who; absent for the kernel. With "parent_death" the parent that ended.
        #[serde(skip_serializing_if = "Option::is_none")]
        sender: Option<Process>,
        /// "inside", "ancestor", "kernel", or "parent_death": the init asked for this signal (PR_SET_PDEATHSIG).
        from: Token,
        /// "delivered", "ignored", "already_pending", "queue_full" or "info_lost".
        fate: Token,
    }
    /// fork or clone was refused.
    ForkFailed = "fork.failed", "fork failed" {
        /// Who tried.
        process: Process,
        /// The namespace that the child would have been in.
        #[serde(skip_serializing_if = "Option::is_none")]
        ns: Option<Namespace>,
        /// "ENOMEM".
        errno: String,
        /// Why, as far as the kernel's state shows.
        reason: Token,
        /// Whether a thread was asked for.
        #[serde(default, skip_serializing_if = "is_false")]
        thread: bool,
        /// The limit that refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<ReachedLimit>,
        /// The PIDs that were asked for, the innermost first.
        #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "bounds::chosen")]
        set_tid: Vec<i32>,
        /// The one of them that is in use.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        taken: Option<TakenPid>,
        /// The process that has it: of a process group or session, a member.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        holder: Option<Process>,
        /// The capability that is missing to choose PIDs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        capability: Option<Token>,
        /// Inode number of the user namespace in which it is missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user_ns: Option<u32>,
    }
    /// What goes wrong was found, has changed, or is over.
    Finding = "finding", "finding" {
        /// Which of these.
        state: FindingState,
        /// The finding.
        finding: Box<Finding>,
    }
    /// Events were dropped since the last one of these.
    StreamLost = "stream.lost", "LOST" {
        /// "ring": the ring buffer was full. "hook": the kernel left a program out.
        stage: Token,
        /// How many.
        count: u64,
    }
    /// A snapshot after a loss. The `snapshot.*` events that follow have what exists; the rest is gone.
    StreamResync = "stream.resync", "resync" {
        /// Processes and namespaces whose beginning was not seen.
        added: u64,
        /// Those whose end was not seen.
        removed: u64,
        /// Those of which something else was thought.
        changed: u64,
    }
    /// The last event.
    StreamEnd = "stream.end", "end" {
        /// Events printed, by name, this one left out.
        events: BTreeMap<Token, u64>,
        /// Events lost, by stage.
        lost: BTreeMap<Token, u64>,
        /// The kernel side's own counts, by record.
        kernel: BTreeMap<Token, KernelCount>,
        /// Threads created and ended, which are counted and not streamed.
        threads: ThreadCount,
        /// Ends that no hook reported but a sweep of the maps found, by event.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        swept: BTreeMap<Token, u64>,
        /// What the kernel side had no room to follow, by what is missing for it.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        untracked: BTreeMap<Token, u64>,
        /// What exists by the events, where that was followed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<ModelCount>,
        /// How long the stream ran.
        duration_ns: u64,
    }
}

impl Body {
    /// The namespace that it is about, where it is about one.
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

    /// The process that an event is about.
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

    /// The same, to add to what is known of it.
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

    /// The namespace that an event is about, to add to what is known of it.
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
