//! The dashboard of single namespaces. It needs per-namespace series.

use super::{
    board::{Board, Row},
    panel::{Kind, Panel, Unit},
    reasons::{NO_AGENT, NO_LIMITS, NO_NAMESPACE_SERIES, NO_ZOMBIES},
    workload,
};

pub(crate) fn board() -> Board {
    Board {
        uid: "pidns-trace-namespace",
        title: "pidns-trace / Namespace",
        description: "Single PID namespaces. Needs per-namespace series: --metrics.namespace-limit above 0 (it is 200 by \
                      default, the largest first).",
        name: "namespace",
        variables: &[(
            "pidns",
            "Namespace",
            r#"label_values(pidns_namespace_info{job=~"$job", instance=~"$instance"}, pidns)"#,
        )],
        rows: vec![
            Row { heading: "Which namespaces", panels: vec![which(), dropped(), shown()] },
            Row { heading: "Processes", panels: processes() },
            Row { heading: "Zombies and PID budget", panels: trouble() },
        ],
    }
}

fn which() -> Panel {
    Panel::new(Kind::Table, "Namespaces", Unit::Count, NO_NAMESPACE_SERIES)
        .describe("What each namespace is: its number (as in pid:[4026532847]), its parent's, its nesting, its container.")
        .labels(&[
            ("pidns", "Namespace"),
            ("container", "Container"),
            ("pod", "Pod"),
            ("namespace", "Kubernetes namespace"),
            ("runtime", "Runtime"),
            ("parent", "Parent"),
            ("level", "Level"),
            ("instance", "Machine"),
        ])
        .column(
            "Age",
            Unit::Age,
            r#"(time() - pidns_namespace_created_timestamp_seconds{@, pidns=~"$pidns"})
               * on (job, instance, pidns) group_left (container, pod, namespace, runtime, parent, level)
               pidns_namespace_info{@, pidns=~"$pidns"}"#,
        )
        .sort_by("Age")
        .width(16)
}

fn dropped() -> Panel {
    Panel::new(Kind::Stat, "Left out", Unit::Count, NO_AGENT)
        .describe("Namespaces without series of their own, because of --metrics.namespace-limit.")
        .query("left out", "sum(pidns_namespace_series_dropped{@})")
        .thresholds(&[(1.0, "orange")])
        .decimals(0)
        .width(4)
}

fn shown() -> Panel {
    Panel::new(Kind::Stat, "Shown", Unit::Count, NO_NAMESPACE_SERIES)
        .describe("Namespaces of the selection above.")
        .query("shown", r#"count(pidns_namespace_info{@, pidns=~"$pidns"})"#)
        .decimals(0)
        .width(4)
}

fn lines(title: &'static str, unit: Unit, no_data: &'static str, query: &str) -> Panel {
    let query = format!("topk(20, max by (instance, pidns, workload) ({}))", workload::named(query));
    Panel::new(Kind::Lines, title, unit, no_data).query(workload::LEGEND, &query).min(0.0)
}

fn processes() -> Vec<Panel> {
    vec![
        Panel::new(Kind::Stacked, "Processes by state", Unit::Count, NO_NAMESPACE_SERIES)
            .describe("Processes of the chosen namespaces together, without those in namespaces below them.")
            .query("{{state}}", r#"sum by (state) (pidns_namespace_processes{@, pidns=~"$pidns"})"#)
            .colours(&[
                ("running", "green"),
                ("sleeping", "blue"),
                ("blocked", "orange"),
                ("stopped", "purple"),
                ("zombie", "red"),
            ])
            .min(0.0),
        lines("Threads", Unit::Count, NO_NAMESPACE_SERIES, r#"pidns_namespace_threads{@, pidns=~"$pidns"}"#)
            .describe("Threads of each namespace, including the first thread of each process. Limits on PIDs count threads."),
        lines(
            "Forks",
            Unit::PerSecond,
            NO_NAMESPACE_SERIES,
            r#"rate(pidns_namespace_forks_total{@, pidns=~"$pidns"}[$__rate_interval])"#,
        )
        .describe("Processes forked into each namespace."),
        lines(
            "Reaps",
            Unit::PerSecond,
            NO_NAMESPACE_SERIES,
            r#"rate(pidns_namespace_reaps_total{@, pidns=~"$pidns"}[$__rate_interval])"#,
        )
        .describe("Processes of each namespace that were reaped. If they stay below the forks for long, zombies or processes pile up."),
    ]
}

fn trouble() -> Vec<Panel> {
    vec![
        lines(
            "Zombies",
            Unit::Count,
            NO_NAMESPACE_SERIES,
            r#"pidns_namespace_processes{@, pidns=~"$pidns", state="zombie"}"#,
        )
        .describe("Dead processes of each namespace that were not reaped."),
        lines(
            "Age of the oldest zombie",
            Unit::Age,
            NO_ZOMBIES,
            r#"time() - pidns_namespace_zombie_oldest_timestamp_seconds{@, pidns=~"$pidns"}"#,
        )
        .describe("How long the oldest zombie of each namespace has been seen. It is at least that old."),
        lines(
            "PID budget used",
            Unit::Ratio,
            NO_LIMITS,
            r#"pidns_namespace_pids_current{@, pidns=~"$pidns"} / pidns_namespace_pids_limit{@, pidns=~"$pidns"}"#,
        )
        .describe("The used share of the tightest limit on PIDs of each namespace. At 100 % fork fails.")
        .max(1.0),
        Panel::new(Kind::Table, "Limits", Unit::Count, NO_LIMITS)
            .describe("The tightest limit on PIDs of each namespace, which one it is, and how many are in use.")
            .labels(&[("pidns", "Namespace"), ("limit", "Limit"), ("instance", "Machine")])
            .column("In use", Unit::Count, r#"max by (instance, pidns, limit) (pidns_namespace_pids_current{@, pidns=~"$pidns"})"#)
            .column("Of", Unit::Count, r#"max by (instance, pidns, limit) (pidns_namespace_pids_limit{@, pidns=~"$pidns"})"#)
            .sort_by("In use"),
    ]
}
