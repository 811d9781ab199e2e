//! The alerts: each has what is wrong on which machine, and a link into the runbook.
//!
//! They are written for an operator who is woken up by them. None fires for an ordinary stop of a container, for a single event that
//! mends itself, or for what a kernel never allows.

use super::yaml::{Group, Rule};

/// Where the project's documents are published. The runbook's address in each alert begins with it: it is the one place to
/// change. The project has no public address yet; names below `.example` belong to no one (RFC 2606), so that no other party
/// can stand there.
pub(crate) const DOCS_BASE: &str = "https://pidns-trace.example/docs";

/// Whether an operator has to act at once.
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

/// The container of a namespace, in an annotation. The labels come from `pidns_namespace_info`.
const WORKLOAD: &str = "{{ with $labels.namespace }}{{ . }}/{{ end }}{{ with $labels.pod }}{{ . }}/{{ end }}\
                        {{ with $labels.container }}{{ . }}{{ else }}no container{{ end }}";

/// Whose PID budget it is, in an annotation.
const BUDGET: &str = "{{ with $labels.pidns }}PID namespace {{ . }} (WORKLOAD) on {{ $labels.instance }}{{ else }}\
                      {{ $labels.instance }}{{ end }}";

/// How much of a limit on PIDs is used, of those that the matcher selects. Sandboxes that may have a handful of processes have
/// that handful on purpose.
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

/// Where nothing is left.
macro_rules! now {
    ($limit:literal) => {
        concat!("  ", used!($limit), " > 0.97\n")
    };
}

/// Where little is left, or nothing will be by the growth of the last hour. That only from half of the budget on: a program that
/// starts grows fast.
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

/// A container's own limit by namespace. Limits of the machine, which all its namespaces share, once: or hundreds would fire.
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
        // The only alert that depends on the job's name: of a machine that is down there is no other metric.
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
        // Each 10 minutes for 20: one burst is repaired by a snapshot, and is no reason to act.
        query: "sum by (job, instance, stage) (increase(pidns_trace_events_lost_total[10m])) > 0",
        lasts: "20m",
        summary: "The agent on {{ $labels.instance }} keeps losing events",
        description: "{{ $value | printf \"%.0f\" }} events were lost in 10 minutes (stage {{ $labels.stage }}), and it goes \
                      on for half an hour. Counters of rare events are too low.",
    },
    Alert {
        name: "PidnsTraceHookDegraded",
        severity: Severity::Warning,
        // Function hooks are off for good where the kernel refuses them, and two tracepoints where it does not: neither
        // fires. What fires: a tracepoint that runs everywhere is off, or a hook that ran within the last day is.
        query: "pidns_trace_hook_info{form=\"off\", hook=~\"signal_generate|mark_victim|sched_process_(fork|exec|exit)\"} == 1\n\
                or\n\
                pidns_trace_hook_info{form=\"off\", hook!~\"sys_exit|sched_process_free\"} == 1\n  \
                and on (job, instance, hook)\n  \
                last_over_time(pidns_trace_hook_info{form!=\"off\"}[1d])",
        lasts: "15m",
        summary: "The hook {{ $labels.hook }} does not run on {{ $labels.instance }}",
        description: "The agent had the hook {{ $labels.hook }} there before, or has it on every other kernel. What it shows \
                      is not seen, or less exactly.",
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
        // Teardowns take milliseconds: a machine that has one at every scrape for 10 minutes has one that hangs.
        query: "min_over_time(pidns_namespaces{state=\"draining\"}[10m]) > 0",
        lasts: "5m",
        summary: "A PID namespace on {{ $labels.instance }} does not come down",
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
        // Not the mere number: some tools hold namespaces on purpose. A leak grows.
        query: "min_over_time(pidns_namespaces{state=\"pinned\"}[1h])\n  \
                >= min_over_time(pidns_namespaces{state=\"pinned\"}[1h] offset 6h) + 5\n\
                or\n\
                min_over_time(pidns_namespaces{state=\"pinned\"}[1h]) >= 100",
        lasts: "15m",
        summary: "PID namespaces without processes pile up on {{ $labels.instance }}",
        description: "{{ $value | printf \"%.0f\" }} PID namespaces on {{ $labels.instance }} have no process left, and stay: \
                      at least 5 more than 6 hours ago, or 100 and more. Something holds them: an open file, a mount.",
    },
    Alert {
        name: "PidnsCreationRefused",
        severity: Severity::Warning,
        // Not permission and already_unshared: sandboxes try, and go on without.
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
                      minutes because memory ran out: {{ $value | printf \"%.0f\" }}. All of its namespace died with each.",
    },
    Alert {
        name: "PidnsInitKilled",
        severity: Severity::Info,
        // A stop whose SIGTERM was ignored ends in SIGKILL too: those are taken off. Where stops are that many in other
        // ways (a CI machine that removes running containers), silence it there.
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
        // Once or twice is a program that was started in a container while that was stopped.
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

/// The anchor of an alert in the runbook: GitHub makes it of the heading, which is the alert's name.
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
