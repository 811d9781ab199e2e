//! All metrics: name, type, labels and meaning. A test compares this list with docs/metrics.md.

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It never decreases.
    Counter,
    /// It increases and decreases.
    Gauge,
    /// Counts of values by bucket.
    Histogram,
}

/// A metric.
#[derive(Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// Its meaning in a sentence.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Metric =
                Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };
        )*
        /// All metrics.
        pub const ALL: &[&Metric] = &[$(&$constant),*];
    };
}

metrics! {
    NAMESPACES: Gauge "pidns_namespaces" ["state"]
        "PID namespaces below the initial one: active, draining (init dead, members left) or pinned (no living process).";
    MAX_LEVEL: Gauge "pidns_namespace_max_level" []
        "Deepest nesting of a PID namespace (the kernel allows 32).";
    CREATIONS: Counter "pidns_namespace_creations_total" ["method"]
        "PID namespaces created.";
    CREATION_FAILURES: Counter "pidns_namespace_creation_failures_total" ["reason"]
        "Calls that were refused a new PID namespace.";
    DESTRUCTIONS: Counter "pidns_namespace_destructions_total" []
        "PID namespaces destroyed; without function hooks, torn down.";
    LIFETIME: Histogram "pidns_namespace_lifetime_seconds" []
        "From the creation of a PID namespace to its destruction.";
    TEARDOWN: Histogram "pidns_namespace_teardown_seconds" []
        "From the death of an init to the reaping of the last member.";
    TEARDOWN_KILLED: Histogram "pidns_namespace_teardown_killed_processes" []
        "Members that the kernel killed because one init died.";
    INIT_EXITS: Counter "pidns_init_exits_total" ["runtime", "reason"]
        "Inits (PID 1 of a PID namespace) that died.";
    INIT_SIGNALS: Counter "pidns_init_signals_total" ["fate", "from"]
        "Signals that processes, or the kernel, sent to an init.";
    JOINS: Counter "pidns_joins_total" ["result"]
        "Calls of setns(2) to join a PID namespace.";
    PROCESSES: Gauge "pidns_processes" ["runtime", "state"]
        "Processes in PID namespaces below the initial one, as of the last snapshot.";
    THREADS: Gauge "pidns_threads" ["runtime"]
        "Threads of those processes, as of the last snapshot.";
    FORKS: Counter "pidns_process_forks_total" ["runtime"]
        "Processes forked.";
    EXECS: Counter "pidns_process_execs_total" ["runtime"]
        "Programs executed.";
    EXITS: Counter "pidns_process_exits_total" ["runtime", "reason"]
        "Processes that ended.";
    REAPS: Counter "pidns_process_reaps_total" ["runtime"]
        "Processes reaped after they ended, as of the last snapshot.";
    THREAD_CREATIONS: Counter "pidns_thread_creations_total" ["runtime"]
        "Threads created, without the first threads of processes.";
    THREAD_EXITS: Counter "pidns_thread_exits_total" ["runtime"]
        "Threads that ended and were not their process's last.";
    FORK_FAILURES: Counter "pidns_fork_failures_total" ["reason"]
        "Refused forks, including those of threads.";
    FINDINGS: Gauge "pidns_findings" ["finding", "severity"]
        "Findings that are open now.";
    NAMESPACE_INFO: Gauge "pidns_namespace_info"
        ["pidns", "parent", "level", "runtime", "container", "pod", "namespace"]
        "What a PID namespace is: 1.";
    NAMESPACE_PROCESSES: Gauge "pidns_namespace_processes" ["pidns", "state"]
        "Processes of a PID namespace, without those of the namespaces below it.";
    NAMESPACE_THREADS: Gauge "pidns_namespace_threads" ["pidns"]
        "Threads of those processes. Limits on PIDs count threads.";
    NAMESPACE_PIDS_CURRENT: Gauge "pidns_namespace_pids_current" ["pidns", "limit"]
        "Tasks that count against the tightest limit on PIDs that applies to a PID namespace's init.";
    NAMESPACE_PIDS_LIMIT: Gauge "pidns_namespace_pids_limit" ["pidns", "limit"]
        "That limit.";
    NAMESPACE_ZOMBIE_OLDEST: Gauge "pidns_namespace_zombie_oldest_timestamp_seconds" ["pidns"]
        "When the oldest zombie of a PID namespace was first seen as a zombie; absent if there is none.";
    NAMESPACE_CREATED: Gauge "pidns_namespace_created_timestamp_seconds" ["pidns"]
        "When a PID namespace was created; if no hook saw that, when its init started.";
    NAMESPACE_FORKS: Counter "pidns_namespace_forks_total" ["pidns"]
        "Processes forked into a PID namespace.";
    NAMESPACE_REAPS: Counter "pidns_namespace_reaps_total" ["pidns"]
        "Processes of a PID namespace that were reaped.";
    SERIES_DROPPED: Gauge "pidns_namespace_series_dropped" []
        "PID namespaces that have no series of their own because of --metrics.namespace-limit.";
    BUILD_INFO: Gauge "pidns_trace_build_info" ["version", "revision", "rustversion", "arch"]
        "Which program this is: 1.";
    EVENTS: Counter "pidns_trace_events_total" ["event"]
        "Events that the agent has processed.";
    EVENTS_LOST: Counter "pidns_trace_events_lost_total" ["stage"]
        "Events that were lost.";
    EVENT_DELAY: Histogram "pidns_trace_event_delay_seconds" []
        "From a hook to the processing of its event.";
    RING_CAPACITY: Gauge "pidns_trace_ring_capacity_bytes" []
        "Size of the kernel's ring buffer.";
    RING_USED: Gauge "pidns_trace_ring_used_bytes" []
        "Bytes in the ring buffer that wait to be read.";
    HOOK_INFO: Gauge "pidns_trace_hook_info" ["hook", "form"]
        "The form in which each hook runs, or off: 1.";
    PROGRAM_RUNS: Counter "pidns_trace_bpf_program_runs_total" ["program"]
        "Runs of a BPF program; only with --bpf-stats.";
    PROGRAM_SECONDS: Counter "pidns_trace_bpf_program_seconds_total" ["program"]
        "Time spent in a BPF program; only with --bpf-stats.";
    MAP_ENTRIES: Gauge "pidns_trace_map_entries" ["map"]
        "Entries of a BPF map.";
    MAP_CAPACITY: Gauge "pidns_trace_map_capacity_entries" ["map"]
        "Maximum number of entries of a BPF map.";
    COUNTED_TOGETHER: Gauge "pidns_trace_namespaces_counted_together" []
        "PID namespaces for which the kernel's tables had no room; their processes are counted under runtime other.";
    RESYNC_CORRECTIONS: Counter "pidns_trace_resync_corrections_total" ["kind"]
        "Corrections of the agent's model by snapshots: PID namespaces that differed.";
    SNAPSHOT_SECONDS: Gauge "pidns_trace_snapshot_seconds" []
        "Duration of the last pass over all tasks.";
    ENRICHMENT_FAILURES: Counter "pidns_trace_enrichment_failures_total" ["source"]
        "Lookups of containers that found no runtime or no name.";
}

/// Whether this is a metric of the agent's own process, which the `prometheus` crate adds.
pub fn is_of_the_process(name: &str) -> bool {
    name.starts_with("process_")
}
