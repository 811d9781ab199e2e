//! The threads of one process use up a limit on PIDs: each counts as much as a process.

use super::{
    Scene,
    limit_use::{HALF, tightest},
    readings::{MOST_MEMBERS, Wanted},
    scene::{described, explain_process},
};
use crate::{
    event::finding::{Diagnosis, Fact, Finding, Severity},
    event::identity::NsInum,
    model::ProcessState,
};

/// Fewer threads than this are no growth, however low the limit.
const FEWEST: u64 = 32;

pub(super) fn find(scene: &Scene<'_>) -> Vec<Finding> {
    scene.world.namespaces().filter_map(|state| of(scene, state.namespace.inum)).collect()
}

fn of(scene: &Scene<'_>, inum: NsInum) -> Option<Finding> {
    let limit = tightest(scene, inum).filter(|limit| limit.is_used_by(HALF))?;
    let used = limit.used()?;
    let threads = |state: &ProcessState| {
        let read = scene.readings.doing.get(&state.key()).and_then(|read| read.as_ref().ok());
        read.map(|doing| doing.threads).or(state.observed.threads.map(u64::from)).unwrap_or(1)
    };
    let members = scene.world.processes().filter(|state| state.process.ns == inum && state.ended.is_none());
    let (threads, largest) = members
        .map(|state| (threads(state), state))
        .max_by_key(|(threads, state)| (*threads, state.process.pid))?;
    if threads < FEWEST || 2 * threads < used {
        return None;
    }
    let process = described(largest);
    let evidence = vec![scene.read(Fact::Threads { process: process.clone(), threads }), limit.evidence()];
    Some(Finding {
        id: Diagnosis::ThreadGrowth,
        severity: Severity::Warning,
        since_boot_ns: scene.readings.at,
        ns: scene.ns(inum),
        next: vec![explain_process(process.pid), format!("ps -L -p {} -o tid,comm,wchan", process.pid)],
        process: Some(process),
        evidence,
    })
}

/// What there is to read: the threads of processes where a limit is half used.
pub(super) fn want(scene: &Scene<'_>, wanted: &mut Wanted) {
    for state in scene.world.namespaces() {
        let inum = state.namespace.inum;
        let is_used = tightest(scene, inum).is_some_and(|limit| limit.is_used_by(HALF));
        if is_used {
            let members =
                scene.world.processes().filter(|member| member.process.ns == inum && member.ended.is_none());
            wanted.doing.extend(members.take(MOST_MEMBERS).map(ProcessState::key));
        }
    }
}
