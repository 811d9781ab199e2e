//! Memory ran out, and the kernel killed a process that is not PID 1. Its namespace continues without it, and no
//! runtime restarts it.

use super::{
    DetectorInput,
    input::{by_namespace, explain_ns, hook_evidence},
};
use crate::{
    event::{
        finding::{Diagnosis, Fact, Finding, Severity},
        snapshot::SnapshotNamespace,
    },
    model::{Incident, IncidentKind, Stage},
};

/// Number of processes to list.
const LISTED: usize = 8;

pub(super) fn find(input: &DetectorInput<'_>) -> Vec<Finding> {
    let killed = input.recent.incidents().filter(|incident| {
        incident.kind == IncidentKind::MemberOom
            && !input.has_passed(incident.last, input.thresholds.incident)
    });
    by_namespace(killed).into_iter().filter_map(|(ns, killed)| of(input, &ns, &killed)).collect()
}

fn of(input: &DetectorInput<'_>, ns: &SnapshotNamespace, killed: &[&Incident]) -> Option<Finding> {
    let state = input.existing(ns).filter(|state| state.stage == Stage::Alive)?;
    let (ns, inum) = (state.namespace.clone(), state.namespace.inum);
    let count = killed.len() as u64;
    let mut latest = killed.to_vec();
    latest.sort_by_key(|incident| std::cmp::Reverse(incident.last));
    let facts = latest.iter().take(LISTED).map(|incident| {
        hook_evidence(incident.last, Fact::OomKill { process: incident.process.clone(), count })
    });
    Some(Finding {
        id: Diagnosis::MemberOomKilled,
        severity: Severity::Warning,
        since_boot_ns: killed.iter().map(|incident| incident.first).min()?,
        ns: Some(ns),
        process: None,
        evidence: facts.collect(),
        next: vec![explain_ns(inum), "dmesg --ctime | grep -i 'killed process'".to_owned()],
    })
}
