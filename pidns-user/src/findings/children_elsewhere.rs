//! A process has unshared or joined a PID namespace and has not forked into it. Until it forks, it cannot create a
//! thread (EINVAL, `copy_process()` in kernel/fork.c), and its next child becomes PID 1 of a new namespace or a member
//! of another one.
//!
//! A process that has forked stays in this state by design: `unshare --fork` waits for its child.

use std::collections::BTreeMap;

use super::{
    DetectorInput,
    input::{self, described, explain_process},
};
use crate::{
    event::{
        finding::{Diagnosis, Evidence, Fact, Finding, Severity},
        identity::{BootNs, NsInum, ProcessKey},
    },
    model::{IncidentKind, ProcessState, Stage},
};

pub(super) fn find(input: &DetectorInput<'_>) -> Vec<Finding> {
    let mut refused: BTreeMap<ProcessKey, Evidence> = BTreeMap::new();
    for incident in input.recent.incidents() {
        if let IncidentKind::ForkRefused { reason, thread: true, .. } = &incident.kind
            && reason == "children_elsewhere"
            && !input.has_passed(incident.last, input.thresholds.incident)
        {
            refused.extend(input::incident_evidence(incident).map(|fact| (incident.process.key(), fact)));
        }
    }
    let elsewhere = input.world.processes().filter(|state| state.ended.is_none());
    let elsewhere = elsewhere.filter_map(|state| Some((state, state.children_ns?)));
    elsewhere.filter_map(|(state, ns)| of(input, state, ns, refused.remove(&state.key()))).collect()
}

fn of(
    input: &DetectorInput<'_>,
    state: &ProcessState,
    ns: NsInum,
    refused: Option<Evidence>,
) -> Option<Finding> {
    let since = since(input, state, ns).filter(|since| input.has_passed(*since, input.thresholds.elsewhere));
    let since = since.or(refused.as_ref().map(|evidence| evidence.boot_ns))?;
    let process = described(state);
    let severity = if refused.is_some() { Severity::Warning } else { Severity::Info };
    let goes = input.model_evidence(Fact::ChildrenGoTo { process: process.clone(), ns });
    Some(Finding {
        id: Diagnosis::ChildrenElsewhere,
        severity,
        since_boot_ns: since,
        ns: input.ns(ns),
        next: vec![explain_process(process.pid)],
        process: Some(process),
        evidence: [goes].into_iter().chain(refused).collect(),
    })
}

/// The time since which its children would be born in `ns`. `None` if it has forked since then, or if that is unknown.
fn since(input: &DetectorInput<'_>, state: &ProcessState, ns: NsInum) -> Option<BootNs> {
    let target = input.world.namespace(ns)?;
    // No fork into a namespace whose PID 1 has ended succeeds; that is another finding.
    if !matches!(target.stage, Stage::Empty | Stage::Alive) {
        return None;
    }
    let forks_are_seen = input.world.follows_processes() || target.members == 0;
    match input.recent.elsewhere(state.key()) {
        Some((since, false)) if forks_are_seen => Some(since),
        Some(_) => None,
        // A snapshot found this state. If the namespace has never had a process, this process has not forked into it.
        None if target.members == 0 && target.init_start().is_none() => {
            input.recent.namespace(ns)?.empty_since
        }
        None => None,
    }
}
