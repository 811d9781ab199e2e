//! A finding: a diagnosis of what goes wrong with PID namespaces, with its evidence. docs/findings.md describes each.

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

use super::{
    Cause, Exit, Process, ReachedLimit, Token, bounds,
    identity::{BootNs, NamespaceKey, NsInum, ProcessKey},
    objects::is_false,
    snapshot::{Holder, SnapshotNamespace},
};
use crate::text::Name;

macro_rules! diagnoses {
    ($($(#[$doc:meta])* $variant:ident = $id:literal [$($severity:ident),+];)*) => {
        /// What is wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Diagnosis { $($(#[$doc])* #[serde(rename = $id)] $variant,)* }

        impl Diagnosis {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name in JSON, metrics and docs/findings.md.
            pub fn id(self) -> &'static str {
                match self { $(Self::$variant => $id,)* }
            }

            /// How severe it can be.
            pub fn severities(self) -> &'static [Severity] {
                match self { $(Self::$variant => &[$(Severity::$severity),+],)* }
            }
        }
    };
}

diagnoses! {
    /// Processes have ended, and the one that must wait for them does not.
    ZombiesNotReaped = "zombies-not-reaped" [Warning, Critical];
    /// PID 1 is exiting, and a member of its namespace does not go.
    TeardownBlocked = "teardown-blocked" [Critical];
    /// A process forks into a namespace whose PID 1 has ended.
    NamespaceDeadFork = "namespace-dead-fork" [Warning];
    /// A signal to PID 1 had no effect, as there is no handler for it.
    InitIgnoredSignal = "init-ignored-signal" [Warning];
    /// PID 1 was killed, and all members with it.
    InitKilled = "init-killed" [Info, Warning, Critical];
    /// A limit on PIDs is reached, or nearly.
    PidExhaustion = "pid-exhaustion" [Warning, Critical];
    /// A PID namespace could not be created.
    CreationRefused = "creation-refused" [Warning];
    /// A namespace has no process and is kept by something else.
    NamespaceLeaked = "namespace-leaked" [Warning];
    /// A process that entered by setns outlives what started it.
    JoinedLeftover = "joined-leftover" [Info, Warning];
    /// A namespace is gone, and the helper of its runtime is not.
    CreatorLeftover = "creator-leftover" [Warning];
    /// A container's main process is no PID 1: its end kills no other process.
    NoCascade = "no-cascade" [Info, Warning];
    /// /proc shows another namespace than the one the process is in.
    ProcMismatch = "proc-mismatch" [Info];
    /// The threads of one process use up a limit on PIDs.
    ThreadGrowth = "thread-growth" [Warning];
    /// Few levels are left to nest in.
    NearDepthLimit = "near-depth-limit" [Warning];
    /// Memory ran out, and a member that is no PID 1 was killed for it.
    MemberOomKilled = "member-oom-killed" [Warning];
    /// A process unshared or joined a namespace and has forked no process there.
    ChildrenElsewhere = "children-elsewhere" [Info, Warning];
}

impl Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.id())
    }
}

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// It does harm, or will.
    Warning,
    /// A service does not work, or stops within minutes.
    Critical,
}

impl Severity {
    /// All of them, the least severe first.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Critical];

    /// Its name in JSON, metrics and options.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What became of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingState {
    /// It was not there before.
    Opened,
    /// Its severity, its processes or their number have changed.
    Updated,
    /// It is over.
    Closed,
}

/// A diagnosis of one namespace or process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What is wrong.
    pub id: Diagnosis,
    /// How much it matters.
    pub severity: Severity,
    /// Since when it is so; where that was not seen, since when it is known.
    pub since_boot_ns: BootNs,
    /// The namespace that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ns: Option<SnapshotNamespace>,
    /// The process that it is about: the one to act on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// The facts that prove it.
    #[serde(deserialize_with = "bounds::facts")]
    pub evidence: Vec<Evidence>,
    /// Commands to run next.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "bounds::facts")]
    pub next: Vec<String>,
}

/// What distinguishes one finding from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FindingKey {
    id: Diagnosis,
    ns: Option<NamespaceKey>,
    process: Option<ProcessKey>,
}

impl Finding {
    /// What distinguishes it from others.
    pub fn key(&self) -> FindingKey {
        FindingKey {
            id: self.id,
            ns: self.ns.as_ref().map(SnapshotNamespace::key),
            process: self.process.as_ref().map(Process::key),
        }
    }

    /// Whether it is about a namespace that had the number of this one before or has it since, or is older than this one, so that it
    /// cannot be about what is in it.
    pub fn is_beside(&self, ns: &SnapshotNamespace) -> bool {
        match (&self.ns, &self.process) {
            (Some(its), _) if its.inum == ns.inum => its.is_another(ns),
            (Some(its), _) => ns.is_younger_than(its.born_boot_ns),
            (None, Some(process)) => ns.is_younger_than(Some(process.start_boot_ns)),
            (None, None) => false,
        }
    }
}

/// A fact, from where and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Where it is from.
    pub source: EvidenceSource,
    /// When it was so.
    pub boot_ns: BootNs,
    /// The fact.
    #[serde(flatten)]
    pub fact: Fact,
}

/// Where a fact is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvidenceSource {
    /// A hook in the kernel.
    Hook,
    /// A snapshot of all processes, and the events since.
    Snapshot,
    /// A file of /proc, or of a cgroup.
    Proc,
}

/// How often something happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windows {
    /// In the last minute.
    pub in_1_min: u64,
    /// In the last 5 minutes.
    pub in_5_min: u64,
    /// In the last 15 minutes.
    pub in_15_min: u64,
}

/// How many processes had one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameCount {
    /// The name.
    #[serde(deserialize_with = "bounds::comm")]
    pub comm: Name,
    /// How many.
    pub count: u64,
}

/// What a process has to do with a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It must wait for others, and does not.
    Reaper,
    /// It created the namespace.
    Creator,
    /// It has its children in the namespace.
    Parent,
    /// It forked the process that the finding is about.
    Forker,
    /// It is a container's main process.
    Main,
    /// It is still there.
    Survivor,
}

/// Why a process is still there although its namespace goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockedBy {
    /// It is a zombie, and its parent outside has not waited for it.
    Parent,
    /// Another process traces it.
    Tracer,
    /// Its cgroup is frozen, or the machine is suspended.
    Freezer,
    /// It is in a sleep that no signal ends (state D).
    Kernel,
    /// It is PID 1 of a namespace within, and waits for the processes there.
    OwnNamespace,
    /// Nothing that can be seen.
    Unknown,
}

/// A fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fact {
    /// Zombies.
    Zombies {
        /// How many.
        count: u64,
        /// Since when the oldest is one; where that was not seen, since when it is known.
        oldest_boot_ns: BootNs,
        /// How many are orphans, whose parent has ended.
        orphans: u64,
        /// Their names, the most frequent first.
        names: Vec<NameCount>,
        /// The names of the programs that forked them, where that was seen; the most frequent first.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        forked_by: Vec<NameCount>,
    },
    /// Lives of processes in the namespace.
    Lives {
        /// Forks.
        births: Windows,
        /// Ends.
        exits: Windows,
        /// Reapings.
        reaps: Windows,
    },
    /// A process and what it has to do with the finding.
    Process {
        /// What.
        role: Role,
        /// The process.
        process: Process,
        /// Whether it has ended.
        #[serde(default, skip_serializing_if = "is_false")]
        ended: bool,
    },
    /// A limit and how much of it is used.
    Limit {
        /// The limit.
        limit: ReachedLimit,
        /// By how much the use has grown in the last minute; absent where it has not, or that is not known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        growth_per_minute: Option<u64>,
        /// When it is reached, at that pace.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds_left: Option<u64>,
    },
    /// PID 1 of the namespace ended.
    InitExit {
        /// PID 1.
        process: Process,
        /// How.
        exit: Exit,
        /// Why.
        cause: Cause,
        /// PIDs in use besides its own, there and below.
        members: u32,
    },
    /// All members are gone.
    Teardown {
        /// Processes that the kernel killed.
        killed: u32,
        /// Namespaces below that went down with it.
        nested: Vec<NsInum>,
        /// From the end of PID 1 to the end of the last member.
        duration_ns: u64,
    },
    /// A process that the end of the namespace waits for.
    Blocker {
        /// The process.
        process: Process,
        /// What keeps it.
        by: BlockedBy,
        /// The process that does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keeper: Option<Box<Process>>,
        /// The kernel function that it sleeps in (/proc/PID/wchan).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wchan: Option<Name>,
    },
    /// Forks were refused.
    RefusedFork {
        /// To which process.
        process: Process,
        /// What it got.
        errno: String,
        /// Why.
        reason: Token,
        /// Whether it asked for a thread.
        #[serde(default, skip_serializing_if = "is_false")]
        thread: bool,
        /// How often.
        count: u64,
    },
    /// Creations of a namespace were refused.
    RefusedCreation {
        /// To which process.
        process: Process,
        /// The call.
        via: Token,
        /// What it got.
        errno: String,
        /// Why.
        reason: Token,
        /// How often.
        count: u64,
    },
    /// A signal was sent to PID 1.
    Signal {
        /// Its name.
        signal: String,
        /// By which process; absent: by the kernel.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sender: Option<Process>,
        /// From where.
        from: Token,
        /// What became of it.
        fate: Token,
        /// How often.
        count: u64,
    },
    /// What keeps a namespace.
    Holder {
        /// What.
        holder: Holder,
    },
    /// More keeps it than is listed.
    HoldersLeftOut {
        /// How much more.
        count: u64,
    },
    /// How deep it is.
    Depth {
        /// The level.
        level: u32,
        /// The deepest that the kernel allows.
        limit: u32,
    },
    /// A process has this many threads.
    Threads {
        /// The process.
        process: Process,
        /// How many.
        threads: u64,
    },
    /// The children of a process go to another namespace than its own.
    ChildrenGoTo {
        /// The process.
        process: Process,
        /// That namespace.
        ns: NsInum,
    },
    /// /proc of a process shows another namespace.
    ProcShows {
        /// The namespace that it shows.
        ns: NsInum,
        /// Where it is mounted, as the process sees it.
        path: Name,
    },
    /// A process was killed because memory ran out.
    OomKill {
        /// The process.
        process: Process,
        /// How many of the namespace were.
        count: u64,
    },
    /// What could not be seen, and why.
    Unseen {
        /// What, with the reason.
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
            | Self::Teardown { .. }
            | Self::Holder { .. }
            | Self::HoldersLeftOut { .. }
            | Self::Depth { .. }
            | Self::ProcShows { .. }
            | Self::Unseen { .. } => (None, None),
        };
        first.into_iter().chain(second)
    }

    /// How much of it there is, where that grows.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_that_is_read_is_the_one_that_was_written() {
        let process = r#"{"pid":20,"pids":[20,2],"comm":"sh","start_boot_ns":7,"ppid":1,"uid":0,"ns":9}"#;
        let line = format!(
            r#"{{"id":"teardown-blocked","severity":"critical","since_boot_ns":5,"ns":{{"inum":9,"level":1,"dying":true}},"process":{process},"evidence":[{{"source":"hook","boot_ns":4,"kind":"init_exit","process":{process},"exit":{{"code":0}},"cause":{{"kind":"exited"}},"members":2}},{{"source":"proc","boot_ns":6,"kind":"blocker","process":{process},"by":"kernel","wchan":"do_wait"}}],"next":["pidns-trace explain 9"]}}"#
        );
        let finding: Finding = serde_json::from_str(&line).expect(&line);
        assert_eq!(serde_json::to_string(&finding).expect("JSON"), line);
        assert_eq!(finding.evidence[1].fact.processes().count(), 1);
    }

    #[test]
    fn every_diagnosis_has_an_id_of_its_own() {
        let ids: std::collections::BTreeSet<_> = Diagnosis::ALL.iter().map(|id| id.id()).collect();
        assert_eq!(ids.len(), Diagnosis::ALL.len());
        for id in Diagnosis::ALL {
            assert_eq!(serde_json::to_string(id).expect("JSON"), format!("\"{id}\""));
            assert!(id.severities().is_sorted(), "{id}");
        }
    }
}
