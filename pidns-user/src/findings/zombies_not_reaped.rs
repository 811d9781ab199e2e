//! Processes have ended, but the process that must reap them does not.
//!
//! An orphan becomes a child of PID 1 of its namespace (`find_new_reaper()`, kernel/exit.c). An init that never waits
//! keeps its zombie forever; a proper init reaps it within microseconds. For its own children a parent may wait later,
//! so only many old ones are a finding. (A child of PID 1 from a snapshot counts as an orphan.)
//!
//! With tracepoints only, the event of a reap comes when the kernel frees the task, on a busy host seconds later. So
//! the oldest zombies are checked in /proc before they are reported.

use std::{collections::BTreeMap, time::Duration};

use super::{
    DetectorInput,
    input::{described, explain_ns, explain_process},
    limit_use,
    lives::{lives, most_frequent},
    readings::ReadRequest,
};
use crate::{
    event::{
        finding::{Diagnosis, Fact, Finding, Role, Severity},
        identity::{BootNs, HostPid, NsInum},
    },
    model::{Entered, ProcessState, Stage},
};

/// The minimum age is multiplied by this for an init that has reaped other zombies meanwhile, and for the parent of its
/// own children.
const REAPING_INIT_FACTOR: u32 = 10;
/// Maximum number of zombies of one parent to check in /proc.
const MAX_PROCESSES: usize = 16;

/// Zombies with the start of that state, the oldest first; by namespace and the process that must reap them.
type Groups<'a> = BTreeMap<(NsInum, HostPid), Vec<(BootNs, &'a ProcessState)>>;

pub(super) fn find(input: &DetectorInput<'_>) -> Vec<Finding> {
    let found = groups(input).into_iter();
    found.filter_map(|((inum, reaper), zombies)| of(input, inum, reaper, &zombies)).collect()
}

/// Zombies, without those that are gone according to /proc.
fn groups<'a>(input: &DetectorInput<'a>) -> Groups<'a> {
    let mut groups = Groups::new();
    for state in input.world.processes() {
        let is_zombie = state.ended.is_some() && !state.is_init() && state.process.pids.len() > 1;
        if let (true, Some(reaper)) = (is_zombie, input.reaper(state))
            && let Some(since) = since(input, state)
            && is_zombie_by_proc(input, state) != Some(false)
        {
            groups.entry((state.process.ns, reaper)).or_default().push((since, state));
        }
    }
    for zombies in groups.values_mut() {
        zombies.sort_unstable_by_key(|(since, state)| (*since, state.process.pid));
    }
    groups
}

/// Whether it is a zombie according to /proc; `None` if it was not checked or cannot be read.
fn is_zombie_by_proc(input: &DetectorInput<'_>, state: &ProcessState) -> Option<bool> {
    if input.readings.gone.contains(&state.key()) {
        return Some(false);
    }
    match input.readings.activity.get(&state.key())? {
        Ok(activity) => Some(activity.state == 'Z'),
        Err(_) => None,
    }
}

/// Requests whether the oldest zombies still exist.
pub(super) fn add_requests(input: &DetectorInput<'_>, request: &mut ReadRequest) {
    for zombies in groups(input).into_values() {
        let old = zombies.iter().filter(|(since, _)| input.has_passed(*since, input.thresholds.zombie_age));
        request.activity.extend(old.take(MAX_PROCESSES).map(|(_, state)| state.key()));
    }
}

fn of(
    input: &DetectorInput<'_>,
    inum: NsInum,
    reaper: HostPid,
    zombies: &[(BootNs, &ProcessState)],
) -> Option<Finding> {
    let entry = input.world.namespace(inum)?;
    // PID 1 of a dying namespace waits for all members; that is another finding.
    if matches!(entry.stage, Stage::Dying { .. } | Stage::Held { .. }) {
        return None;
    }
    let thresholds = input.thresholds;
    // If no events report processes, a zombie of one snapshot may have been reaped since.
    let seen_until = input.world.processes_as_of().unwrap_or(input.now);
    let has_passed = |since: BootNs, time: Duration| {
        u128::from(seen_until.saturating_since(since)) >= time.as_nanos().max(1)
    };
    let is_old = |since: BootNs| has_passed(since, thresholds.zombie_age.saturating_mul(REAPING_INIT_FACTOR));
    let reaps_since = |since: BootNs| input.recent.last_reap(reaper).is_some_and(|reap| reap > since);
    let is_neglected = |(since, state): &(BootNs, &ProcessState)| {
        let is_of_init = entry.init == Some(reaper);
        let is_ignored = has_passed(*since, thresholds.zombie_age) && !reaps_since(*since);
        is_of_init && may_be_an_orphan(state) && (is_ignored || is_old(*since))
    };
    // A zombie that was not checked yet may be gone.
    let is_sure =
        |state: &ProcessState| !input.has_reader || input.readings.activity.contains_key(&state.key());
    let neglected: Vec<_> =
        zombies.iter().filter(|zombie| is_sure(zombie.1) && is_neglected(zombie)).collect();
    let old: Vec<_> = zombies.iter().filter(|(since, _)| is_old(*since)).collect();
    let too_many = old.len() as u64 >= thresholds.zombies && old.iter().any(|zombie| is_sure(zombie.1));
    if neglected.is_empty() && !too_many {
        return None;
    }
    let since = neglected.iter().chain(&old).map(|(since, _)| *since).min()?;
    let oldest_boot_ns = zombies.iter().map(|(since, _)| *since).min()?;
    let orphans = zombies.iter().filter(|(_, state)| state.orphaned).count() as u64;
    let names = most_frequent(zombies.iter().map(|(_, state)| &state.process.comm));
    let forked_by =
        most_frequent(zombies.iter().filter_map(|(_, state)| input.recent.forked_by(state.key())));
    let count = zombies.len() as u64;
    let mut evidence =
        vec![input.model_evidence(Fact::Zombies { count, oldest_boot_ns, orphans, names, forked_by })];
    let reaper = input.world.process(reaper).map(described);
    evidence.extend(reaper.clone().map(|process| input.process_evidence(Role::Reaper, process)));
    evidence.extend(lives(input, inum));
    let limit = limit_use::tightest(input, inum);
    let is_urgent = limit.as_ref().is_some_and(|limit| limit.is_nearly_reached(thresholds.pids_percent));
    evidence.extend(limit.map(|limit| limit.evidence()));
    let next = [Some(explain_ns(inum)), reaper.as_ref().map(|reaper| explain_process(reaper.pid))];
    Some(Finding {
        id: Diagnosis::ZombiesNotReaped,
        severity: if is_urgent { Severity::Critical } else { Severity::Warning },
        since_boot_ns: since,
        ns: input.ns(inum),
        process: reaper,
        evidence,
        next: next.into_iter().flatten().collect(),
    })
}

/// When it became a zombie; if no event reported that, when it was first seen as a zombie.
fn since(input: &DetectorInput<'_>, state: &ProcessState) -> Option<BootNs> {
    state.ended.as_ref()?.since.or_else(|| input.recent.zombie_since(state.key()))
}

/// Whether it may be an orphan. Only an event can show that its parent forked it.
fn may_be_an_orphan(state: &ProcessState) -> bool {
    state.orphaned || state.entered == Entered::Unseen
}
