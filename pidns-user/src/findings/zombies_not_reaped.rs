//! Processes have ended, and the one that must wait for them does not.
//!
//! An orphan becomes a child of PID 1 of its namespace (`find_new_reaper()`, kernel/exit.c), and an init that never waits for it
//! keeps it for ever. A proper one reaps it in microseconds. Of its own children a parent may take note later: only many of them,
//! for long, are a finding. (A snapshot does not show which of the two a child of PID 1 is: then it is taken for an orphan.)
//!
//! With tracepoints alone the event of a reaping comes when the kernel frees the task: on a machine that is busy that can be
//! seconds later. So the oldest zombies are looked up in /proc before anything is reported.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Scene, limit_use,
    lives::{lives, most_frequent},
    readings::Wanted,
    scene::{described, explain_ns, explain_process},
};
use crate::{
    event::{
        finding::{Diagnosis, Fact, Finding, Role, Severity},
        identity::{BootNs, HostPid, NsInum},
    },
    model::{Entered, ProcessState, Stage},
};

/// An init that reaps, but slowly, and a parent of its own children, have this many times as long.
const PATIENCE: u32 = 10;
/// Zombies of one parent that are looked up in /proc.
const MOST_PROCESSES: usize = 16;

/// Zombies with the time since when they are, the oldest first; by namespace and the process that must wait for them.
type Groups<'a> = BTreeMap<(NsInum, HostPid), Vec<(BootNs, &'a ProcessState)>>;

pub(super) fn find(scene: &Scene<'_>) -> Vec<Finding> {
    let found = groups(scene).into_iter();
    found.filter_map(|((inum, reaper), zombies)| of(scene, inum, reaper, &zombies)).collect()
}

/// The zombies that are not gone by /proc.
fn groups<'a>(scene: &Scene<'a>) -> Groups<'a> {
    let mut groups = Groups::new();
    for state in scene.world.processes() {
        let is_zombie = state.ended.is_some() && !state.is_init() && state.process.pids.len() > 1;
        if let (true, Some(reaper)) = (is_zombie, scene.reaper(state))
            && let Some(since) = since(scene, state)
            && is_zombie_by_proc(scene, state) != Some(false)
        {
            groups.entry((state.process.ns, reaper)).or_default().push((since, state));
        }
    }
    for zombies in groups.values_mut() {
        zombies.sort_unstable_by_key(|(since, state)| (*since, state.process.pid));
    }
    groups
}

/// What /proc has of it; `None` where it was not looked up, or may not be.
fn is_zombie_by_proc(scene: &Scene<'_>, state: &ProcessState) -> Option<bool> {
    if scene.readings.gone.contains(&state.key()) {
        return Some(false);
    }
    match scene.readings.doing.get(&state.key())? {
        Ok(doing) => Some(doing.state == 'Z'),
        Err(_) => None,
    }
}

/// What there is to read: whether the oldest zombies are still there.
pub(super) fn want(scene: &Scene<'_>, wanted: &mut Wanted) {
    for zombies in groups(scene).into_values() {
        let old = zombies.iter().filter(|(since, _)| scene.is_over(*since, scene.thresholds.zombie_age));
        wanted.doing.extend(old.take(MOST_PROCESSES).map(|(_, state)| state.key()));
    }
}

fn of(
    scene: &Scene<'_>,
    inum: NsInum,
    reaper: HostPid,
    zombies: &[(BootNs, &ProcessState)],
) -> Option<Finding> {
    let entry = scene.world.namespace(inum)?;
    // Of one that goes down its PID 1 waits for all: that is another finding.
    if matches!(entry.stage, Stage::Dying { .. } | Stage::Held { .. }) {
        return None;
    }
    let thresholds = scene.thresholds;
    // Where no event is about processes, one that was a zombie in one snapshot may have been reaped since.
    let seen_until = scene.world.processes_as_of().unwrap_or(scene.now);
    let is_over = |since: BootNs, time: Duration| {
        u128::from(seen_until.saturating_since(since)) >= time.as_nanos().max(1)
    };
    let is_old = |since: BootNs| is_over(since, PATIENCE * thresholds.zombie_age);
    let reaps_since = |since: BootNs| scene.recent.last_reap(reaper).is_some_and(|reap| reap > since);
    let is_neglected = |(since, state): &(BootNs, &ProcessState)| {
        let is_of_init = entry.init == Some(reaper);
        let is_ignored = is_over(*since, thresholds.zombie_age) && !reaps_since(*since);
        is_of_init && may_be_an_orphan(state) && (is_ignored || is_old(*since))
    };
    // One that was not looked up yet may be gone.
    let is_sure = |state: &ProcessState| !scene.can_read || scene.readings.doing.contains_key(&state.key());
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
        most_frequent(zombies.iter().filter_map(|(_, state)| scene.recent.forked_by(state.key())));
    let count = zombies.len() as u64;
    let mut evidence = vec![scene.known(Fact::Zombies { count, oldest_boot_ns, orphans, names, forked_by })];
    let reaper = scene.world.process(reaper).map(described);
    evidence.extend(reaper.clone().map(|process| scene.role(Role::Reaper, process)));
    evidence.extend(lives(scene, inum));
    let limit = limit_use::tightest(scene, inum);
    let is_urgent = limit.as_ref().is_some_and(|limit| limit.is_nearly_reached(thresholds.pids_percent));
    evidence.extend(limit.map(|limit| limit.evidence()));
    let next = [Some(explain_ns(inum)), reaper.as_ref().map(|reaper| explain_process(reaper.pid))];
    Some(Finding {
        id: Diagnosis::ZombiesNotReaped,
        severity: if is_urgent { Severity::Critical } else { Severity::Warning },
        since_boot_ns: since,
        ns: scene.ns(inum),
        process: reaper,
        evidence,
        next: next.into_iter().flatten().collect(),
    })
}

/// Since when it is a zombie; where no event reported that, since when it is known.
fn since(scene: &Scene<'_>, state: &ProcessState) -> Option<BootNs> {
    state.ended.as_ref()?.since.or_else(|| scene.recent.zombie_since(state.key()))
}

/// Whether it is unknown that its parent is the one that forked it.
fn may_be_an_orphan(state: &ProcessState) -> bool {
    state.orphaned || state.entered == Entered::Unseen
}
