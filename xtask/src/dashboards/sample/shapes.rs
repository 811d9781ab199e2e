//! The series of each metric in the invented data, and their values.

use std::f64::consts::TAU;

use crate::dashboards::catalogue::{Metric, Type};

/// Labels and their values.
pub(crate) type Labels = Vec<(String, String)>;

/// A point in time on one machine.
#[derive(Clone, Copy)]
pub(crate) struct SampleTime {
    /// Unix time, in seconds.
    pub(crate) unix: u64,
    /// Seconds since the beginning of the data.
    pub(crate) since: u32,
    /// The number of seconds that the data covers.
    pub(crate) seconds: u32,
    /// The number of the machine: 0, 1 …
    pub(crate) machine: u32,
}

impl SampleTime {
    /// The passed share of the time, from 0 to 1.
    fn share(self) -> f64 {
        f64::from(self.since) / f64::from(self.seconds.max(1))
    }

    /// A slow wave from 0 to 1, different for each series.
    fn wave(self, labels: &Labels) -> f64 {
        let phase = f64::from(hash(labels) % 100) / 100.0 + f64::from(self.machine) / 3.0;
        0.5 + 0.5 * ((self.share() * 3.0 + phase) * TAU).sin()
    }
}

/// A namespace: number, parent, level, runtime, container, pod, Kubernetes namespace, and processes.
type Namespace =
    (&'static str, &'static str, &'static str, &'static str, &'static str, &'static str, &'static str, f64);

const HOST: &str = "4026531836";

const NAMESPACES: [Namespace; 6] = [
    ("4026532201", HOST, "1", "containerd", "api", "api-7f9c", "default", 42.0),
    ("4026532305", HOST, "1", "containerd", "worker", "worker-0", "batch", 120.0),
    ("4026532410", HOST, "1", "docker", "web", "", "", 9.0),
    ("4026532511", HOST, "1", "docker", "db", "", "", 31.0),
    ("4026532512", "4026532410", "2", "none", "", "", "", 2.0),
    ("4026532618", HOST, "1", "podman", "ci-job", "", "", 17.0),
];

/// The namespace whose init does not reap. It also is about to use up its PIDs.
const LEAKY: &str = "4026532305";

/// All label sets of a metric on one machine.
pub(crate) fn series(name: &str, metric: &Metric) -> Vec<Labels> {
    let has = |label: &str| metric.labels.iter().any(|own| own == label);
    if has("pidns") {
        return NAMESPACES.iter().flat_map(|ns| of_namespace(metric, ns)).collect();
    }
    if has("hook") {
        return HOOKS.iter().map(|(hook, form)| pairs(&[("hook", hook), ("form", form)])).collect();
    }
    if has("finding") {
        return FINDINGS
            .iter()
            .map(|(id, severity)| pairs(&[("finding", id), ("severity", severity)]))
            .collect();
    }
    let mut sets: Vec<Labels> = vec![Vec::new()];
    for label in &metric.labels {
        let values = values(name, label);
        sets = sets
            .iter()
            .flat_map(|set| {
                values.iter().map(|value| {
                    let mut set = set.clone();
                    set.push((label.clone(), (*value).to_owned()));
                    set
                })
            })
            .collect();
    }
    sets
}

fn pairs(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn of_namespace(metric: &Metric, ns: &Namespace) -> Vec<Labels> {
    let &(pidns, parent, level, runtime, container, pod, namespace, _) = ns;
    let all = [
        ("pidns", pidns),
        ("parent", parent),
        ("level", level),
        ("runtime", runtime),
        ("container", container),
        ("pod", pod),
        ("namespace", namespace),
        ("limit", if pod.is_empty() { "pid_max" } else { "pids_cgroup" }),
    ];
    let own: Vec<_> =
        all.into_iter().filter(|(name, _)| metric.labels.iter().any(|label| label == name)).collect();
    if !metric.labels.iter().any(|label| label == "state") {
        return vec![pairs(&own)];
    }
    STATES.iter().map(|state| pairs(&[own.as_slice(), &[("state", state)]].concat())).collect()
}

const STATES: [&str; 5] = ["running", "sleeping", "blocked", "stopped", "zombie"];

const HOOKS: [(&str, &str); 10] = [
    ("copy_pid_ns", "fexit"),
    ("kernel_clone", "fexit"),
    ("mark_victim", "tp_btf"),
    ("proc_free_inum", "fentry"),
    ("sched_process_exit", "tp_btf"),
    ("sched_process_fork", "tp_btf"),
    ("sched_process_free", "off"),
    ("signal_generate", "tp_btf"),
    ("sys_exit", "off"),
    ("zap_pid_ns_processes", "fentry+fexit"),
];

/// The open findings in the invented data, out of all kinds.
const FINDINGS: [(&str, &str); 5] = [
    ("init-killed", "warning"),
    ("namespace-leaked", "warning"),
    ("no-cascade", "info"),
    ("pid-exhaustion", "critical"),
    ("zombies-not-reaped", "warning"),
];

/// The values of a label that does not identify a namespace, hook or finding.
fn values(name: &str, label: &str) -> &'static [&'static str] {
    match (label, name) {
        ("state", "pidns_namespaces") => &["active", "draining", "pinned"],
        ("state", _) => &STATES,
        ("runtime", name) if name.starts_with("pidns_process_") || name.starts_with("pidns_thread_") => {
            &["docker", "containerd", "podman", "none", "host"]
        }
        ("runtime", _) => &["docker", "containerd", "podman", "none"],
        ("reason", "pidns_namespace_creation_failures_total") => &["count_limit", "permission", "other"],
        ("reason", "pidns_fork_failures_total") => &["namespace_dead", "pids_cgroup", "nproc_limit"],
        ("reason", _) => &["ok", "error", "signal", "cascade", "oom_kill"],
        ("method", _) => &["clone", "clone3", "unshare"],
        ("result", _) => &["ok", "refused"],
        ("fate", _) => &["delivered", "ignored", "already_pending"],
        ("from", _) => &["inside", "ancestor", "kernel", "parent_death"],
        ("stage", _) => &["ring", "table", "hook", "malformed"],
        ("event", _) => &["namespace.create", "namespace.init_exit", "init.signal", "namespace.join"],
        ("kind", _) => &["added", "removed", "changed"],
        ("program", _) => &["fork", "exit", "exec"],
        ("map", _) => &["namespaces", "zombies", "dying"],
        ("source", _) => &["cgroup", "runtime"],
        ("version", _) => &["0.1.0"],
        ("revision", _) => &["fff7aa6"],
        ("rustversion", _) => &["1.95.0"],
        ("arch", _) => &["x86_64"],
        _ => &["x"],
    }
}

/// A hash that is always the same for the same labels.
fn hash(labels: &Labels) -> u32 {
    let bytes = labels.iter().flat_map(|(name, value)| name.bytes().chain(value.bytes()));
    bytes.fold(2_166_136_261, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619))
}

fn label<'a>(labels: &'a Labels, name: &str) -> &'a str {
    labels.iter().find(|(label, _)| label == name).map_or("", |(_, value)| value)
}

/// The value of a gauge or a counter.
pub(crate) fn value(name: &str, kind: Type, labels: &Labels, moment: SampleTime) -> f64 {
    if kind == Type::Counter {
        let per_hour = per_hour(name, labels);
        // The growth varies, but the counter never decreases.
        let hours = f64::from(moment.since) / 3600.0 + 0.05 * moment.wave(labels);
        let value = per_hour * hours;
        return if name.ends_with("_seconds_total") { value } else { value.floor() };
    }
    let processes = NAMESPACES.iter().find(|ns| ns.0 == label(labels, "pidns")).map_or(0.0, |ns| ns.7);
    let grown = (180.0 * moment.share()).floor();
    let is_leaky = label(labels, "pidns") == LEAKY
        || (name == "pidns_processes" && label(labels, "runtime") == "containerd");
    let leaks = is_leaky && moment.machine == 0;
    let zombies = if leaks { grown } else { (3.0 * moment.wave(labels)).floor() };
    let now = f64::from(u32::try_from(moment.unix).unwrap_or(u32::MAX));
    match name {
        "pidns_namespaces" => match label(labels, "state") {
            "active" => (20.0 + 12.0 * moment.wave(labels)).floor(),
            "draining" => f64::from(u8::from(moment.wave(labels) > 0.9)),
            _ => (2.0 + 3.0 * moment.share()).floor(),
        },
        "pidns_namespace_processes" | "pidns_processes" => match label(labels, "state") {
            "zombie" => zombies,
            "sleeping" => (processes.max(60.0) * (0.9 + 0.1 * moment.wave(labels))).floor(),
            "running" => (4.0 * moment.wave(labels)).floor(),
            "blocked" => f64::from(u8::from(moment.wave(labels) > 0.8)),
            _ => 0.0,
        },
        "pidns_namespace_threads" => processes * 3.0 + zombies,
        "pidns_threads" => 200.0 + 40.0 * moment.wave(labels),
        "pidns_namespace_pids_current" => processes * 3.0 + 3.0 * zombies,
        "pidns_namespace_pids_limit" => {
            if label(labels, "limit") == "pid_max" {
                32768.0
            } else {
                1024.0
            }
        }
        "pidns_namespace_zombie_oldest_timestamp_seconds" => {
            if leaks {
                now - f64::from(moment.since) - 60.0
            } else {
                now - 20.0
            }
        }
        "pidns_namespace_created_timestamp_seconds" => {
            now - f64::from(moment.since) - f64::from(hash(labels) % 500_000)
        }
        "process_start_time_seconds" => now - f64::from(moment.since) - 86_400.0,
        "pidns_namespace_max_level" => 2.0,
        "pidns_trace_ring_capacity_bytes" => 4_194_304.0,
        "pidns_trace_ring_used_bytes" => 200_000.0 * moment.wave(labels),
        "pidns_trace_map_capacity_entries" => 8192.0,
        "pidns_trace_map_entries" => f64::from(hash(labels) % 3000),
        "pidns_trace_snapshot_seconds" => 0.004 + 0.002 * moment.wave(labels),
        "process_resident_memory_bytes" => 17e6 + 1e6 * moment.wave(labels),
        "process_virtual_memory_bytes" => 120e6,
        "process_open_fds" => 38.0,
        "process_max_fds" => 1024.0,
        "process_threads" => 5.0,
        "scrape_duration_seconds" => 0.006 + 0.002 * moment.wave(labels),
        "pidns_namespace_series_dropped" | "pidns_trace_namespaces_counted_together" => 0.0,
        // `up`, and metrics that only carry labels.
        _ => 1.0,
    }
}

/// The growth of a counter in an hour.
fn per_hour(name: &str, labels: &Labels) -> f64 {
    let often = match label(labels, "reason") {
        "error" | "signal" => 0.2,
        "cascade" => 0.1,
        "oom_kill" | "count_limit" | "namespace_dead" => 0.03,
        "pids_cgroup" | "permission" => 0.05,
        _ => 1.0,
    };
    let per_hour = match name {
        "pidns_process_exits_total" if label(labels, "reason") == "oom_kill" => 30.0,
        "pidns_init_exits_total" => 40.0,
        "pidns_namespace_destructions_total" => 250.0,
        "pidns_process_forks_total" | "pidns_process_execs_total" | "pidns_process_exits_total" => 9000.0,
        "pidns_process_reaps_total" => 13_500.0,
        "pidns_thread_creations_total" | "pidns_thread_exits_total" => 4000.0,
        "pidns_namespace_forks_total" | "pidns_namespace_reaps_total" => 400.0,
        "pidns_init_signals_total" => 20.0,
        "pidns_trace_events_total" => 700.0,
        "pidns_trace_events_lost_total" => {
            if label(labels, "stage") == "ring" {
                2.0
            } else {
                0.0
            }
        }
        "process_cpu_seconds_total" => 14.0,
        "pidns_trace_bpf_program_runs_total" => 60_000.0,
        "pidns_trace_bpf_program_seconds_total" => 0.03,
        "pidns_trace_resync_corrections_total" | "pidns_trace_enrichment_failures_total" => 3.0,
        _ => 90.0,
    };
    per_hour * often * (0.6 + f64::from(hash(labels) % 80) / 100.0)
}

/// The bounds of a histogram's buckets.
pub(crate) fn bounds(name: &str) -> Vec<String> {
    let bounds: &[&str] = match name {
        "pidns_namespace_lifetime_seconds" => &["1", "10", "60", "600", "3600", "21600", "86400"],
        "pidns_namespace_teardown_killed_processes" => &["1", "2", "5", "10", "50", "100", "1000"],
        "pidns_trace_event_delay_seconds" => &["0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1"],
        _ => &["0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.5", "1", "5", "30"],
    };
    bounds.iter().map(|bound| (*bound).to_owned()).chain(["+Inf".to_owned()]).collect()
}

/// The number of observations up to a bound.
pub(crate) fn below(name: &str, bound: &str, moment: SampleTime) -> f64 {
    let bounds = bounds(name);
    let last = bounds.len() - 1;
    let all = 90.0 * (f64::from(moment.since) / 3600.0 + 0.05 * moment.wave(&Vec::new()));
    let Some(at) = bounds.iter().position(|own| own == bound).filter(|at| *at < last) else {
        return all.floor();
    };
    // Most observations are in the middle.
    let position = f64::from(u32::try_from(at).unwrap_or(0)) / f64::from(u32::try_from(last).unwrap_or(1));
    let share = 1.0 / (1.0 + (-12.0 * (position - 0.35)).exp());
    (all * share).floor()
}
