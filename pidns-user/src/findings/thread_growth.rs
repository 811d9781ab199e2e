//! The threads of one process use up a limit on PIDs: each thread counts like a process.

use super::{
    DetectorInput,
    input::{described, explain_process},
    limit_use::tightest,
    readings::{HALF, MAX_MEMBERS, ReadRequest},
};
use crate::{
    event::Process,
    event::finding::{Diagnosis, Fact, Finding, Severity},
    event::identity::NsInum,
    model::ProcessState,
};

/// Fewer threads are never a finding, even if the limit is low.
const FEWEST: u64 = 32;

pub(super) fn find(input: &DetectorInput<'_>) -> Vec<Finding> {
    input.world.namespaces().filter_map(|state| of(input, state.namespace.inum)).collect()
}

fn of(input: &DetectorInput<'_>, inum: NsInum) -> Option<Finding> {
    let limit = tightest(input, inum).filter(|limit| limit.is_used_by(HALF))?;
    let used = limit.used()?;
    let (threads, largest) = largest(input, members(input, inum))?;
    if threads < FEWEST || 2 * threads < used {
        return None;
    }
    let process = described(largest);
    let evidence =
        vec![input.proc_evidence(Fact::Threads { process: process.clone(), threads }), limit.evidence()];
    Some(Finding {
        id: Diagnosis::ThreadGrowth,
        severity: Severity::Warning,
        since_boot_ns: input.readings.at,
        ns: input.ns(inum),
        next: vec![explain_process(process.pid), format!("ps -L -p {} -o tid,comm,wchan", process.pid)],
        process: Some(process),
        evidence,
    })
}

/// The process of a namespace with the most threads, if these are many, and their number.
pub(super) fn largest_of(input: &DetectorInput<'_>, inum: NsInum) -> Option<(Process, u64)> {
    let (threads, state) = largest(input, members(input, inum))?;
    (threads >= FEWEST).then(|| (described(state), threads))
}

/// The living processes of a namespace.
fn members<'a>(input: &DetectorInput<'a>, inum: NsInum) -> impl Iterator<Item = &'a ProcessState> {
    input.members(inum).filter(|state| state.ended.is_none())
}

/// The process with the most threads, and their number.
fn largest<'a>(
    input: &DetectorInput<'_>,
    members: impl Iterator<Item = &'a ProcessState>,
) -> Option<(u64, &'a ProcessState)> {
    let threads = |state: &ProcessState| {
        let read = input.readings.activity.get(&state.key()).and_then(|read| read.as_ref().ok());
        read.map(|activity| activity.threads).or(state.observed.threads.map(u64::from)).unwrap_or(1)
    };
    members.map(|state| (threads(state), state)).max_by_key(|(threads, state)| (*threads, state.process.pid))
}

/// Requests the number of threads of processes if a limit is half used: of the largest one, and of some others, in
/// turn.
pub(super) fn add_requests(input: &DetectorInput<'_>, request: &mut ReadRequest) {
    for state in input.world.namespaces() {
        let inum = state.namespace.inum;
        let is_used = tightest(input, inum).is_some_and(|limit| limit.is_used_by(HALF));
        if is_used {
            let mut members: Vec<_> = members(input, inum).collect();
            request.activity.extend(largest(input, members.iter().copied()).map(|(_, state)| state.key()));
            members.sort_unstable_by_key(|state| state.process.pid);
            // A detection a second: each begins where the last one ended.
            let seconds = (input.now.0 / 1_000_000_000) as usize;
            let begin = seconds.wrapping_mul(MAX_MEMBERS) % members.len().max(1);
            let in_turn = members.iter().cycle().skip(begin).take(MAX_MEMBERS.min(members.len()));
            request.activity.extend(in_turn.map(|state| state.key()));
        }
    }
}
