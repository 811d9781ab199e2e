//! The kinds of problems, and their severities.

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

macro_rules! diagnoses {
    ($($(#[$doc:meta])* $variant:ident = $id:literal [$($severity:ident),+];)*) => {
        /// The kind of problem.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Diagnosis { $($(#[$doc])* #[serde(rename = $id)] $variant,)* }

        impl Diagnosis {
            /// All diagnoses.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name in JSON, metrics and docs/findings.md.
            pub fn id(self) -> &'static str {
                match self { $(Self::$variant => $id,)* }
            }

            /// The severities that it can have.
            pub fn severities(self) -> &'static [Severity] {
                match self { $(Self::$variant => &[$(Severity::$severity),+],)* }
            }
        }
    };
}

diagnoses! {
    /// Processes have ended, and the process that should reap them does not.
    ZombiesNotReaped = "zombies-not-reaped" [Warning, Critical];
    /// PID 1 is exiting, and a member of its namespace does not end.
    TeardownBlocked = "teardown-blocked" [Critical];
    /// A process forks into a namespace whose PID 1 has ended.
    NamespaceDeadFork = "namespace-dead-fork" [Warning];
    /// A signal to PID 1 had no effect because PID 1 has no handler for it.
    InitIgnoredSignal = "init-ignored-signal" [Warning];
    /// PID 1 was killed, and all members died with it.
    InitKilled = "init-killed" [Info, Warning, Critical];
    /// A limit on PIDs is reached or nearly reached.
    PidExhaustion = "pid-exhaustion" [Warning, Critical];
    /// A PID namespace could not be created.
    CreationRefused = "creation-refused" [Warning];
    /// A namespace has no process, and a holder keeps it.
    NamespaceLeaked = "namespace-leaked" [Warning];
    /// A process that entered by setns outlives the process that started it.
    JoinedLeftover = "joined-leftover" [Info, Warning];
    /// A namespace is gone, but its runtime's helper process is still there.
    CreatorLeftover = "creator-leftover" [Warning];
    /// A container's main process is not PID 1, so its end kills no other process.
    NoCascade = "no-cascade" [Info, Warning];
    /// /proc shows another namespace than the process is in.
    ProcMismatch = "proc-mismatch" [Info];
    /// The threads of one process use up a limit on PIDs.
    ThreadGrowth = "thread-growth" [Warning];
    /// The namespace is close to the deepest level.
    NearDepthLimit = "near-depth-limit" [Warning];
    /// Memory ran out, and the kernel killed a member that is not PID 1.
    MemberOomKilled = "member-oom-killed" [Warning];
    /// A process has unshared or joined a namespace and not forked into it.
    ChildrenElsewhere = "children-elsewhere" [Info, Warning];
}

impl Diagnosis {
    /// Whether it is about a moment in the past. All others are about situations that last.
    pub fn is_momentary(self) -> bool {
        matches!(
            self,
            Self::InitIgnoredSignal | Self::InitKilled | Self::CreationRefused | Self::MemberOomKilled
        )
    }
}

impl Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.id())
    }
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It is worth knowing.
    Info,
    /// It does harm or will do harm.
    Warning,
    /// A service does not work, or stops within minutes.
    Critical,
}

impl Severity {
    /// All severities, the least severe first.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_diagnosis_has_its_own_id() {
        let ids: std::collections::BTreeSet<_> = Diagnosis::ALL.iter().map(|id| id.id()).collect();
        assert_eq!(ids.len(), Diagnosis::ALL.len());
        for id in Diagnosis::ALL {
            assert_eq!(serde_json::to_string(id).expect("JSON"), format!("\"{id}\""));
            assert!(id.severities().is_sorted(), "{id}");
        }
    }
}
