//! A process forks into a namespace whose PID 1 has ended. The kernel returns ENOMEM, regardless of the free memory
//! (`alloc_pid()`, kernel/pid.c).

use super::{
    DetectorInput,
    input::{self, by_namespace, explain_process, init_exit_evidence},
};
use crate::{
    event::{
        Token,
        finding::{Diagnosis, Fact, Finding, Severity},
        snapshot::SnapshotNamespace,
    },
    model::{Incident, IncidentKind},
};

/// Number of processes to list.
const LISTED: usize = 8;

pub(super) fn find(input: &DetectorInput<'_>) -> Vec<Finding> {
    let refused = input.recent.incidents().filter(|incident| {
        let is_dead =
            matches!(&incident.kind, IncidentKind::ForkRefused { reason, .. } if reason == "namespace_dead");
        is_dead && is_open(input, incident)
    });
    by_namespace(refused).into_iter().filter_map(|(ns, incidents)| of(input, &ns, &incidents)).collect()
}

/// Whether the refusal is recent, or the next fork will be refused too.
fn is_open(input: &DetectorInput<'_>, incident: &Incident) -> bool {
    let inum = incident.ns.as_ref().map(|ns| ns.inum);
    let still_goes_there = || {
        let state = input.world.process(incident.process.pid);
        state.is_some_and(|state| {
            state.key().is_same(incident.process.key()) && state.ended.is_none() && state.children_ns == inum
        })
    };
    !input.has_passed(incident.last, input.thresholds.incident) || still_goes_there()
}

fn of(input: &DetectorInput<'_>, ns: &SnapshotNamespace, incidents: &[&Incident]) -> Option<Finding> {
    let first = incidents.iter().min_by_key(|incident| incident.first)?;
    let record = input.recent.record_of(ns);
    let mut evidence = Vec::new();
    if let Some(death) = record.and_then(|record| record.death.as_ref()) {
        evidence.push(init_exit_evidence(death));
    }
    let mut latest = incidents.to_vec();
    latest.sort_by_key(|incident| std::cmp::Reverse(incident.last));
    for incident in latest.iter().take(LISTED) {
        evidence.extend(input::incident_evidence(incident).map(|mut evidence| {
            if let Fact::RefusedFork { elsewhere_by, .. } = &mut evidence.fact {
                *elsewhere_by = entered_by(input, incident);
            }
            evidence
        }));
    }
    let process = latest.first()?.process.pid;
    Some(Finding {
        id: Diagnosis::NamespaceDeadFork,
        severity: Severity::Warning,
        since_boot_ns: first.first,
        ns: Some(input.latest_ns(ns)),
        process: None,
        evidence,
        next: [explain_process(process)].into_iter().chain(input.explain_existing(ns)).collect(),
    })
}

/// The system call after which the children of the refused process start in this namespace; `None` if no event showed
/// it, or the process has ended.
fn entered_by(input: &DetectorInput<'_>, incident: &Incident) -> Option<Token> {
    let state = input.world.process(incident.process.pid)?;
    let inum = incident.ns.as_ref()?.inum;
    let is_it = state.key().is_same(incident.process.key()) && state.children_ns == Some(inum);
    state.children_ns_by.filter(|_| is_it).map(Token::from)
}
