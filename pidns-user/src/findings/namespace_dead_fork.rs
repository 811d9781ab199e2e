//! A process forks into a namespace whose PID 1 has ended. The kernel answers ENOMEM, whatever memory there is
//! (`alloc_pid()`, kernel/pid.c).

use std::collections::BTreeMap;

use super::{
    Scene,
    scene::{self, explain_ns, explain_process, init_exit},
};
use crate::{
    event::{
        finding::{Diagnosis, Finding, Severity},
        identity::NsInum,
        snapshot::SnapshotNamespace,
    },
    model::{Incident, IncidentKind},
};

/// Processes that are listed.
const LISTED: usize = 8;

pub(super) fn find(scene: &Scene<'_>) -> Vec<Finding> {
    let mut by_namespace: BTreeMap<NsInum, Vec<&Incident>> = BTreeMap::new();
    for incident in scene.recent.incidents() {
        if let (IncidentKind::ForkRefused { reason, .. }, Some(ns)) = (&incident.kind, &incident.ns)
            && reason == "namespace_dead"
            && is_open(scene, incident, ns.inum)
        {
            by_namespace.entry(ns.inum).or_default().push(incident);
        }
    }
    by_namespace.into_iter().filter_map(|(inum, incidents)| of(scene, inum, &incidents)).collect()
}

/// Whether it was refused a short while ago, or the next fork will be.
fn is_open(scene: &Scene<'_>, incident: &Incident, inum: NsInum) -> bool {
    let still_goes_there = || {
        let state = scene.world.process(incident.process.pid);
        state.is_some_and(|state| {
            state.key().is_same(incident.process.key())
                && state.ended.is_none()
                && state.children_ns == Some(inum)
        })
    };
    !scene.is_over(incident.last, scene.thresholds.incident) || still_goes_there()
}

fn of(scene: &Scene<'_>, inum: NsInum, incidents: &[&Incident]) -> Option<Finding> {
    let first = incidents.iter().min_by_key(|incident| incident.first)?;
    let record = scene.recent.last_namespace(inum);
    let mut evidence = Vec::new();
    if let Some(death) = record.and_then(|record| record.death.as_ref()) {
        evidence.push(init_exit(death));
    }
    let mut latest = incidents.to_vec();
    latest.sort_by_key(|incident| std::cmp::Reverse(incident.last));
    for incident in latest.iter().take(LISTED) {
        evidence.extend(scene::incident(incident));
    }
    let ns = record.map(|record| record.ns.clone());
    let ns = ns.or_else(|| first.ns.as_ref().map(SnapshotNamespace::of));
    let process = latest.first()?.process.pid;
    Some(Finding {
        id: Diagnosis::NamespaceDeadFork,
        severity: Severity::Warning,
        since_boot_ns: first.first,
        ns,
        process: None,
        evidence,
        next: vec![explain_process(process), explain_ns(inum)],
    })
}
