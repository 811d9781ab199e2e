//! Few levels are left for nesting: the kernel allows 32 (`MAX_PID_NS_LEVEL`).

use std::collections::BTreeSet;

use super::{DetectorInput, input::explain_ns};
use crate::{
    event::{
        MAX_LEVEL,
        finding::{Diagnosis, Fact, Finding, Severity},
    },
    model::Stage,
};

pub(super) fn find(input: &DetectorInput<'_>) -> Vec<Finding> {
    let is_near = |level: u32| level.saturating_add(input.thresholds.depth_left) >= MAX_LEVEL;
    let near = || input.world.namespaces().filter(|state| is_near(state.namespace.level));
    // Report only the innermost namespace of a nest.
    let outer: BTreeSet<_> = near().filter_map(|state| state.namespace.parent).collect();
    let innermost =
        near().filter(|state| !outer.contains(&state.namespace.inum) && state.stage == Stage::Alive);
    let found = innermost.map(|state| {
        let (inum, level) = (state.namespace.inum, state.namespace.level);
        Finding {
            id: Diagnosis::NearDepthLimit,
            severity: Severity::Warning,
            since_boot_ns: state.namespace.born_boot_ns.unwrap_or(input.now),
            ns: input.ns(inum),
            process: None,
            evidence: vec![input.model_evidence(Fact::Depth { level, limit: MAX_LEVEL })],
            next: vec![explain_ns(inum), "pidns-trace tree".to_owned()],
        }
    });
    found.collect()
}
