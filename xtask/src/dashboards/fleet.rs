//! The dashboard of all machines. Where is something wrong?

use super::{
    board::{Board, Row},
    common,
    panel::{Kind, Panel, Unit},
    reasons::{NO_AGENT, NO_RULES, NO_ZOMBIES, NONE},
};

pub(crate) fn board() -> Board {
    Board {
        uid: "pidns-trace-fleet",
        title: "pidns-trace / Fleet overview",
        description: "PID namespaces of all machines: how many live and die, and where something is wrong.",
        name: "fleet",
        variables: &[],
        rows: vec![
            Row { heading: "Now", panels: now() },
            Row {
                heading: "Life and death",
                panels: vec![
                    common::namespaces_by_state(),
                    common::births_and_deaths(),
                    common::init_deaths(),
                    common::teardowns(),
                ],
            },
            Row {
                heading: "Trouble",
                panels: vec![
                    common::zombies(),
                    common::budgets(),
                    ignored_signals(),
                    common::refused_forks(),
                    common::refused_creations(),
                    memory_kills(),
                    common::findings(),
                ],
            },
            Row { heading: "Machines", panels: vec![machines()] },
        ],
    }
}

fn now() -> Vec<Panel> {
    let stat = |title, unit, no_data| Panel::new(Kind::Stat, title, unit, no_data).width(4).decimals(0);
    vec![
        stat("Machines up", Unit::Count, NO_AGENT)
            .describe("Machines whose agent answers.")
            .query("machines", "sum(up{@} and on (job, instance) pidns_trace_build_info{@})"),
        stat("Namespaces", Unit::Count, NO_AGENT)
            .describe("PID namespaces that exist, without the initial ones.")
            .query("namespaces", "sum(pidns_namespaces{@})"),
        stat("Draining", Unit::Count, NO_AGENT)
            .describe("Namespaces whose init is dead while members are left. More than 0 for minutes: a teardown hangs.")
            .query("draining", r#"sum(pidns_namespaces{@, state="draining"})"#)
            .thresholds(&[(1.0, "orange")]),
        stat("Zombies", Unit::Count, NO_AGENT)
            .describe("Dead processes in namespaces that were not reaped.")
            .query("zombies", r#"sum(pidns_processes{@, state="zombie"})"#)
            .thresholds(&[(20.0, "orange"), (500.0, "red")]),
        stat("Oldest zombie", Unit::Age, NO_ZOMBIES)
            .describe("How long the oldest zombie has been seen. It is at least that old.")
            .query("oldest", "max(time() - pidns_namespace_zombie_oldest_timestamp_seconds{@})")
            .thresholds(&[(900.0, "orange")]),
        stat("Findings now", Unit::Count, NO_AGENT)
            .describe("Findings that are open now.")
            .query("findings", "sum(pidns_findings{@})")
            .thresholds(&[(1.0, "orange")]),
    ]
}

fn ignored_signals() -> Panel {
    Panel::new(Kind::Columns, "Ignored signals to inits", Unit::Count, NONE)
        .describe(
            "Signals from outside that a PID 1 has no handler for. An ignored SIGTERM means that each stop of that \
             container waits for its timeout (10 s with Docker, 30 s in Kubernetes) and ends in SIGKILL.",
        )
        .query(
            "{{instance}}",
            r#"sum by (instance) (increase(pidns_init_signals_total{@, fate="ignored", from="ancestor"}[$__rate_interval])) > 0"#,
        )
        .min(0.0)
        .width(8)
}

fn memory_kills() -> Panel {
    Panel::new(Kind::Columns, "Killed for memory", Unit::Count, NONE)
        .describe("Processes that the kernel killed because memory ran out: inits, and other members of namespaces.")
        .query(
            "inits on {{instance}}",
            r#"sum by (instance) (increase(pidns_init_exits_total{@, reason="oom_kill"}[$__rate_interval])) > 0"#,
        )
        .query(
            "all processes on {{instance}}",
            r#"sum by (instance) (increase(pidns_process_exits_total{@, reason="oom_kill", runtime!="host"}[$__rate_interval])) > 0"#,
        )
        .min(0.0)
}

fn machines() -> Panel {
    Panel::new(Kind::Table, "Machines", Unit::Count, NO_RULES)
        .describe("One row per machine, from the recording rules: which machine to check next. The node dashboard has the rest.")
        .labels(&[("instance", "Machine"), ("job", "Job")])
        .column("Namespaces", Unit::Count, "instance:pidns_namespaces:sum{@}")
        .column("Created", Unit::PerSecond, "instance:pidns_namespace_creations:rate5m{@}")
        .column("Zombies", Unit::Count, "instance:pidns_zombies:sum{@}")
        .column("Oldest zombie", Unit::Age, "instance:pidns_zombie_oldest_age_seconds:max{@}")
        .column("PID budget used", Unit::Ratio, "instance:pidns_namespace_pids:ratio_max{@}")
        .column("Teardown p99", Unit::Seconds, "instance:pidns_namespace_teardown_seconds:p99_1h{@}")
        .column("Events lost", Unit::Ratio, "instance:pidns_trace_events_lost:ratio_rate5m{@}")
        .sort_by("Zombies")
        .width(24)
}
