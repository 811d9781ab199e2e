//! Panels that several dashboards share.

use super::{
    panel::{Kind, Panel, Unit},
    reasons::{NO_AGENT, NO_DESTRUCTIONS, NO_FINDINGS, NO_LIMITS, NO_REFUSALS, NO_TEARDOWNS, NO_ZOMBIES},
    workload,
};

const ZOMBIES: &str = r#"pidns_namespace_processes{@, state="zombie"} > 0"#;
const ZOMBIE_AGE: &str = "time() - pidns_namespace_zombie_oldest_timestamp_seconds{@}";
pub(crate) const BUDGET: &str = "pidns_namespace_pids_current{@} / pidns_namespace_pids_limit{@}";
const BUDGET_OF_CGROUP: &str = r#"pidns_namespace_pids_current{@, limit="pids_cgroup"} / pidns_namespace_pids_limit{@, limit="pids_cgroup"}"#;
const BUDGET_OF_MACHINE: &str = r#"pidns_namespace_pids_current{@, limit!="pids_cgroup"} / pidns_namespace_pids_limit{@, limit!="pids_cgroup"}"#;

pub(crate) fn namespaces_by_state() -> Panel {
    Panel::new(Kind::Stacked, "Namespaces by state", Unit::Count, NO_AGENT)
        .describe(
            "PID namespaces without the initial one. Draining: the init is dead and members are left. Pinned: all \
             processes have ended, but the init as a zombie, an open file, a mount, or a process whose children start \
             there still holds it.",
        )
        .query("{{state}}", "sum by (state) (pidns_namespaces{@})")
        .colours(&[("active", "green"), ("draining", "orange"), ("pinned", "purple")])
        .min(0.0)
}

pub(crate) fn births_and_deaths() -> Panel {
    Panel::new(Kind::Lines, "Births and deaths of namespaces", Unit::PerSecond, NO_AGENT)
        .describe(
            "How many namespaces are created, lose their init, and are destroyed. If the kernel allows only \
             tracepoints, no hook sees destructions, and namespaces count as destroyed after their teardown.",
        )
        .query("created", "sum(rate(pidns_namespace_creations_total{@}[$__rate_interval]))")
        .query("init died", "sum(rate(pidns_init_exits_total{@}[$__rate_interval]))")
        .query("destroyed", "sum(rate(pidns_namespace_destructions_total{@}[$__rate_interval]))")
        .colours(&[("created", "green"), ("init died", "orange"), ("destroyed", "red")])
        .min(0.0)
}

pub(crate) fn init_deaths() -> Panel {
    Panel::new(Kind::Columns, "Why inits died", Unit::Count, NO_AGENT)
        .describe(
            "Deaths of PID 1s by cause. Signal: also the SIGKILL that follows a SIGTERM which PID 1 ignored. Cascade: \
             an outer namespace ended. oom_kill: memory ran out.",
        )
        .query("{{reason}}", "sum by (reason) (increase(pidns_init_exits_total{@}[$__rate_interval]))")
        .colours(&[
            ("ok", "green"),
            ("error", "yellow"),
            ("signal", "orange"),
            ("cascade", "purple"),
            ("oom_kill", "red"),
        ])
        .min(0.0)
}

pub(crate) fn teardowns() -> Panel {
    Panel::new(Kind::Heatmap, "How long teardowns take", Unit::Seconds, NO_TEARDOWNS)
        .describe(
            "From the death of an init until the last member is reaped. Usually milliseconds. A second or more: a process \
             in the namespace does not die, or its parent outside does not reap it.",
        )
        .query(
            "{{le}}",
            "sum by (le) (increase(pidns_namespace_teardown_seconds_bucket{@}[$__rate_interval]))",
        )
}

pub(crate) fn lifetimes() -> Panel {
    Panel::new(Kind::Heatmap, "How long namespaces live", Unit::Seconds, NO_DESTRUCTIONS)
        .describe("From creation to destruction. Many short lives: a container restarts again and again, or probes run.")
        .query(
            "{{le}}",
            "sum by (le) (increase(pidns_namespace_lifetime_seconds_bucket{@}[$__rate_interval]))",
        )
}

pub(crate) fn zombies() -> Panel {
    Panel::new(Kind::Table, "Zombies by workload", Unit::Count, NO_ZOMBIES)
        .describe(
            "Namespaces with most zombies, the age of the oldest (at least), and how many processes are reaped. Many old \
             zombies and no reaping: PID 1 does not wait for its children.",
        )
        .labels(workload::LABELS)
        .column("Zombies", Unit::Count, &workload::largest(20, ZOMBIES))
        .column("Oldest", Unit::Age, &workload::of_those(ZOMBIE_AGE, &format!("({ZOMBIES})")))
        .column(
            "Reaped",
            Unit::PerSecond,
            &workload::of_those(
                "rate(pidns_namespace_reaps_total{@}[$__rate_interval])",
                &format!("({ZOMBIES})"),
            ),
        )
        .sort_by("Zombies")
}

pub(crate) fn budgets() -> Panel {
    Panel::new(Kind::Bars, "PID budget used", Unit::Ratio, NO_LIMITS)
        .describe(
            "The used share of the tightest limit on PIDs: pids.max by workload, pid_max and threads-max by machine. \
             At 100 % fork fails.",
        )
        .query(workload::LEGEND, &workload::largest(10, BUDGET_OF_CGROUP))
        .query("{{limit}} on {{instance}}", &format!("topk(5, max by (instance, limit) ({BUDGET_OF_MACHINE}))"))
        .thresholds(&[(0.8, "orange"), (0.95, "red")])
        .min(0.0)
        .max(1.0)
}

pub(crate) fn findings() -> Panel {
    Panel::new(Kind::Table, "Open findings", Unit::Count, NO_FINDINGS)
        .describe("Findings that are open now, by kind and machine.")
        .labels(&[("finding", "Finding"), ("severity", "Severity"), ("instance", "Machine")])
        .column("Open", Unit::Count, "sum by (finding, severity, instance) (pidns_findings{@}) > 0")
        .sort_by("Open")
}

pub(crate) fn refused_forks() -> Panel {
    Panel::new(Kind::Columns, "Refused forks", Unit::Count, NO_REFUSALS)
        .describe(
            "Why fork and clone failed. namespace_dead: the init has exited, and fork says \"cannot allocate memory\". \
             pids_cgroup: pids.max is reached. nproc_limit: RLIMIT_NPROC is reached. If the kernel accepts only tracepoints, \
             the agent needs --syscall-hooks to see them.",
        )
        .query("{{reason}}", "sum by (reason) (increase(pidns_fork_failures_total{@}[$__rate_interval])) > 0")
        .min(0.0)
        .width(8)
}

pub(crate) fn refused_creations() -> Panel {
    Panel::new(Kind::Columns, "Refused namespaces", Unit::Count, NO_REFUSALS)
        .describe(
            "Why a PID namespace could not be created. count_limit: user.max_pid_namespaces or \
             user.max_user_namespaces is reached. depth_limit: the deepest of 32 levels is reached. permission: the caller has no permission (some sandboxes only try). \
             If the kernel allows only tracepoints, the agent needs --syscall-hooks to see refusals.",
        )
        .query(
            "{{reason}}",
            "sum by (reason) (increase(pidns_namespace_creation_failures_total{@}[$__rate_interval])) > 0",
        )
        .min(0.0)
        .width(8)
}
