//! Memory ran out, and a process was killed that is no PID 1: its namespace lives on without it, and no runtime restarts it.

use std::collections::BTreeMap;

use super::{
    Scene,
    scene::{explain_ns, hooked},
};
use crate::{
    event::{
        finding::{Diagnosis, Fact, Finding, Severity},
        identity::NsInum,
    },
    model::{Incident, IncidentKind, Stage},
};

/// Processes that are listed.
const LISTED: usize = 8;

pub(super) fn find(scene: &Scene<'_>) -> Vec<Finding> {
    let mut by_namespace: BTreeMap<NsInum, Vec<&Incident>> = BTreeMap::new();
    for incident in scene.recent.incidents() {
        if incident.kind == IncidentKind::MemberOom
            && !scene.is_over(incident.last, scene.thresholds.incident)
        {
            by_namespace.entry(incident.process.ns).or_default().push(incident);
        }
    }
    by_namespace.into_iter().filter_map(|(inum, killed)| of(scene, inum, &killed)).collect()
}

fn of(scene: &Scene<'_>, inum: NsInum, killed: &[&Incident]) -> Option<Finding> {
    if scene.world.namespace(inum)?.stage != Stage::Alive {
        return None;
    }
    let count = killed.len() as u64;
    let mut latest = killed.to_vec();
    latest.sort_by_key(|incident| std::cmp::Reverse(incident.last));
    let facts = latest
        .iter()
        .take(LISTED)
        .map(|incident| hooked(incident.last, Fact::OomKill { process: incident.process.clone(), count }));
    Some(Finding {
        id: Diagnosis::MemberOomKilled,
        severity: Severity::Warning,
        since_boot_ns: killed.iter().map(|incident| incident.first).min()?,
        ns: scene.ns(inum),
        process: None,
        evidence: facts.collect(),
        next: vec![explain_ns(inum), "dmesg --ctime | grep -i 'killed process'".to_owned()],
    })
}
