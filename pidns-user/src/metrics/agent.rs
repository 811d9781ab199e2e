//! Metrics about the agent itself: its version, hooks, losses, maps and programs.

use super::{
    catalog,
    families::Families,
    tally::{EventCounts, seconds},
};
use crate::kernel::gauges::Gauges;

/// Facts about the agent that do not change while it runs, and the gauges for the others.
pub struct AgentFacts {
    /// Each hook with its form, as `check` prints it. If a hook does not run, the form is "off: REASON".
    pub hooks: Vec<(String, String)>,
    /// The hooks that do not run, with the facts that are missing as a result.
    pub unseen: Vec<(String, String)>,
    /// The kernel side's maps and programs.
    pub gauges: Gauges,
}

impl AgentFacts {
    /// The form of a hook without the reason why it is off, for a label.
    fn form(form: &str) -> &str {
        form.split_once(':').map_or(form, |(form, _)| form)
    }

    pub(super) fn collect(&self, families: &mut Families) {
        let version = env!("CARGO_PKG_VERSION");
        let revision = option_env!("PIDNS_TRACE_REVISION").unwrap_or("unknown");
        let rustc = env!("PIDNS_TRACE_RUSTC");
        families.add(&catalog::BUILD_INFO, &[version, revision, rustc, std::env::consts::ARCH], 1.0);
        for (hook, form) in &self.hooks {
            families.add(&catalog::HOOK_INFO, &[hook, Self::form(form)], 1.0);
        }
        if let Some(ring) = self.gauges.ring() {
            families.add(&catalog::RING_CAPACITY, &[], ring.capacity as f64);
            families.add(&catalog::RING_USED, &[], ring.used as f64);
        }
        for map in self.gauges.maps() {
            families.add(&catalog::MAP_ENTRIES, &[&map.name], map.entries as f64);
            families.add(&catalog::MAP_CAPACITY, &[&map.name], map.capacity as f64);
        }
        for program in self.gauges.programs() {
            families.add(&catalog::PROGRAM_RUNS, &[&program.name], program.runs as f64);
            families.add(&catalog::PROGRAM_SECONDS, &[&program.name], seconds(program.ns));
        }
    }
}

/// Adds the metrics about the agent's events.
pub(super) fn collect_events(tally: &EventCounts, families: &mut Families) {
    for (event, count) in &tally.events {
        families.add(&catalog::EVENTS, &[event], *count as f64);
    }
    for (stage, count) in &tally.lost {
        families.add(&catalog::EVENTS_LOST, &[stage], *count as f64);
    }
    families.add_histogram(&catalog::EVENT_DELAY, &tally.delays);
    for (kind, count) in &tally.corrections {
        families.add(&catalog::RESYNC_CORRECTIONS, &[kind], *count as f64);
    }
}
