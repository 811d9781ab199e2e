//! The alerts. Each names the fault and the machine, and links to the runbook.
//!
//! They are written for an operator who is woken up by them. None fires for an ordinary stop of a container, for a
//! single event that is repaired automatically, or for something that a kernel never allows.

use super::yaml::{Group, Rule};

/// The address of the published documents. Each alert's runbook address begins with it, so it is the only place to
/// change. The project has no public address yet. Names below `.example` belong to no one (RFC 2606), so nobody else
/// can publish there.
pub(crate) const DOCS_BASE: &str = "https://pidns-trace.example/docs";

/// How soon an operator must act.
#[derive(Clone, Copy)]
enum Severity {
    /// Now: something fails already.
    Critical,
    /// Today.
    Warning,
    /// Worth a check.
    Info,
}

struct Alert {
    name: &'static str,
    severity: Severity,
    query: &'static str,
    lasts: &'static str,
    summary: &'static str,
    description: &'static str,
}

/// The container of a namespace, for annotations. The labels come from `pidns_namespace_info`.
const WORKLOAD: &str = "{{ with $labels.namespace }}{{ . }}/{{ end }}{{ with $labels.pod }}{{ . }}/{{ end }}\
                        {{ with $labels.container }}{{ . }}{{ else }}no container{{ end }}";

/// The owner of a PID budget, for annotations.
const BUDGET: &str = "{{ with $labels.pidns }}PID namespace {{ . }} (WORKLOAD) on {{ $labels.instance }}{{ else }}\
                      {{ $labels.instance }}{{ end }}";

/// The used share of the PID limits that the matcher selects. Limits of 16 and less are skipped: sandboxes set them
/// on purpose, and use them fully.
macro_rules! used {
    ($limit:literal) => {
        concat!(
            "pidns_namespace_pids_current{limit",
            $limit,
            "} / (pidns_namespace_pids_limit{limit",
            $limit,
            "} > 16)"
        )
    };
}

/// Nothing is left of the budget.
macro_rules! now {
    ($limit:literal) => {
        concat!("  ", used!($limit), " > 0.97\n")
    };
}

/// Little is left of the budget, or nothing will be left at the growth of the last hour. The growth counts only above
/// half of the budget, because a starting program grows fast.
macro_rules! soon {
    ($limit:literal) => {
        concat!(
            "  ",
            used!($limit),
            " > 0.9\n  or\n  (\n    ",
            used!($limit),
            " > 0.5\n    and\n    predict_linear(pidns_namespace_pids_current{limit",
            $limit,
            "}[1h], 2 * 3600) > pidns_namespace_pids_limit\n  )\n"
        )
    };
}

/// A container's own limit, for each namespace. A limit of the machine is shared by all namespaces, so it is reported
/// once. Otherwise hundreds of alerts would fire.
macro_rules! of_each_limit {
    ($condition:ident) => {
        concat!(
            "(\n",
            $condition!("=\"pids_cgroup\""),
            ")\n* on (job, instance, pidns) group_left (container, pod, namespace) pidns_namespace_info\nor\n\
             max by (job, instance, limit) (\n",
            $condition!("!=\"pids_cgroup\""),
            ")"
        )
    };
}

const ALERTS: &[Alert] = &[
    Alert {
        name: "PidnsTraceDown",
        severity: Severity::Warning,
        // Only this alert depends on the job's name: a machine that is down has no other metric.
        query: "up{job=\"pidns-trace\"} == 0\nor\nabsent(up{job=\"pidns-trace\"})",
        lasts: "5m",
        summary: "{{ with $labels.instance }}The agent on {{ . }} does not answer{{ else }}Prometheus has no agent to \
                  scrape{{ end }}",
        description: "{{ with $labels.instance }}Prometheus could not scrape pidns-trace on {{ . }} for 5 minutes.{{ else }}\
                      Prometheus has had no target of the job pidns-trace for 5 minutes.{{ end }} Nothing is known about \
                      PID namespaces there meanwhile.",
    },
    Alert {
        name: "PidnsTraceEventsLost",
        severity: Severity::Warning,
        // Require losses in each 10 minutes for 20 minutes: a snapshot repairs a single burst, which needs no action.
        query: "sum by (job, instance, stage) (increase(pidns_trace_events_lost_total[10m])) > 0",
        lasts: "20m",
        summary: "The agent on {{ $labels.instance }} keeps losing events",
        description: "{{ $value | printf \"%.0f\" }} events were lost in 10 minutes (stage {{ $labels.stage }}), and it goes \
                      on for half an hour. Counters of rare events are too low.",
    },
    Alert {
        name: "PidnsTraceHookDegraded",
        severity: Severity::Warning,
        // Some kernels refuse all function hooks, and others need no tracepoints for two events: neither is a fault.
        // The alert fires if a tracepoint that every kernel has is off, or if a hook is off that ran within the last
        // day.
        query: "pidns_trace_hook_info{form=\"off\", hook=~\"signal_generate|mark_victim|sched_process_(fork|exec|exit)\"} == 1\n\
                or\n\
                pidns_trace_hook_info{form=\"off\", hook!~\"sys_exit|sched_process_free\"} == 1\n  \
                and on (job, instance, hook)\n  \
                last_over_time(pidns_trace_hook_info{form!=\"off\"}[1d])",
        lasts: "15m",
        summary: "The hook {{ $labels.hook }} does not run on {{ $labels.instance }}",
        description: "The agent had the hook {{ $labels.hook }} there before, or has it on every other kernel. Its events \
                      are missing, or less exact.",
    },
    Alert {
        name: "PidnsZombiesNotReaped",
        severity: Severity::Warning,
        query: "(\n  \
                pidns_namespace_processes{state=\"zombie\"} >= 20\n  \
                and on (job, instance, pidns)\n  \
                (time() - pidns_namespace_zombie_oldest_timestamp_seconds > 900)\n\
                )\n\
                * on (job, instance, pidns) group_left (container, pod, namespace) pidns_namespace_info",
        lasts: "10m",
        summary: "{{ $value | printf \"%.0f\" }} zombies in PID namespace {{ $labels.pidns }} (WORKLOAD)",
        description: "{{ $value | printf \"%.0f\" }} zombies in PID namespace {{ $labels.pidns }} (WORKLOAD) on \
                      {{ $labels.instance }}, the oldest for more than 15 minutes: their parent does not wait for them. \
                      Each takes a PID of the budget.",
    },
    Alert {
        name: "PidnsTeardownBlocked",
        severity: Severity::Warning,
        // A teardown takes milliseconds. If every scrape of 10 minutes shows one, one hangs.
        query: "min_over_time(pidns_namespaces{state=\"draining\"}[10m]) > 0",
        lasts: "5m",
        summary: "A PID namespace on {{ $labels.instance }} is stuck in teardown",
        description: "PID namespaces on {{ $labels.instance }} with a dead init and members left, at every scrape of the \
                      last 10 minutes: at least {{ $value | printf \"%.0f\" }}. Their containers cannot be removed.",
    },
    Alert {
        name: "PidnsPidExhaustionSoon",
        severity: Severity::Warning,
        query: of_each_limit!(soon),
        lasts: "15m",
        summary: "BUDGET runs out of PIDs soon",
        description: "{{ $value | humanizePercentage }} of the PIDs that {{ $labels.limit }} allows BUDGET are in use: more \
                      than 90 %, or all within two hours if it goes on as in the last one.",
    },
    Alert {
        name: "PidnsPidExhaustionSoon",
        severity: Severity::Critical,
        query: of_each_limit!(now),
        lasts: "5m",
        summary: "BUDGET has hardly any PIDs left",
        description: "{{ $value | humanizePercentage }} of the PIDs that {{ $labels.limit }} allows BUDGET are in use. Fork \
                      fails there, now or at the next burst.",
    },
    Alert {
        name: "PidnsNamespaceLeaked",
        severity: Severity::Info,
        // The number alone is no fault, because some tools hold namespaces on purpose. A leak grows.
        query: "min_over_time(pidns_namespaces{state=\"pinned\"}[1h])\n  \
                >= min_over_time(pidns_namespaces{state=\"pinned\"}[1h] offset 6h) + 5\n\
                or\n\
                min_over_time(pidns_namespaces{state=\"pinned\"}[1h]) >= 100",
        lasts: "15m",
        summary: "PID namespaces without processes pile up on {{ $labels.instance }}",
        description: "{{ $value | printf \"%.0f\" }} PID namespaces on {{ $labels.instance }} have no process, but still exist: \
                      at least 5 more than 6 hours ago, or at least 100. An open file or a mount keeps them.",
    },
    Alert {
        name: "PidnsCreationRefused",
        severity: Severity::Warning,
        // Without permission and already_unshared: sandboxes try, and continue without the namespace.
        query: "sum by (job, instance, reason) (\n  \
                increase(pidns_namespace_creation_failures_total{reason=~\"count_limit|depth_limit|no_memory\"}[15m])\n\
                ) >= 3",
        lasts: "5m",
        summary: "PID namespaces cannot be created on {{ $labels.instance }} ({{ $labels.reason }})",
        description: "The kernel refused to create a PID namespace {{ $value | printf \"%.0f\" }} times in 15 minutes on \
                      {{ $labels.instance }}: {{ $labels.reason }}. New containers do not start there.",
    },
    Alert {
        name: "PidnsInitKilled",
        severity: Severity::Warning,
        query: "sum by (job, instance, runtime, reason) (increase(pidns_init_exits_total{reason=\"oom_kill\"}[15m])) > 0",
        lasts: "1m",
        summary: "Memory ran out for a PID 1 on {{ $labels.instance }} ({{ $labels.runtime }})",
        description: "Inits of PID namespaces ({{ $labels.runtime }}) on {{ $labels.instance }} that the kernel killed in 15 \
                      minutes because memory ran out: {{ $value | printf \"%.0f\" }}. Every process of these namespaces died with its init.",
    },
    Alert {
        name: "PidnsInitKilled",
        severity: Severity::Info,
        // A stop whose SIGTERM was ignored also ends in SIGKILL, so subtract those. If many stops are normal (a CI
        // machine that removes running containers), silence the alert there.
        query: "sum by (job, instance) (increase(pidns_init_exits_total{reason=\"signal\"}[1h]))\n  \
                - sum by (job, instance) (increase(pidns_init_signals_total{fate=\"ignored\", from=\"ancestor\"}[1h]))\n  \
                >= 20",
        lasts: "30m",
        summary: "PID 1s on {{ $labels.instance }} are killed again and again",
        description: "{{ $value | printf \"%.0f\" }} inits of PID namespaces on {{ $labels.instance }} died of a signal in \
                      one hour, besides those that ignored a signal to stop before.",
    },
    Alert {
        name: "PidnsForkIntoDeadNamespace",
        severity: Severity::Warning,
        // One or two failures come from a program that was started in a container during its stop.
        query: "sum by (job, instance) (increase(pidns_fork_failures_total{reason=\"namespace_dead\"}[15m])) >= 5",
        lasts: "5m",
        summary: "Processes on {{ $labels.instance }} fork into a dead PID namespace",
        description: "{{ $value | printf \"%.0f\" }} forks failed in 15 minutes on {{ $labels.instance }} with \"cannot \
                      allocate memory\". It is not memory: the init of the namespace that they fork into has exited.",
    },
];

/// Names of all alerts, each once.
#[cfg(test)]
pub(crate) fn names() -> Vec<&'static str> {
    let mut names: Vec<&str> = ALERTS.iter().map(|alert| alert.name).collect();
    names.dedup();
    names
}

/// The anchor of an alert in the runbook. GitHub makes it from the heading, which is the alert's name.
pub(crate) fn anchor(alert: &str) -> String {
    alert.to_lowercase()
}

pub(crate) fn groups() -> Vec<Group> {
    vec![Group { name: "pidns-trace-alerts", rules: ALERTS.iter().map(rule).collect() }]
}

fn rule(alert: &Alert) -> Rule {
    let severity = match alert.severity {
        Severity::Critical => "critical",
        Severity::Warning => "warning",
        Severity::Info => "info",
    };
    let text = |text: &str| text.replace("BUDGET", BUDGET).replace("WORKLOAD", WORKLOAD);
    let mut rule = Rule::alert(alert.name, alert.query, alert.lasts);
    rule.labels = vec![("severity", severity.to_owned())];
    rule.annotations = vec![
        ("summary", text(alert.summary)),
        ("description", text(alert.description)),
        ("runbook_url", format!("{DOCS_BASE}/runbook.md#{}", anchor(alert.name))),
    ];
    rule
}
