//! A process that entered its namespace from outside outlives the process that started it: for example an exec session
//! whose client was killed, or a probe that timed out.
//!
//! The forker may be gone by design: runc exits and leaves the process to the shim, which also keeps PID 1. A process
//! is a leftover if another process than the shim has adopted it outside the namespace. If the runtime still keeps it,
//! only its age counts. The age shows nothing about a container's main process, or if the process that it belongs to (a
//! shell, nsenter) lives.

use super::{
    DetectorInput,
    input::{described, explain_process},
    readings::ReadRequest,
};
use crate::{
    event::{
        finding::{Diagnosis, Fact, Finding, Role, Severity},
        identity::HostPid,
    },
    model::{Entered, ProcessState, is_runtime_helper},
};

/// Maximum number of processes to read.
const MAX_MEMBERS: usize = 256;

pub(super) fn find(input: &DetectorInput<'_>) -> Vec<Finding> {
    entered(input).filter_map(|state| of(input, state)).collect()
}

/// Living processes that entered from outside.
fn entered<'a>(input: &'a DetectorInput<'_>) -> impl Iterator<Item = &'a ProcessState> {
    let is_one = |state: &&ProcessState| {
        let came_in = matches!(state.entered, Entered::Joined { .. } | Entered::ParentOutside { .. });
        came_in && !state.is_init() && state.ended.is_none() && state.process.pids.len() > 1
    };
    input.world.processes().filter(is_one)
}

fn of(input: &DetectorInput<'_>, state: &ProcessState) -> Option<Finding> {
    let inum = state.process.ns;
    let is_abandoned = is_abandoned(input, state);
    let is_old = input.has_passed(state.process.start_boot_ns, input.thresholds.joined);
    if is_abandoned.is_none() && !(is_old && may_be_left(input, state)) {
        return None;
    }
    let mut evidence = Vec::new();
    let parent = is_abandoned.or_else(|| parent(input, state)).and_then(|pid| input.process(pid));
    evidence.extend(parent.map(|parent| input.process_evidence(Role::Parent, parent)));
    if let Entered::Joined { forker } = &state.entered {
        evidence.push(input.process_evidence(Role::Forker, input.latest(forker)));
    }
    if is_abandoned.is_none() {
        let what =
            "whether the client of its session is still running: the client is not in this process tree"
                .to_owned();
        evidence.push(input.model_evidence(Fact::Unseen { what }));
    }
    Some(Finding {
        id: Diagnosis::JoinedLeftover,
        severity: if is_abandoned.is_some() { Severity::Warning } else { Severity::Info },
        since_boot_ns: state.process.start_boot_ns,
        ns: input.ns(inum),
        process: Some(described(state)),
        evidence,
        next: vec![explain_process(state.process.pid), format!("kill {}", state.process.pid)],
    })
}

/// Whether its age matters: it is no container's main process, and the process that it belongs to seems gone.
fn may_be_left(input: &DetectorInput<'_>, state: &ProcessState) -> bool {
    let is_main = input.recent.mains().any(|main| main.process.key().is_same(state.key()));
    let parent = parent(input, state).and_then(|parent| input.world.process(parent));
    let init = input.world.namespace(state.process.ns).and_then(|ns| input.world.process(ns.init?));
    // The runtime's process, which also keeps PID 1, stays after the client; a PID 1 outside may have adopted it.
    let keeps_it = |parent: &ProcessState| {
        is_runtime_helper(&parent.process.comm)
            || parent.process.is_init()
            || init.is_some_and(|init| self::parent(input, init) == Some(parent.process.pid))
    };
    let has_client = parent.is_some_and(|parent| {
        parent.ended.is_none()
            && !keeps_it(parent)
            && !input.world.is_within(parent.process.ns, state.process.ns)
    });
    !is_main && !has_client
}

/// The process that adopted it, if the process of its session is gone; `None` if the session exists or that is unknown.
fn is_abandoned(input: &DetectorInput<'_>, state: &ProcessState) -> Option<HostPid> {
    if !state.orphaned {
        return None;
    }
    let parent = parent(input, state)?;
    let init = input.world.namespace(state.process.ns)?.init.and_then(|init| input.world.process(init))?;
    let keeper = self::parent(input, init)?;
    let is_helper = || input.process(parent).is_some_and(|parent| is_runtime_helper(&parent.comm));
    let is_inside = || {
        input
            .world
            .process(parent)
            .is_some_and(|parent| input.world.is_within(parent.process.ns, state.process.ns))
    };
    (parent != keeper && !is_inside() && !is_helper()).then_some(parent)
}

/// Its current parent. For an orphan the new parent is certain only if it was read from /proc.
fn parent(input: &DetectorInput<'_>, state: &ProcessState) -> Option<HostPid> {
    let read = input.readings.activity.get(&state.key()).and_then(|read| read.as_ref().ok());
    read.map(|activity| activity.ppid).or(state.parent)
}

/// Requests the parents of orphans and of their namespaces' PID 1s.
pub(super) fn add_requests(input: &DetectorInput<'_>, request: &mut ReadRequest) {
    for state in entered(input).filter(|state| state.orphaned).take(MAX_MEMBERS) {
        let init = input.world.namespace(state.process.ns).and_then(|ns| ns.init);
        let init = init.and_then(|init| input.world.process(init));
        let is_read = |state: &&ProcessState| input.readings.activity.contains_key(&state.key());
        let both = [Some(state), init].into_iter().flatten();
        request.activity.extend(both.filter(|state| !is_read(state)).map(ProcessState::key));
    }
}
