//! The recording rules.
//!
//! An `instance:…` rule has one series for each machine. Without them, the fleet dashboard's table of machines would
//! join all per-namespace series of the fleet each time it is shown. A `cluster:…` rule has one or a few series for
//! each job. They are few enough to be kept for years, or to be federated.

use super::yaml::{Group, Rule};

/// A rule's name, and its query.
type Recording = (&'static str, &'static str);

const INSTANCE: &[Recording] = &[
    ("instance:pidns_namespaces:sum", "sum by (job, instance) (pidns_namespaces)"),
    (
        "instance:pidns_namespace_creations:rate5m",
        "sum by (job, instance) (rate(pidns_namespace_creations_total[5m]))",
    ),
    (
        "instance:pidns_namespace_teardown_seconds:p99_1h",
        "histogram_quantile(0.99, sum by (job, instance, le) (rate(pidns_namespace_teardown_seconds_bucket[1h])))",
    ),
    ("instance:pidns_zombies:sum", r#"sum by (job, instance) (pidns_processes{state="zombie"})"#),
    (
        "instance:pidns_zombie_oldest_age_seconds:max",
        "max by (job, instance) (time() - pidns_namespace_zombie_oldest_timestamp_seconds)",
    ),
    (
        "instance:pidns_namespace_pids:ratio_max",
        "max by (job, instance) (pidns_namespace_pids_current / pidns_namespace_pids_limit)",
    ),
    // The ratio is 0 and not NaN if there were no events.
    (
        "instance:pidns_trace_events_lost:ratio_rate5m",
        "sum by (job, instance) (rate(pidns_trace_events_lost_total[5m])) / clamp_min(\
         sum by (job, instance) (rate(pidns_trace_events_total[5m])) + \
         sum by (job, instance) (rate(pidns_trace_events_lost_total[5m])), 1e-9)",
    ),
];

const CLUSTER: &[Recording] = &[
    ("cluster:pidns_namespaces:sum", "sum by (job, state) (pidns_namespaces)"),
    ("cluster:pidns_processes:sum", "sum by (job, state) (pidns_processes)"),
    ("cluster:pidns_namespace_creations:rate5m", "sum by (job) (instance:pidns_namespace_creations:rate5m)"),
    ("cluster:pidns_init_exits:rate5m", "sum by (job, runtime, reason) (rate(pidns_init_exits_total[5m]))"),
    (
        "cluster:pidns_namespace_teardown_seconds:p99_1h",
        "histogram_quantile(0.99, sum by (job, le) (rate(pidns_namespace_teardown_seconds_bucket[1h])))",
    ),
    // Sums and maxima over all machines: a graph over months reads one series, and not one for each machine.
    ("cluster:pidns_machines:count", "count by (job) (instance:pidns_namespaces:sum)"),
    ("cluster:pidns_findings:sum", "sum by (job, finding, severity) (pidns_findings)"),
    ("cluster:pidns_namespace_pids:ratio_max", "max by (job) (instance:pidns_namespace_pids:ratio_max)"),
    (
        "cluster:pidns_zombie_oldest_age_seconds:max",
        "max by (job) (instance:pidns_zombie_oldest_age_seconds:max)",
    ),
    (
        "cluster:pidns_trace_events_lost:ratio_max",
        "max by (job) (instance:pidns_trace_events_lost:ratio_rate5m)",
    ),
];

/// All groups. The rules of a group are evaluated in order, so a rule may use those above it.
pub(crate) fn groups() -> Vec<Group> {
    let rule = |&(name, query): &Recording| Rule::recording(name, query);
    vec![Group { name: "pidns-trace", rules: INSTANCE.iter().chain(CLUSTER).map(rule).collect() }]
}
