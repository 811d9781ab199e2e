//! A namespace is gone, and the helper that its runtime had for it is not: a shim, a conmon.

use std::collections::BTreeSet;

use super::{Scene, scene::explain_process};
use crate::{
    event::{
        finding::{Diagnosis, Finding, Role, Severity},
        identity::ProcessKey,
    },
    model::is_runtime_helper,
};

pub(super) fn find(scene: &Scene<'_>) -> Vec<Finding> {
    let mut seen: BTreeSet<ProcessKey> = BTreeSet::new();
    let mut found = Vec::new();
    for record in scene.recent.gone() {
        let Some(gone) = record.gone.filter(|gone| scene.is_over(*gone, scene.thresholds.creator)) else {
            continue;
        };
        for helper in [&record.init_parent, &record.creator].into_iter().flatten() {
            let key = helper.key();
            if !is_runtime_helper(&helper.comm)
                || !scene.is_alive(key)
                || has_others(scene, key)
                || !seen.insert(key)
            {
                continue;
            }
            let Some(process) = scene.process(helper.pid) else { continue };
            found.push(Finding {
                id: Diagnosis::CreatorLeftover,
                severity: Severity::Warning,
                since_boot_ns: gone,
                ns: Some(record.ns.clone()),
                process: Some(process.clone()),
                evidence: vec![scene.role(Role::Creator, process)],
                next: vec![explain_process(helper.pid)],
            });
        }
    }
    found
}

/// Whether it has a child in another namespace: a shim of a pod keeps several containers.
fn has_others(scene: &Scene<'_>, helper: ProcessKey) -> bool {
    scene.world.processes().any(|state| state.parent == Some(helper.pid) && state.process.pids.len() > 1)
}
