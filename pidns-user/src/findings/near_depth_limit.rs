//! Few levels are left to nest in: the kernel allows 32 (`MAX_PID_NS_LEVEL`).

use std::collections::BTreeSet;

use super::{Scene, scene::explain_ns};
use crate::{
    event::{
        MAX_LEVEL,
        finding::{Diagnosis, Fact, Finding, Severity},
    },
    model::Stage,
};

pub(super) fn find(scene: &Scene<'_>) -> Vec<Finding> {
    let is_near = |level: u32| level + scene.thresholds.depth_left >= MAX_LEVEL;
    let near = || scene.world.namespaces().filter(|state| is_near(state.namespace.level));
    // The innermost speaks for those around it.
    let outer: BTreeSet<_> = near().filter_map(|state| state.namespace.parent).collect();
    let innermost =
        near().filter(|state| !outer.contains(&state.namespace.inum) && state.stage == Stage::Alive);
    let found = innermost.map(|state| {
        let (inum, level) = (state.namespace.inum, state.namespace.level);
        Finding {
            id: Diagnosis::NearDepthLimit,
            severity: Severity::Warning,
            since_boot_ns: state.namespace.born_boot_ns.unwrap_or(scene.now),
            ns: scene.ns(inum),
            process: None,
            evidence: vec![scene.known(Fact::Depth { level, limit: MAX_LEVEL })],
            next: vec![explain_ns(inum), "pidns-trace tree".to_owned()],
        }
    });
    found.collect()
}
