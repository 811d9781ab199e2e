//! A process unshared or joined a PID namespace and forked no process there: until then it can make no thread (EINVAL,
//! `copy_process()` in kernel/fork.c), and its next child is PID 1 of a new namespace, or lands in another one.
//!
//! One that has forked keeps that by design: `unshare --fork` waits for its child.

use std::collections::BTreeMap;

use super::{
    Scene,
    scene::{self, described, explain_process},
};
use crate::{
    event::{
        finding::{Diagnosis, Evidence, Fact, Finding, Severity},
        identity::{BootNs, NsInum, ProcessKey},
    },
    model::{IncidentKind, ProcessState, Stage},
};

pub(super) fn find(scene: &Scene<'_>) -> Vec<Finding> {
    let mut refused: BTreeMap<ProcessKey, Evidence> = BTreeMap::new();
    for incident in scene.recent.incidents() {
        if let IncidentKind::ForkRefused { reason, thread: true, .. } = &incident.kind
            && reason == "children_elsewhere"
            && !scene.is_over(incident.last, scene.thresholds.incident)
        {
            refused.extend(scene::incident(incident).map(|fact| (incident.process.key(), fact)));
        }
    }
    let elsewhere = scene.world.processes().filter(|state| state.ended.is_none());
    let elsewhere = elsewhere.filter_map(|state| Some((state, state.children_ns?)));
    elsewhere.filter_map(|(state, ns)| of(scene, state, ns, refused.remove(&state.key()))).collect()
}

fn of(scene: &Scene<'_>, state: &ProcessState, ns: NsInum, refused: Option<Evidence>) -> Option<Finding> {
    let since = since(scene, state, ns).filter(|since| scene.is_over(*since, scene.thresholds.elsewhere));
    let since = since.or(refused.as_ref().map(|evidence| evidence.boot_ns))?;
    let process = described(state);
    let severity = if refused.is_some() { Severity::Warning } else { Severity::Info };
    let goes = scene.known(Fact::ChildrenGoTo { process: process.clone(), ns });
    Some(Finding {
        id: Diagnosis::ChildrenElsewhere,
        severity,
        since_boot_ns: since,
        ns: scene.ns(ns),
        next: vec![explain_process(process.pid)],
        process: Some(process),
        evidence: [goes].into_iter().chain(refused).collect(),
    })
}

/// Since when its children go there, where it has forked none since.
fn since(scene: &Scene<'_>, state: &ProcessState, ns: NsInum) -> Option<BootNs> {
    let target = scene.world.namespace(ns)?;
    // Into one whose PID 1 has ended no fork succeeds: that is another finding.
    if !matches!(target.stage, Stage::Empty | Stage::Alive) {
        return None;
    }
    let forks_are_seen = scene.world.follows_processes() || target.members == 0;
    match scene.recent.elsewhere(state.key()) {
        Some((since, false)) if forks_are_seen => Some(since),
        Some(_) => None,
        // A snapshot found it so. Who has had no process yet has none of its children.
        None if target.members == 0 && target.init_start().is_none() => {
            scene.recent.namespace(ns)?.empty_since
        }
        None => None,
    }
}
