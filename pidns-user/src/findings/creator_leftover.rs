//! A namespace is gone, but its runtime's helper process (a shim, a conmon) is still there.

use std::collections::BTreeMap;

use super::{DetectorInput, input::explain_process, readings::ReadRequest};
use crate::{
    event::{
        Process,
        finding::{Diagnosis, Fact, Finding, Role, Severity},
        identity::{BootNs, ProcessKey},
    },
    model::{NamespaceRecord, is_runtime_helper},
};

/// Maximum number of helpers to check at a time.
const MAX_HELPERS: usize = 64;

pub(super) fn find(input: &DetectorInput<'_>) -> Vec<Finding> {
    left(input).into_values().filter_map(|(record, gone, helper)| of(input, record, gone, helper)).collect()
}

/// Helpers that are alive according to the model, each with the first of its namespaces that is gone, and since when.
fn left<'a>(
    input: &'a DetectorInput<'_>,
) -> BTreeMap<ProcessKey, (&'a NamespaceRecord, BootNs, &'a Process)> {
    let mut left = BTreeMap::new();
    for record in input.recent.gone() {
        let Some(gone) = record.gone.filter(|gone| input.has_passed(*gone, input.thresholds.creator)) else {
            continue;
        };
        for helper in [&record.init_parent, &record.creator].into_iter().flatten() {
            let key = helper.key();
            if is_runtime_helper(&helper.comm) && input.is_alive(key) && !has_others(input, key) {
                left.entry(key).or_insert((record, gone, helper));
            }
        }
    }
    left
}

fn of(
    input: &DetectorInput<'_>,
    record: &NamespaceRecord,
    gone: BootNs,
    helper: &Process,
) -> Option<Finding> {
    let process = input.process(helper.pid)?;
    let read = input.readings.activity.get(&process.key());
    // If no events report processes, it may have ended since the last snapshot.
    if input.has_reader && read.is_none() || input.readings.gone.contains(&process.key()) {
        return None;
    }
    let evidence = match read {
        Some(Ok(activity)) if activity.state == 'Z' => return None,
        Some(Ok(_)) => {
            input.proc_evidence(Fact::Process { role: Role::Creator, process: process.clone(), ended: false })
        }
        Some(Err(_)) | None => input.process_evidence(Role::Creator, process.clone()),
    };
    Some(Finding {
        id: Diagnosis::CreatorLeftover,
        severity: Severity::Warning,
        since_boot_ns: gone,
        ns: Some(record.ns.clone()),
        next: vec![explain_process(process.pid)],
        process: Some(process),
        evidence: vec![evidence],
    })
}

/// Requests whether the helpers still exist: first those that were not read yet.
pub(super) fn add_requests(input: &DetectorInput<'_>, request: &mut ReadRequest) {
    let keys = left(input).into_values().filter_map(|(_, _, helper)| Some(input.process(helper.pid)?.key()));
    let (read, unread): (Vec<_>, Vec<_>) = keys.partition(|key| input.readings.activity.contains_key(key));
    request.activity.extend(unread.into_iter().chain(read).take(MAX_HELPERS));
}

/// Whether it has a child in another namespace: the shim of a pod keeps several containers.
fn has_others(input: &DetectorInput<'_>, helper: ProcessKey) -> bool {
    input.world.processes().any(|state| state.parent == Some(helper.pid) && state.process.pids.len() > 1)
}
