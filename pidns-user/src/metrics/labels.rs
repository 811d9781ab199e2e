//! The values of labels.

use std::sync::Arc;

use crate::event::container::{Container, Runtime};

/// The runtime that a namespace belongs to: the values of the label `runtime`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum RuntimeLabel {
    Docker,
    Containerd,
    Crio,
    Podman,
    Lxc,
    Nspawn,
    /// A container of another or an unknown runtime.
    Other,
    /// No container.
    NoContainer,
    /// The initial namespace.
    Host,
}

impl RuntimeLabel {
    /// The values for namespaces below the initial one.
    pub(super) const BELOW: [Self; 8] = [
        Self::Docker,
        Self::Containerd,
        Self::Crio,
        Self::Podman,
        Self::Lxc,
        Self::Nspawn,
        Self::Other,
        Self::NoContainer,
    ];

    /// All values.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        Self::BELOW.into_iter().chain([Self::Host])
    }

    pub(super) fn of(container: Option<&Arc<Container>>) -> Self {
        match container.map(|container| container.runtime) {
            Some(Some(Runtime::Docker)) => Self::Docker,
            Some(Some(Runtime::Containerd)) => Self::Containerd,
            Some(Some(Runtime::Crio)) => Self::Crio,
            Some(Some(Runtime::Podman)) => Self::Podman,
            Some(Some(Runtime::Lxc)) => Self::Lxc,
            Some(Some(Runtime::Nspawn)) => Self::Nspawn,
            Some(Some(Runtime::Runc | Runtime::Crun) | None) => Self::Other,
            Some(Some(Runtime::Systemd)) | None => Self::NoContainer,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::Crio => "crio",
            Self::Podman => "podman",
            Self::Lxc => "lxc",
            Self::Nspawn => "nspawn",
            Self::Other => "other",
            Self::NoContainer => "none",
            Self::Host => "host",
        }
    }
}

/// The state of a process: the values of the label `state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProcessStateLabel {
    Running,
    Sleeping,
    Blocked,
    Stopped,
    Zombie,
}

/// Number of process states.
pub(super) const PROCESS_STATES: usize = ProcessStateLabel::ALL.len();

impl ProcessStateLabel {
    pub(super) const ALL: [Self; 5] =
        [Self::Running, Self::Sleeping, Self::Blocked, Self::Stopped, Self::Zombie];

    /// The state for a letter of proc(5). A process without a letter has just been forked and is in no snapshot yet.
    pub(super) fn of(letter: Option<char>) -> Self {
        match letter {
            Some('D') => Self::Blocked,
            Some('T' | 't') => Self::Stopped,
            Some('Z' | 'X') => Self::Zombie,
            Some('S' | 'I' | 'P') => Self::Sleeping,
            _ => Self::Running,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Sleeping => "sleeping",
            Self::Blocked => "blocked",
            Self::Stopped => "stopped",
            Self::Zombie => "zombie",
        }
    }
}

/// Values of `reason` of an exit, indexed by [`pidns_ebpf::abi::namespace_counters::ExitReason`].
pub(super) const EXIT_REASONS: [&str; 5] = ["ok", "error", "signal", "cascade", "oom_kill"];
/// Values of `method`; `unknown` is for calls of 32-bit programs.
pub(super) const METHODS: [&str; 4] = ["clone", "clone3", "unshare", "unknown"];
/// Values of `reason` of a refused creation (docs/events.md).
pub(super) const CREATION_REFUSALS: [&str; 12] = [
    "depth_limit",
    "count_limit",
    "pid_max",
    "pids_cgroup",
    "nproc_limit",
    "permission",
    "seccomp",
    "already_unshared",
    "children_elsewhere",
    "pid_taken",
    "no_memory",
    "other",
];
/// Values of `reason` of a refused fork (docs/events.md).
pub(super) const FORK_REFUSALS: [&str; 10] = [
    "namespace_dead",
    "pid_max",
    "pids_cgroup",
    "nproc_limit",
    "permission",
    "seccomp",
    "children_elsewhere",
    "pid_taken",
    "no_memory",
    "other",
];
/// Values of `fate` of a signal (docs/events.md).
pub(super) const FATES: [&str; 5] = ["delivered", "ignored", "already_pending", "queue_full", "info_lost"];
/// Values of `from` of a signal (docs/events.md).
pub(super) const ORIGINS: [&str; 4] = ["inside", "ancestor", "kernel", "parent_death"];
/// Values of `result` of a join.
pub(super) const JOIN_RESULTS: [&str; 2] = ["ok", "refused"];
/// Values of `stage` of a loss (docs/events.md).
pub(super) const LOSS_STAGES: [&str; 4] = ["ring", "table", "hook", "malformed"];
/// Values of `source`: the source in which the runtime (`cgroup`) or the name (`runtime`) of a container was not found.
pub(super) const ENRICHMENT_SOURCES: [&str; 2] = ["cgroup", "runtime"];
/// Values of `kind` of a correction.
pub(super) const CORRECTIONS: [&str; 3] = ["added", "removed", "changed"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_runtime_has_a_label_and_a_systemd_unit_is_no_container() {
        let label =
            |runtime| RuntimeLabel::of(Some(&Arc::new(Container { runtime, ..Container::default() })));
        assert_eq!(label(Some(Runtime::Docker)).name(), "docker");
        assert_eq!(label(Some(Runtime::Crun)).name(), "other");
        assert_eq!(label(None).name(), "other", "a container of an unknown runtime");
        assert_eq!(label(Some(Runtime::Systemd)).name(), "none");
        assert_eq!(RuntimeLabel::of(None).name(), "none");
    }
}
