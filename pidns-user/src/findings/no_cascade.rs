//! A container's main process is not PID 1 of its own PID namespace (`--pid host`, `--pid container:X`,
//! shareProcessNamespace): when it ends, the kernel kills no other process.

use std::time::Duration;

use super::{DetectorInput, input::explain_process};
use crate::{
    event::finding::{Diagnosis, Fact, Finding, Role, Severity},
    event::snapshot::SnapshotNamespace,
    model::{MainProcess, ProcessState},
};

/// Number of survivors to list.
const LISTED: usize = 8;
/// Time for the runtime to kill the remaining processes of the cgroup.
const GRACE: Duration = Duration::from_secs(1);

pub(super) fn find(input: &DetectorInput<'_>) -> Vec<Finding> {
    input.recent.mains().filter_map(|main| of(input, main)).collect()
}

fn of(input: &DetectorInput<'_>, main: &MainProcess) -> Option<Finding> {
    let survivors: Vec<&ProcessState> = input
        .world
        .processes()
        .filter(|state| state.ended.is_none() && !state.key().is_same(main.process.key()))
        .filter(|state| state.process.container.as_ref().is_some_and(|own| own.is_same(&main.container)))
        .collect();
    let is_alive = input.is_alive(main.process.key());
    let ended = main.ended;
    if !is_alive && (survivors.is_empty() || !ended.is_none_or(|at| input.has_passed(at, GRACE))) {
        return None;
    }
    let mut evidence = vec![input.process_evidence(Role::Main, main.process.clone())];
    if !is_alive {
        let others = survivors.iter().take(LISTED);
        evidence.extend(others.map(|state| {
            let process = super::input::described(state);
            input.model_evidence(Fact::Process { role: Role::Survivor, process, ended: false })
        }));
        let left_out = survivors.len().saturating_sub(LISTED) as u64;
        if left_out > 0 {
            evidence.push(input.model_evidence(Fact::ProcessesLeftOut { count: left_out }));
        }
    }
    let ns = input.ns(main.process.ns);
    // The finding is about the process's own container.
    let ns = ns.map(|ns| SnapshotNamespace { container: Some(main.container.clone()), ..ns });
    Some(Finding {
        id: Diagnosis::NoCascade,
        severity: if is_alive { Severity::Info } else { Severity::Warning },
        since_boot_ns: ended.unwrap_or(main.process.start_boot_ns),
        ns,
        process: Some(main.process.clone()),
        next: evidence
            .iter()
            .flat_map(|evidence| evidence.fact.processes())
            .last()
            .map(|it| explain_process(it.pid))
            .into_iter()
            .collect(),
        evidence,
    })
}
