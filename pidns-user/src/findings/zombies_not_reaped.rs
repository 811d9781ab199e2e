//! Processes have ended, and the one that must wait for them does not.
//!
//! An orphan becomes a child of PID 1 of its namespace (`find_new_reaper()`, kernel/exit.c), and an init that never waits for it
//! keeps it for ever. A proper one reaps it in microseconds. Of its own children a parent may take note later: only many of them,
//! for long, are a finding. (A snapshot does not say which of the two a child of PID 1 is: then it is taken for an orphan.)

use std::{collections::BTreeMap, time::Duration};

use super::{
    Scene, limit_use,
    lives::{lives, most_frequent},
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

pub(super) fn find(scene: &Scene<'_>) -> Vec<Finding> {
    let mut groups: BTreeMap<(NsInum, HostPid), Vec<(BootNs, &ProcessState)>> = BTreeMap::new();
    for state in scene.world.processes() {
        let is_zombie = state.ended.is_some() && !state.is_init() && state.process.pids.len() > 1;
        if let (true, Some(reaper)) = (is_zombie, scene.reaper(state))
            && let Some(since) = since(scene, state)
        {
            groups.entry((state.process.ns, reaper)).or_default().push((since, state));
        }
    }
    let found = groups.into_iter().filter_map(|((inum, reaper), zombies)| of(scene, inum, reaper, &zombies));
    found.collect()
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
    let neglected: Vec<_> = zombies.iter().filter(|zombie| is_neglected(zombie)).collect();
    let old: Vec<_> = zombies.iter().filter(|(since, _)| is_old(*since)).collect();
    let too_many = old.len() as u64 >= thresholds.zombies;
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

/// Since when it is a zombie; where no event said that, since when it is known.
fn since(scene: &Scene<'_>, state: &ProcessState) -> Option<BootNs> {
    state.ended.as_ref()?.since.or_else(|| scene.recent.zombie_since(state.key()))
}

/// Whether nothing says that its parent is the one that forked it.
fn may_be_an_orphan(state: &ProcessState) -> bool {
    state.orphaned || state.entered == Entered::Unseen
}
