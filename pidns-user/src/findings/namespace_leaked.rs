//! A namespace has no process, and something keeps it: an open file, a mount, a process whose children go there, a PID 1 that
//! its parent has not reaped.

use std::time::Duration;

use super::{
    Scene,
    readings::{Holders, Wanted},
    scene::{explain_ns, explain_process},
};
use crate::{
    event::{
        finding::{Diagnosis, Evidence, Fact, Finding, Role, Severity},
        identity::BootNs,
        snapshot::Holder,
    },
    model::{NamespaceState, Stage},
};

/// Holders that are listed.
const LISTED: usize = 10;
/// A parent has this many times as long to reap a PID 1.
const PATIENCE: u32 = 10;
/// How old what is known of holders may be.
const FRESH: Duration = Duration::from_secs(30);

pub(super) fn find(scene: &Scene<'_>) -> Vec<Finding> {
    scene
        .world
        .namespaces()
        .filter_map(|state| held(scene, state).or_else(|| unreaped(scene, state)))
        .collect()
}

/// Since when a namespace has no process; `None` where it has one, or has not had its first.
fn empty_since(scene: &Scene<'_>, state: &NamespaceState) -> Option<BootNs> {
    if state.namespace.level == 0 || state.members > 0 {
        return None;
    }
    match state.stage {
        Stage::Empty => None,
        Stage::Held { since } => Some(since),
        Stage::Alive | Stage::Dying { .. } => scene.recent.namespace(state.namespace.inum)?.empty_since,
    }
}

fn held(scene: &Scene<'_>, state: &NamespaceState) -> Option<Finding> {
    let inum = state.namespace.inum;
    let since = empty_since(scene, state).filter(|since| scene.is_over(*since, scene.thresholds.leaked))?;
    let read = scene.readings.holders.get(&inum);
    let (holders, left_out, unread) = match read {
        Some(Holders { holders, left_out, unread }) => (holders.as_slice(), *left_out, *unread),
        None => (state.holders.as_slice(), state.holders_left_out, 0),
    };
    let only_awaits_a_fork = holders.iter().all(|holder| matches!(holder, Holder::PidForChildren { .. }))
        && left_out == 0
        && state.init_start().is_none();
    // One that is not looked for yet, or that may still get its first process.
    if read.is_none() && holders.is_empty() || only_awaits_a_fork && !holders.is_empty() {
        return None;
    }
    let is_gone_next = holders.is_empty() && left_out == 0 && unread == 0;
    if is_gone_next && !scene.is_over(since, PATIENCE * scene.thresholds.leaked) {
        return None;
    }
    let fact = |fact| if read.is_some() { scene.read(fact) } else { scene.known(fact) };
    let mut evidence: Vec<Evidence> =
        holders.iter().take(LISTED).map(|holder| fact(Fact::Holder { holder: holder.clone() })).collect();
    let left_out = left_out + holders.len().saturating_sub(LISTED) as u64;
    if left_out > 0 {
        evidence.push(fact(Fact::HoldersLeftOut { count: left_out }));
    }
    if unread > 0 {
        let what = format!("the open files of {unread} processes could not be read");
        evidence.push(fact(Fact::Unseen { what }));
    } else if evidence.is_empty() {
        let what = "nothing that /proc shows keeps it: a file in flight on a socket, say, or a BPF program"
            .to_owned();
        evidence.push(fact(Fact::Unseen { what }));
    }
    let mut next = vec![explain_ns(inum)];
    next.extend(holders.iter().find_map(|holder| match holder {
        Holder::Fd { pid, .. } | Holder::PidForChildren { pid, .. } => Some(explain_process(*pid)),
        Holder::Mount { path, pid, .. } => {
            Some(format!("nsenter --mount --target {pid} umount {}", path.for_terminal()))
        }
        Holder::ProcMount(_) | Holder::Child { .. } => None,
    }));
    Some(finding(scene, state, since, evidence, next))
}

/// All are gone, and PID 1 is a zombie.
fn unreaped(scene: &Scene<'_>, state: &NamespaceState) -> Option<Finding> {
    if state.members != 1 || !matches!(state.stage, Stage::Dying { torn_down: true, .. }) {
        return None;
    }
    let init = scene.world.process(state.init?)?;
    let since = init.ended.as_ref()?.since.or_else(|| scene.recent.zombie_since(init.key()))?;
    if !scene.is_over(since, PATIENCE * scene.thresholds.leaked) {
        return None;
    }
    let reaper = scene.reaper(init).and_then(|pid| scene.process(pid))?;
    let next = vec![explain_ns(state.namespace.inum), explain_process(reaper.pid)];
    let evidence = vec![scene.role(Role::Reaper, reaper)];
    Some(finding(scene, state, since, evidence, next))
}

fn finding(
    scene: &Scene<'_>,
    state: &NamespaceState,
    since_boot_ns: BootNs,
    evidence: Vec<Evidence>,
    next: Vec<String>,
) -> Finding {
    let ns = scene.ns(state.namespace.inum);
    let (id, severity) = (Diagnosis::NamespaceLeaked, Severity::Warning);
    Finding { id, severity, since_boot_ns, ns, process: None, evidence, next }
}

/// What there is to read: what holds those that are not explained yet.
pub(super) fn want(scene: &Scene<'_>, holders_at: Option<BootNs>, wanted: &mut Wanted) {
    let empty = scene.world.namespaces().filter(|state| {
        empty_since(scene, state).is_some_and(|since| scene.is_over(since, scene.thresholds.leaked))
    });
    let empty: Vec<_> = empty.map(|state| state.namespace.inum).collect();
    let is_new = empty.iter().any(|inum| !scene.readings.holders.contains_key(inum));
    let is_stale = holders_at.is_none_or(|at| scene.is_over(at, FRESH));
    if !empty.is_empty() && (is_new || is_stale) {
        wanted.holders.extend(empty);
    }
}
