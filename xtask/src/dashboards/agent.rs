//! The dashboard about the agents themselves: whether each agent sees everything, and what it costs.

use super::{
    board::{Board, Row},
    panel::{Kind, Panel, Unit},
    reasons::{NO_AGENT, NO_FAILURES, NO_STATISTICS, NONE},
};

pub(crate) fn board() -> Board {
    Board {
        uid: "pidns-trace-agent",
        title: "pidns-trace / Agent health",
        description: "The agents themselves: whether they run, what they lose, which hooks they have, what they cost.",
        name: "agent",
        variables: &[],
        rows: vec![
            Row { heading: "Now", panels: now() },
            Row { heading: "Events", panels: events() },
            Row { heading: "Hooks and tables", panels: hooks() },
            Row { heading: "Cost", panels: cost() },
        ],
    }
}

fn now() -> Vec<Panel> {
    let stat = |title, unit, no_data| Panel::new(Kind::Stat, title, unit, no_data).width(4).decimals(0);
    vec![
        stat("Agents up", Unit::Count, NO_AGENT)
            .describe("Agents that answered the last scrape.")
            .query("up", "sum(up{@} and on (job, instance) last_over_time(pidns_trace_build_info{@}[1d]))"),
        stat("Agents down", Unit::Count, "none: all answered")
            .describe("Agents that answered within a day and not at the last scrape.")
            .query("down", "count(up{@} == 0 and on (job, instance) last_over_time(pidns_trace_build_info{@}[1d]))")
            .thresholds(&[(1.0, "red")]),
        stat("Lost in this time", Unit::Count, NO_AGENT)
            .describe("Events that were lost in the time shown, at all stages. A snapshot repairs the model after each loss.")
            .query("lost", "sum(increase(pidns_trace_events_lost_total{@}[$__range]))")
            .thresholds(&[(1.0, "orange")]),
        stat("Ring buffer", Unit::Ratio, NO_AGENT)
            .describe("How full the fullest ring buffer is. At 100 % events are lost.")
            .query("used", "max(pidns_trace_ring_used_bytes{@} / pidns_trace_ring_capacity_bytes{@})")
            .thresholds(&[(0.5, "orange"), (0.9, "red")]),
        stat("Counted together", Unit::Count, NO_AGENT)
            .describe(
                "Namespaces for which the kernel's tables had no room: their processes are counted together, under the runtime \
                 other.",
            )
            .query("namespaces", "sum(pidns_trace_namespaces_counted_together{@})")
            .thresholds(&[(1.0, "orange")]),
        stat("Last snapshot", Unit::Seconds, NO_AGENT)
            .describe("The duration of the slowest agent's last snapshot.")
            .query("took", "max(pidns_trace_snapshot_seconds{@})")
            .decimals(3),
        Panel::new(Kind::Table, "Versions", Unit::Count, NO_AGENT)
            .describe("Which agent runs where, and since when.")
            .labels(&[
                ("instance", "Machine"),
                ("version", "Version"),
                ("revision", "Revision"),
                ("rustversion", "Rust"),
                ("arch", "Architecture"),
            ])
            .column(
                "Up for",
                Unit::Age,
                "(time() - process_start_time_seconds{@})
                 * on (job, instance) group_left (version, revision, rustversion, arch) pidns_trace_build_info{@}",
            )
            .width(24),
    ]
}

fn events() -> Vec<Panel> {
    vec![
        Panel::new(Kind::Lines, "Events", Unit::PerSecond, NO_AGENT)
            .describe("Events processed, by name.")
            .query("{{event}}", "sum by (event) (rate(pidns_trace_events_total{@}[$__rate_interval]))")
            .min(0.0),
        Panel::new(Kind::Columns, "Events lost", Unit::Count, NONE)
            .describe(
                "Ring: the ring buffer was full (--ring-size). Table: a table in the kernel was full. Hook: the kernel skipped a \
                 program. Malformed: a record could not be read.",
            )
            .query("{{stage}}", "sum by (stage) (increase(pidns_trace_events_lost_total{@}[$__rate_interval])) > 0")
            .colours(&[("ring", "red"), ("table", "orange"), ("hook", "purple"), ("malformed", "blue")])
            .min(0.0),
        Panel::new(Kind::Heatmap, "Delay of events", Unit::Seconds, "no events in this time")
            .describe("From the hook in the kernel to the processing of its event.")
            .query(
                "{{le}}",
                "sum by (le) (increase(pidns_trace_event_delay_seconds_bucket{@}[$__rate_interval]))",
            ),
        Panel::new(Kind::Lines, "Ring buffer used", Unit::Ratio, NO_AGENT)
            .describe("How full each agent's ring buffer is when it is scraped.")
            .query(
                "{{instance}}",
                "max by (instance) (pidns_trace_ring_used_bytes{@} / pidns_trace_ring_capacity_bytes{@})",
            )
            .min(0.0)
            .max(1.0),
        Panel::new(Kind::Columns, "Corrections by snapshots", Unit::Count, NONE)
            .describe("Differences between the agent's model and the kernel's own lists. Expected only after a loss.")
            .query("{{kind}}", "sum by (kind) (increase(pidns_trace_resync_corrections_total{@}[$__rate_interval])) > 0")
            .min(0.0),
        Panel::new(Kind::Columns, "Failed lookups of containers", Unit::Count, NO_FAILURES)
            .describe("Containers whose name, pod or runtime could not be found out, by source.")
            .query(
                "{{source}}",
                "sum by (source) (increase(pidns_trace_enrichment_failures_total{@}[$__rate_interval])) > 0",
            )
            .min(0.0),
    ]
}

fn hooks() -> Vec<Panel> {
    vec![
        Panel::new(Kind::Table, "Hooks", Unit::Count, NO_AGENT)
            .describe(
                "The number of machines on which each hook runs in each form. Off is normal for function hooks if the kernel \
                 refuses them, and for sched_process_free and sys_exit if it accepts them.",
            )
            .labels(&[("hook", "Hook"), ("form", "Form")])
            .column("Machines", Unit::Count, "count by (hook, form) (pidns_trace_hook_info{@})"),
        Panel::new(Kind::Bars, "Tables of the kernel side", Unit::Ratio, NO_AGENT)
            .describe(
                "How full each table is, on the machine where it is fullest. If a table is full, facts are lost. children_ns is an \
                 exception: when it is full, it drops its oldest entry for a new one.",
            )
            .query(
                "{{map}}",
                "max by (map) (pidns_trace_map_entries{@, map!=\"children_ns\"} / pidns_trace_map_capacity_entries{@})",
            )
            .thresholds(&[(0.7, "orange"), (0.9, "red")])
            .min(0.0)
            .max(1.0),
    ]
}

fn cost() -> Vec<Panel> {
    vec![
        Panel::new(Kind::Lines, "Processor time in user space", Unit::Cores, NO_AGENT)
            .describe("Cores that each agent uses.")
            .query(
                "{{instance}}",
                "sum by (instance) (rate(process_cpu_seconds_total{@}[$__rate_interval])
                 and on (job, instance) pidns_trace_build_info{@})",
            )
            .min(0.0)
            .width(8),
        Panel::new(Kind::Lines, "Memory", Unit::Bytes, NO_AGENT)
            .describe("Resident memory of each agent.")
            .query(
                "{{instance}}",
                "sum by (instance) (process_resident_memory_bytes{@} and on (job, instance) pidns_trace_build_info{@})",
            )
            .min(0.0)
            .width(8),
        Panel::new(Kind::Lines, "Open files", Unit::Ratio, NO_AGENT)
            .describe("Open files of each agent, as a share of its limit.")
            .query(
                "{{instance}}",
                "max by (instance) (process_open_fds{@} / process_max_fds{@} and on (job, instance) pidns_trace_build_info{@})",
            )
            .min(0.0)
            .width(8),
        Panel::new(Kind::Lines, "One run of each BPF program", Unit::Seconds, NO_STATISTICS)
            .describe("What one run costs on average: every fork, exit or signal of the machine pays it.")
            .query(
                "{{program}}",
                "sum by (program) (rate(pidns_trace_bpf_program_seconds_total{@}[$__rate_interval]))
                 / sum by (program) (rate(pidns_trace_bpf_program_runs_total{@}[$__rate_interval])) > 0",
            )
            .min(0.0)
            .width(8),
        Panel::new(Kind::Lines, "Processor time in the kernel", Unit::Cores, NO_STATISTICS)
            .describe("Cores that the agent's BPF programs use on each machine.")
            .query(
                "{{instance}}",
                "sum by (instance) (rate(pidns_trace_bpf_program_seconds_total{@}[$__rate_interval]))",
            )
            .min(0.0)
            .width(8),
        Panel::new(Kind::Lines, "Duration of a scrape", Unit::Seconds, NO_AGENT)
            .describe("How long Prometheus waits for each agent's metrics.")
            .query(
                "{{instance}}",
                "max by (instance) (scrape_duration_seconds{@} and on (job, instance) pidns_trace_build_info{@})",
            )
            .min(0.0)
            .width(8),
    ]
}
