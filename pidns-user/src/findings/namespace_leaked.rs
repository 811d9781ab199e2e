//! A namespace has no process, but a holder keeps it: an open file, a mount, a mounted proc, a process whose children
//! will be born in it, or a PID 1 that its parent has not reaped.

use std::{collections::BTreeMap, time::Duration};

use super::{
    DetectorInput,
    input::{explain_ns, explain_process},
    readings::{Holders, ReadRequest},
};
use crate::{
    event::{
        finding::{Diagnosis, Evidence, Fact, Finding, Role, Severity},
        identity::{BootNs, HostPid, NsInum},
        snapshot::{Holder, ProcMount, SnapshotNamespace},
    },
    model::{Incident, IncidentKind, NamespaceRecord, NamespaceState, Stage},
    text::{Count, Name},
};

/// Number of holders to list.
const LISTED: usize = 10;
/// The time limit is this many times longer for a PID 1 that its parent has not reaped.
const UNREAPED_INIT_FACTOR: u32 = 10;
/// Largest age of data about holders.
const FRESH: Duration = Duration::from_secs(30);

pub(super) fn find(input: &DetectorInput<'_>) -> Vec<Finding> {
    let known = input.world.namespaces();
    let known = known.filter_map(|state| held(input, state).or_else(|| unreaped(input, state)));
    let over = over(input).filter_map(|(record, gone)| held_after_its_end(input, record, gone));
    known.chain(over).chain(kept_by_a_proc(input)).collect()
}

/// Namespaces without processes or reported end: the last one with each number, and when its processes were gone.
fn over<'a>(input: &'a DetectorInput<'_>) -> impl Iterator<Item = (&'a NamespaceRecord, BootNs)> {
    let is_seen = input.world.sees_destructions();
    let gone = input.recent.gone().filter(move |record| !is_seen && record.death.is_some());
    gone.filter_map(|record| {
        let inum = record.ns.inum;
        let gone = record.gone.filter(|gone| input.has_passed(*gone, input.thresholds.leaked))?;
        let is_last = input.recent.last_namespace(inum).is_some_and(|last| last.gone == Some(gone));
        (is_last && input.world.namespace(inum).is_none()).then_some((record, gone))
    })
}

fn held_after_its_end(input: &DetectorInput<'_>, record: &NamespaceRecord, gone: BootNs) -> Option<Finding> {
    let read = input.readings.holders_of(&record.ns).filter(|read| !read.holders.is_empty())?;
    if is_forked_into(input, &record.ns, &read.holders) {
        return None;
    }
    let (evidence, next) = explained(input, &record.ns, &read.holders, read.left_out, read.unread, true);
    Some(finding(Some(record.ns.clone()), gone, evidence, next))
}

/// The time since which the namespace has no process; `None` if it has one or never had one.
fn empty_since(input: &DetectorInput<'_>, state: &NamespaceState) -> Option<BootNs> {
    if state.namespace.level == 0 || state.members > 0 {
        return None;
    }
    match state.stage {
        Stage::Empty => None,
        Stage::Held { since } => Some(since),
        Stage::Alive | Stage::Dying { .. } => input.recent.namespace(state.namespace.inum)?.empty_since,
    }
}

fn held(input: &DetectorInput<'_>, state: &NamespaceState) -> Option<Finding> {
    let inum = state.namespace.inum;
    let has_passed =
        |since: &BootNs| input.is_only_detection || input.has_passed(*since, input.thresholds.leaked);
    let since = empty_since(input, state).filter(has_passed)?;
    let read = input.readings.holders_of(&state.namespace);
    let (holders, left_out, unread) = match read {
        Some(Holders { holders, left_out, unread, .. }) => (holders.as_slice(), *left_out, *unread),
        None => (state.holders.as_slice(), state.holders_left_out, 0),
    };
    // The kernel shows such a link only after the namespace's first process was forked
    // (`pidns_for_children_get()`, kernel/pid_namespace.c). A single snapshot may list the processes before that fork.
    let may_be_new = input.is_only_detection
        && holders.iter().all(|holder| matches!(holder, Holder::PidForChildren { .. }))
        && left_out == 0
        && state.init_start().is_none();
    // Its holders are not read yet, or it is new.
    if read.is_none() && holders.is_empty() || may_be_new && !holders.is_empty() {
        return None;
    }
    if is_forked_into(input, &state.namespace, holders) {
        return None;
    }
    let is_gone_next = holders.is_empty() && left_out == 0 && unread == 0;
    if is_gone_next && !input.has_passed(since, input.thresholds.leaked.saturating_mul(UNREAPED_INIT_FACTOR))
    {
        return None;
    }
    let (evidence, next) = explained(input, &state.namespace, holders, left_out, unread, read.is_some());
    Some(finding(input.ns(inum), since, evidence, next))
}

/// The holders as evidence, and the commands to run next.
fn explained(
    input: &DetectorInput<'_>,
    ns: &SnapshotNamespace,
    holders: &[Holder],
    left_out: u64,
    unread: u64,
    is_read: bool,
) -> (Vec<Evidence>, Vec<String>) {
    let fact = |fact| if is_read { input.proc_evidence(fact) } else { input.model_evidence(fact) };
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
        let what =
            "its holder, which /proc does not show (for example a file that is in transit over a socket)";
        evidence.push(fact(Fact::Unseen { what: what.to_owned() }));
    }
    let mut next = vec![explain_ns(ns.inum)];
    next.extend(holders.iter().find_map(|holder| match holder {
        Holder::Fd { pid, .. } | Holder::PidForChildren { pid, .. } => Some(explain_process(*pid)),
        Holder::Mount { path, pid, .. } => Some(umount(path, *pid)),
        Holder::ProcMount(_) | Holder::Child { .. } => None,
    }));
    (evidence, next)
}

/// Whether all its holders are processes whose forks into it fail. That is another finding.
fn is_forked_into(input: &DetectorInput<'_>, ns: &SnapshotNamespace, holders: &[Holder]) -> bool {
    let is_refused = |incident: &Incident| {
        let is_dead =
            matches!(&incident.kind, IncidentKind::ForkRefused { reason, .. } if reason == "namespace_dead");
        is_dead && incident.ns.as_ref().is_some_and(|its| its.inum == ns.inum && !its.differs_from(ns))
    };
    holders.iter().all(|holder| matches!(holder, Holder::PidForChildren { .. }))
        && input.recent.incidents().any(is_refused)
}

/// A proc is mounted whose namespace has no process. That keeps the namespace, but the kernel does not show which one
/// it is.
fn kept_by_a_proc(input: &DetectorInput<'_>) -> Option<Finding> {
    let mounts = input.readings.empty_procs.iter().flatten();
    // A container that has just ended may unmount it in a moment.
    let has_passed =
        |since: BootNs| input.is_only_detection || input.has_passed(since, input.thresholds.leaked);
    let (mounts, since): (Vec<&ProcMount>, Vec<BootNs>) =
        mounts.filter(|(_, since)| has_passed(**since)).map(|(mount, since)| (mount, *since)).unzip();
    let holder = |mount: &&ProcMount| {
        input.proc_evidence(Fact::Holder { holder: Holder::ProcMount((*mount).clone()) })
    };
    let mut evidence: Vec<Evidence> = mounts.iter().take(LISTED).map(holder).collect();
    let left_out = mounts.len().saturating_sub(LISTED) as u64;
    if left_out > 0 {
        evidence.push(input.proc_evidence(Fact::HoldersLeftOut { count: left_out }));
    }
    let next = mounts.first().map(|mount| umount(&mount.path, mount.pid));
    Some(finding(None, since.into_iter().min()?, evidence, next.into_iter().collect()))
}

fn umount(path: &Name, pid: HostPid) -> String {
    format!("nsenter --mount --target {pid} umount {}", path.for_terminal())
}

/// All other members are gone, and PID 1 is a zombie.
fn unreaped(input: &DetectorInput<'_>, state: &NamespaceState) -> Option<Finding> {
    if state.members != 1 || !matches!(state.stage, Stage::Dying { torn_down: true, .. }) {
        return None;
    }
    let init = input.world.process(state.init?)?;
    let since = init.ended.as_ref()?.since.or_else(|| input.recent.zombie_since(init.key()))?;
    if !input.has_passed(since, input.thresholds.leaked.saturating_mul(UNREAPED_INIT_FACTOR)) {
        return None;
    }
    let reaper = input.reaper(init).and_then(|pid| input.process(pid))?;
    let next = vec![explain_ns(state.namespace.inum), explain_process(reaper.pid)];
    let evidence = vec![input.process_evidence(Role::Reaper, reaper)];
    Some(finding(input.ns(state.namespace.inum), since, evidence, next))
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

/// Requests the holders of unexplained namespaces. `may_read_holders`: enough time has passed since the last time.
pub(super) fn add_requests(input: &DetectorInput<'_>, may_read_holders: bool, request: &mut ReadRequest) {
    let empty = input.world.namespaces().filter(|state| {
        empty_since(input, state).is_some_and(|since| input.has_passed(since, input.thresholds.leaked))
    });
    let empty = empty.map(|state| &state.namespace).filter(|ns| is_due(input, ns, false));
    let over = over(input).map(|(record, _)| &record.ns).filter(|ns| is_due(input, ns, true));
    let due: BTreeMap<NsInum, SnapshotNamespace> =
        empty.chain(over).map(|ns| (ns.inum, ns.clone())).collect();
    if may_read_holders {
        request.holders.extend(due);
        // Those from before the start; readings of holders find later ones.
        request.empty_procs |= input.readings.empty_procs.is_none();
    }
    request.still_mounted.extend(input.readings.empty_procs.iter().flatten().map(|(mount, _)| mount.clone()));
    // Checking known holders again is fast.
    let known = input.readings.holders.iter();
    let known = known.filter(|(_, (_, read))| read.left_out == 0 && !read.holders.is_empty());
    request.still_held.extend(known.map(|(inum, (_, read))| (*inum, read.holders.clone())));
}

/// Whether its holders must be read: they are unknown or outdated. If a namespace is over and had no holder at the last
/// reading, it gets none later.
fn is_due(input: &DetectorInput<'_>, ns: &SnapshotNamespace, has_passed: bool) -> bool {
    match input.readings.holders_of(ns) {
        None => true,
        Some(read) if has_passed && read.holders.is_empty() => false,
        Some(read) => input.has_passed(read.at, FRESH),
    }
}
