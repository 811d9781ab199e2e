//! A namespace has no process, and something keeps it: an open file, a mount, a process whose children go there, a PID 1 that
//! its parent has not reaped.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Scene,
    readings::{Holders, Wanted},
    scene::{explain_ns, explain_process},
};
use crate::{
    event::{
        finding::{Diagnosis, Evidence, Fact, Finding, Role, Severity},
        identity::{BootNs, NsInum},
        snapshot::{Holder, SnapshotNamespace},
    },
    model::{Incident, IncidentKind, NamespaceRecord, NamespaceState, Stage},
    text::Count,
};

/// Holders that are listed.
const LISTED: usize = 10;
/// A parent has this many times as long to reap a PID 1.
const PATIENCE: u32 = 10;
/// How old what is known of holders may be.
const FRESH: Duration = Duration::from_secs(30);

pub(super) fn find(scene: &Scene<'_>) -> Vec<Finding> {
    let known = scene.world.namespaces();
    let known = known.filter_map(|state| held(scene, state).or_else(|| unreaped(scene, state)));
    known.chain(over(scene).filter_map(|(record, gone)| held_after_its_end(scene, record, gone))).collect()
}

/// The namespaces whose processes are gone, where no event shows whether they are too; the last of each number, and when they went.
fn over<'a>(scene: &'a Scene<'_>) -> impl Iterator<Item = (&'a NamespaceRecord, BootNs)> {
    let is_seen = scene.world.sees_destructions();
    let gone = scene.recent.gone().filter(move |record| !is_seen && record.death.is_some());
    gone.filter_map(|record| {
        let inum = record.ns.inum;
        let gone = record.gone.filter(|gone| scene.is_over(*gone, scene.thresholds.leaked))?;
        let is_last = scene.recent.last_namespace(inum).is_some_and(|last| last.gone == Some(gone));
        (is_last && scene.world.namespace(inum).is_none()).then_some((record, gone))
    })
}

fn held_after_its_end(scene: &Scene<'_>, record: &NamespaceRecord, gone: BootNs) -> Option<Finding> {
    let read = scene.readings.holders.get(&record.ns.inum).filter(|read| !read.holders.is_empty())?;
    if is_forked_into(scene, record.ns.inum, &read.holders) {
        return None;
    }
    let (evidence, next) = explained(scene, &record.ns, &read.holders, read.left_out, read.unread, true);
    Some(finding(Some(record.ns.clone()), gone, evidence, next))
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
    let is_over = |since: &BootNs| scene.at_once || scene.is_over(*since, scene.thresholds.leaked);
    let since = empty_since(scene, state).filter(is_over)?;
    let read = scene.readings.holders.get(&inum);
    let (holders, left_out, unread) = match read {
        Some(Holders { holders, left_out, unread, .. }) => (holders.as_slice(), *left_out, *unread),
        None => (state.holders.as_slice(), state.holders_left_out, 0),
    };
    let only_awaits_a_fork = holders.iter().all(|holder| matches!(holder, Holder::PidForChildren { .. }))
        && left_out == 0
        && state.init_start().is_none();
    // One whose holders are not read yet, or that may still get its first process.
    if read.is_none() && holders.is_empty() || only_awaits_a_fork && !holders.is_empty() {
        return None;
    }
    if is_forked_into(scene, inum, holders) {
        return None;
    }
    let is_gone_next = holders.is_empty() && left_out == 0 && unread == 0;
    if is_gone_next && !scene.is_over(since, PATIENCE * scene.thresholds.leaked) {
        return None;
    }
    let (evidence, next) = explained(scene, &state.namespace, holders, left_out, unread, read.is_some());
    Some(finding(scene.ns(inum), since, evidence, next))
}

/// What keeps it, and what to do about that.
fn explained(
    scene: &Scene<'_>,
    ns: &SnapshotNamespace,
    holders: &[Holder],
    left_out: u64,
    unread: u64,
    is_read: bool,
) -> (Vec<Evidence>, Vec<String>) {
    let fact = |fact| if is_read { scene.read(fact) } else { scene.known(fact) };
    let mut evidence: Vec<Evidence> =
        holders.iter().take(LISTED).map(|holder| fact(Fact::Holder { holder: holder.clone() })).collect();
    let left_out = left_out + holders.len().saturating_sub(LISTED) as u64;
    if left_out > 0 {
        evidence.push(fact(Fact::HoldersLeftOut { count: left_out }));
    }
    if unread > 0 {
        let what = format!("the open files of {} could not be read", Count(unread, "process", "processes"));
        evidence.push(fact(Fact::Unseen { what }));
    } else if evidence.is_empty() {
        let what = "nothing that /proc shows keeps it: such as a file that is sent over a socket";
        evidence.push(fact(Fact::Unseen { what: what.to_owned() }));
    }
    let mut next = vec![explain_ns(ns.inum)];
    next.extend(holders.iter().find_map(|holder| match holder {
        Holder::Fd { pid, .. } | Holder::PidForChildren { pid, .. } => Some(explain_process(*pid)),
        Holder::Mount { path, pid, .. } => {
            Some(format!("nsenter --mount --target {pid} umount {}", path.for_terminal()))
        }
        Holder::ProcMount(_) | Holder::Child { .. } => None,
    }));
    (evidence, next)
}

/// Whether only processes keep it whose forks into it fail: that is another finding.
fn is_forked_into(scene: &Scene<'_>, inum: NsInum, holders: &[Holder]) -> bool {
    let is_refused = |incident: &Incident| {
        let is_dead =
            matches!(&incident.kind, IncidentKind::ForkRefused { reason, .. } if reason == "namespace_dead");
        is_dead && incident.ns.as_ref().is_some_and(|ns| ns.inum == inum)
    };
    holders.iter().all(|holder| matches!(holder, Holder::PidForChildren { .. }))
        && scene.recent.incidents().any(is_refused)
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
    Some(finding(scene.ns(state.namespace.inum), since, evidence, next))
}

fn finding(
    ns: Option<SnapshotNamespace>,
    since_boot_ns: BootNs,
    evidence: Vec<Evidence>,
    next: Vec<String>,
) -> Finding {
    let (id, severity) = (Diagnosis::NamespaceLeaked, Severity::Warning);
    Finding { id, severity, since_boot_ns, ns, process: None, evidence, next }
}

/// What there is to read: what holds those that are not explained yet. `may_read_holders`: long enough ago that was done last.
pub(super) fn want(scene: &Scene<'_>, may_read_holders: bool, wanted: &mut Wanted) {
    let empty = scene.world.namespaces().filter(|state| {
        empty_since(scene, state).is_some_and(|since| scene.is_over(since, scene.thresholds.leaked))
    });
    let empty = empty.map(|state| state.namespace.inum).filter(|inum| is_due(scene, *inum, false));
    let over = over(scene).map(|(record, _)| record.ns.inum).filter(|inum| is_due(scene, *inum, true));
    let due: BTreeSet<NsInum> = empty.chain(over).collect();
    if may_read_holders {
        wanted.holders.extend(due);
    }
    // What is known to hold one is quickly read again.
    let known =
        scene.readings.holders.iter().filter(|(_, read)| read.left_out == 0 && !read.holders.is_empty());
    wanted.still_held.extend(known.map(|(inum, read)| (*inum, read.holders.clone())));
}

/// Whether it is not known what holds it, or was read too long ago. What held one whose end was seen does not come back.
fn is_due(scene: &Scene<'_>, inum: NsInum, is_over: bool) -> bool {
    match scene.readings.holders.get(&inum) {
        None => true,
        Some(read) if is_over && read.holders.is_empty() => false,
        Some(read) => scene.is_over(read.at, FRESH),
    }
}
