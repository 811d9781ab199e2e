//! The dashboard of one machine or a few. It shows their activity by container runtime.

use super::{
    board::{Board, Row},
    common,
    panel::{Kind, Panel, Unit},
    reasons::{NO_AGENT, NO_NAMESPACE_SERIES, NO_TEARDOWNS, NONE},
    workload,
};

pub(crate) fn board() -> Board {
    Board {
        uid: "pidns-trace-node",
        title: "pidns-trace / Node",
        description: "PID namespaces and processes of one machine, by container runtime. Choose a machine above.",
        name: "node",
        variables: &[],
        rows: vec![
            Row { heading: "Namespaces", panels: namespaces() },
            Row {
                heading: "Trouble",
                panels: vec![
                    common::zombies(),
                    common::budgets(),
                    signals(),
                    common::refused_forks(),
                    common::refused_creations(),
                    common::findings(),
                    blocked(),
                ],
            },
            Row { heading: "Processes", panels: processes() },
            Row { heading: "Largest namespaces", panels: vec![largest()] },
        ],
    }
}

fn namespaces() -> Vec<Panel> {
    vec![
        common::namespaces_by_state(),
        common::births_and_deaths(),
        common::init_deaths(),
        common::teardowns(),
        common::lifetimes(),
        Panel::new(Kind::Lines, "Members killed by a dying init", Unit::Count, NO_TEARDOWNS)
            .describe("How many processes one teardown kills: the median, and the number that nine of ten teardowns do not exceed.")
            .query("half", &quantile(0.5, "pidns_namespace_teardown_killed_processes"))
            .query("nine of ten", &quantile(0.9, "pidns_namespace_teardown_killed_processes"))
            .min(0.0),
        Panel::new(Kind::Lines, "How namespaces are made", Unit::PerSecond, NONE)
            .describe("Creations by system call. Container runtimes use clone3, clone or unshare; shells use unshare.")
            .query("{{method}}", "sum by (method) (rate(pidns_namespace_creations_total{@}[$__rate_interval])) > 0")
            .min(0.0)
            .width(8),
        Panel::new(Kind::Lines, "Joins", Unit::PerSecond, NO_AGENT)
            .describe("setns into a PID namespace: exec sessions, probes, nsenter.")
            .query("{{result}}", "sum by (result) (rate(pidns_joins_total{@}[$__rate_interval]))")
            .colours(&[("ok", "green"), ("refused", "red")])
            .min(0.0)
            .width(8),
        Panel::new(Kind::Lines, "Deepest nesting", Unit::Count, NO_AGENT)
            .describe("Levels below the initial namespace. The kernel allows 32.")
            .query("{{instance}}", "max by (instance) (pidns_namespace_max_level{@})")
            .min(0.0)
            .width(8),
    ]
}

fn quantile(share: f64, histogram: &str) -> String {
    format!("histogram_quantile({share}, sum by (le) (rate({histogram}_bucket{{@}}[$__rate_interval])))")
}

fn signals() -> Panel {
    Panel::new(Kind::Columns, "Signals to inits", Unit::Count, NONE)
        .describe(
            "The effect of signals to PID 1s, and their origin. Ignored, from an ancestor: PID 1 has no handler, \
             so a stop waits for its timeout.",
        )
        .query(
            "{{fate}}, from {{from}}",
            "sum by (fate, from) (increase(pidns_init_signals_total{@}[$__rate_interval])) > 0",
        )
        .min(0.0)
        .width(8)
}

fn blocked() -> Panel {
    Panel::new(Kind::Lines, "Processes that wait uninterruptibly", Unit::Count, NONE)
        .describe("Processes in state D, by runtime: not even SIGKILL ends them. They hold up teardowns.")
        .query("{{runtime}}", r#"sum by (runtime) (pidns_processes{@, state="blocked"}) > 0"#)
        .min(0.0)
}

fn processes() -> Vec<Panel> {
    vec![
        Panel::new(Kind::Stacked, "Processes by runtime", Unit::Count, NONE)
            .describe("Processes in namespaces, by the container runtime that made them. None: no container.")
            .query("{{runtime}}", "sum by (runtime) (pidns_processes{@}) > 0")
            .min(0.0)
            .width(8),
        Panel::new(Kind::Stacked, "Processes by state", Unit::Count, NO_AGENT)
            .describe("Processes in namespaces, by their state in the kernel.")
            .query("{{state}}", "sum by (state) (pidns_processes{@})")
            .colours(&[
                ("running", "green"),
                ("sleeping", "blue"),
                ("blocked", "orange"),
                ("stopped", "purple"),
                ("zombie", "red"),
            ])
            .min(0.0)
            .width(8),
        Panel::new(Kind::Stacked, "Threads by runtime", Unit::Count, NONE)
            .describe("Threads in namespaces. Limits on PIDs count them, not processes.")
            .query("{{runtime}}", "sum by (runtime) (pidns_threads{@}) > 0")
            .min(0.0)
            .width(8),
        Panel::new(Kind::Lines, "Forks", Unit::PerSecond, NONE)
            .describe("Processes forked, by runtime. Host: in the initial namespace.")
            .query("{{runtime}}", "sum by (runtime) (rate(pidns_process_forks_total{@}[$__rate_interval])) > 0")
            .min(0.0)
            .width(8),
        Panel::new(Kind::Lines, "Programs run", Unit::PerSecond, NONE)
            .describe("Successful execve calls, by runtime.")
            .query("{{runtime}}", "sum by (runtime) (rate(pidns_process_execs_total{@}[$__rate_interval])) > 0")
            .min(0.0)
            .width(8),
        Panel::new(Kind::Lines, "Threads made", Unit::PerSecond, NONE)
            .describe("Threads created, without the first thread of each process, by runtime.")
            .query("{{runtime}}", "sum by (runtime) (rate(pidns_thread_creations_total{@}[$__rate_interval])) > 0")
            .min(0.0)
            .width(8),
        Panel::new(Kind::Columns, "Why processes ended", Unit::Count, NO_AGENT)
            .describe("Ends of processes in namespaces by reason, without those of the initial namespace.")
            .query(
                "{{reason}}",
                r#"sum by (reason) (increase(pidns_process_exits_total{@, runtime!="host"}[$__rate_interval]))"#,
            )
            .colours(&[
                ("ok", "green"),
                ("error", "yellow"),
                ("signal", "orange"),
                ("cascade", "purple"),
                ("oom_kill", "red"),
            ])
            .min(0.0),
        Panel::new(Kind::Lines, "Ended and reaped", Unit::PerSecond, NO_AGENT)
            .describe("If more processes end than are reaped, zombies pile up.")
            .query("ended", r#"sum(rate(pidns_process_exits_total{@, runtime!="host"}[$__rate_interval]))"#)
            .query("reaped", r#"sum(rate(pidns_process_reaps_total{@, runtime!="host"}[$__rate_interval]))"#)
            .min(0.0),
    ]
}

fn largest() -> Panel {
    // With fleet/prometheus-agent.yml, a store of many machines has only the zombies of this metric, and no threads.
    // Then the panel shows nothing, instead of a sum over one state.
    const PROCESSES: &str = "(sum without (state) (pidns_namespace_processes{@}) \
                             and on (job, instance, pidns) pidns_namespace_threads{@})";
    let others = &workload::largest(20, PROCESSES);
    Panel::new(Kind::Table, "Largest namespaces", Unit::Count, NO_NAMESPACE_SERIES)
        .describe("The namespaces with most processes. The namespace dashboard has more of each.")
        .labels(workload::LABELS)
        .column("Processes", Unit::Count, others)
        .column("Threads", Unit::Count, &workload::of_those("pidns_namespace_threads{@}", others))
        .column("PID budget used", Unit::Ratio, &workload::of_those(common::BUDGET, others))
        .column(
            "Forks",
            Unit::PerSecond,
            &workload::of_those("rate(pidns_namespace_forks_total{@}[$__rate_interval])", others),
        )
        .sort_by("Processes")
        .width(24)
}
