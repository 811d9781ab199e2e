//! A signal to PID 1 had no effect: default actions are not taken on an init (`sig_task_ignored()`, kernel/signal.c).

use std::collections::BTreeMap;

use super::{
    Scene,
    scene::{self, explain_ns, init_exit},
};
use crate::{
    event::{
        finding::{Diagnosis, Finding, Severity},
        identity::NsInum,
        snapshot::SnapshotNamespace,
    },
    model::{Incident, IncidentKind},
};

/// Signals that ask a process to end, or would end it.
const MEANT_TO_END: [&str; 7] = ["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGKILL"];
/// Signals that are listed.
const LISTED: usize = 8;

pub(super) fn find(scene: &Scene<'_>) -> Vec<Finding> {
    let mut by_namespace: BTreeMap<NsInum, Vec<&Incident>> = BTreeMap::new();
    for incident in scene.recent.incidents().filter(|incident| is_ignored(scene, incident)) {
        if let Some(ns) = &incident.ns {
            by_namespace.entry(ns.inum).or_default().push(incident);
        }
    }
    by_namespace.into_iter().filter_map(|(inum, signals)| of(scene, inum, &signals)).collect()
}

/// Whether it should have ended PID 1, which ran on.
fn is_ignored(scene: &Scene<'_>, incident: &Incident) -> bool {
    let IncidentKind::SignalIgnored { signal, from } = &incident.kind else { return false };
    let Some(ns) = &incident.ns else { return false };
    let death = scene.recent.last_namespace(ns.inum).and_then(|record| record.death.as_ref());
    // One that is exiting ignores all.
    let was_exiting = death.is_some_and(|death| {
        death.at <= incident.first && death.process.key().is_same(incident.process.key())
    });
    MEANT_TO_END.contains(&signal.as_str())
        && from != "kernel"
        && !was_exiting
        && !scene.is_over(incident.last, scene.thresholds.incident)
}

fn of(scene: &Scene<'_>, inum: NsInum, signals: &[&Incident]) -> Option<Finding> {
    let first = signals.iter().min_by_key(|incident| incident.first)?;
    let mut evidence = Vec::new();
    for incident in signals.iter().take(LISTED) {
        evidence.extend(scene::incident(incident));
    }
    let record = scene.recent.last_namespace(inum);
    // What was done about it.
    if let Some(death) = record.and_then(|record| record.death.as_ref())
        && death.at > first.first
    {
        evidence.push(init_exit(death));
    }
    let ns = record.map(|record| record.ns.clone());
    let ns = ns.or_else(|| first.ns.as_ref().map(SnapshotNamespace::of));
    Some(Finding {
        id: Diagnosis::InitIgnoredSignal,
        severity: Severity::Warning,
        since_boot_ns: first.first,
        ns,
        process: Some(first.process.clone()),
        evidence,
        next: vec![explain_ns(inum), format!("grep -E '^Sig(Cgt|Ign)' /proc/{}/status", first.process.pid)],
    })
}
