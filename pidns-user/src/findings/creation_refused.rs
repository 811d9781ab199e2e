//! A PID namespace could not be created: 32 levels are the deepest, and a user namespace allows so many
//! (user.max_pid_namespaces). The kernel answers ENOSPC to both (`create_pid_namespace()`, kernel/pid_namespace.c).

use std::collections::BTreeMap;

use super::{
    Scene,
    scene::{self, explain_process, hooked},
};
use crate::{
    event::{
        MAX_LEVEL,
        finding::{Diagnosis, Fact, Finding, Severity},
        identity::NsInum,
    },
    model::{Incident, IncidentKind},
};

/// Processes that are listed.
const LISTED: usize = 8;

pub(super) fn find(scene: &Scene<'_>) -> Vec<Finding> {
    let mut by_namespace: BTreeMap<NsInum, Vec<&Incident>> = BTreeMap::new();
    for incident in scene.recent.incidents() {
        if let IncidentKind::CreationRefused { reason, .. } = &incident.kind
            && ["depth_limit", "count_limit"].contains(&&**reason)
            && !scene.is_over(incident.last, scene.thresholds.incident)
        {
            by_namespace.entry(incident.process.ns).or_default().push(incident);
        }
    }
    by_namespace.into_iter().filter_map(|(inum, refused)| of(scene, inum, &refused)).collect()
}

fn of(scene: &Scene<'_>, inum: NsInum, refused: &[&Incident]) -> Option<Finding> {
    let mut latest = refused.to_vec();
    latest.sort_by_key(|incident| std::cmp::Reverse(incident.last));
    let last = latest.first()?;
    let mut evidence = Vec::new();
    let mut next = vec![explain_process(last.process.pid)];
    for incident in latest.iter().take(LISTED) {
        let IncidentKind::CreationRefused { reason, .. } = &incident.kind else { continue };
        evidence.extend(scene::incident(incident));
        if let Some(limit) = incident.limit.clone() {
            let fact = Fact::Limit { limit, growth_per_minute: None, seconds_left: None };
            evidence.push(hooked(incident.last, fact));
        }
        let command = match &**reason {
            "count_limit" => "sysctl user.max_pid_namespaces; lsns -t pid",
            _ => "pidns-trace tree",
        };
        if !next.iter().any(|known| known == command) {
            next.push(command.to_owned());
        }
    }
    let level = last.process.pids.len().saturating_sub(1) as u32;
    evidence.push(scene.known(Fact::Depth { level, limit: MAX_LEVEL }));
    Some(Finding {
        id: Diagnosis::CreationRefused,
        severity: Severity::Warning,
        since_boot_ns: refused.iter().map(|incident| incident.first).min()?,
        ns: scene.recent.last_namespace(inum).map(|record| record.ns.clone()),
        process: None,
        evidence,
        next,
    })
}
