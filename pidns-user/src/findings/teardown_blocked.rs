//! PID 1 is exiting, but a member of its namespace does not end.
//!
//! `zap_pid_ns_processes()` (kernel/pid_namespace.c) kills all members and sleeps until each is reaped. It sleeps in
//! state S, so the kernel's hung task detector reports nothing.

use std::time::Duration;

use super::{
    DetectorInput,
    input::{explain_ns, explain_process, init_exit_evidence},
    readings::{MAX_MEMBERS, ReadRequest},
};
use crate::{
    event::{
        Process,
        finding::{BlockedBy, Diagnosis, Evidence, EvidenceSource, Fact, Finding, Severity},
        identity::{BootNs, HostPid, NsInum},
    },
    model::{Awaited, Forest, Reason, Stage},
    procfs::activity::ProcessActivity,
};

/// Number of processes to list.
const LISTED: usize = 10;
/// How long to wait for the state of the members.
const READING: Duration = Duration::from_secs(5);

pub(super) fn find(input: &DetectorInput<'_>) -> Vec<Finding> {
    let blocked: Vec<_> = waiting(input).collect();
    if blocked.is_empty() {
        return Vec::new();
    }
    let forest = Forest::new(input.snapshot());
    blocked.into_iter().filter_map(|(inum, since)| of(input, &forest, inum, since)).collect()
}

/// The outermost namespaces that have waited for members long enough, and since when.
fn waiting<'a>(input: &'a DetectorInput<'_>) -> impl Iterator<Item = (NsInum, BootNs)> + 'a {
    let since = |inum: NsInum| {
        let state = input.world.namespace(inum)?;
        let Stage::Dying { since, torn_down: false, .. } = state.stage else { return None };
        // If PID 1 is a zombie, its wait is over.
        let init = state.init.and_then(|init| input.world.process(init));
        if init.is_some_and(|init| init.ended.is_some() && !input.world.is_exiting(init)) {
            return None;
        }
        since.or_else(|| input.recent.namespace(inum)?.dying_since)
    };
    input.world.namespaces().filter_map(move |state| {
        let inum = state.namespace.inum;
        let since_this = since(inum).filter(|since| input.has_passed(*since, input.thresholds.teardown))?;
        let outer = state.namespace.parent.and_then(since);
        outer.is_none().then_some((inum, since_this))
    })
}

fn of(input: &DetectorInput<'_>, forest: &Forest<'_>, inum: NsInum, since: BootNs) -> Option<Finding> {
    let mut awaited = forest.awaited_by(inum);
    let is_gone =
        |awaited: &Awaited| awaited.process.key().is_some_and(|key| input.readings.gone.contains(&key));
    awaited.retain(|awaited| !is_gone(awaited));
    // The state of the members is read first, which takes a moment.
    let is_read = |awaited: &Awaited| {
        let key = awaited.process.key();
        key.is_some_and(|key| input.readings.activity.contains_key(&key))
    };
    let is_late = input.has_passed(since, input.thresholds.teardown.saturating_add(READING));
    if input.has_reader && !is_late && !awaited.iter().any(is_read) {
        return None;
    }
    let mut blockers: Vec<Evidence> =
        awaited.iter().filter_map(|awaited| blocker(input, forest, awaited, inum)).collect();
    // If some members are blocked, the others only wait with them and are not listed.
    let is_explained = |evidence: &Evidence| matches!(evidence.fact, Fact::Blocker { by, .. } if by != BlockedBy::Unknown && by != BlockedBy::OwnNamespace);
    if blockers.iter().any(is_explained) {
        blockers.retain(is_explained);
    } else if needs_snapshot(input, since) && !is_late {
        return None;
    }
    if blockers.is_empty() {
        return None;
    }
    let left_out = blockers.len().saturating_sub(LISTED) as u64;
    blockers.truncate(LISTED);
    let left_out = (left_out > 0).then(|| input.model_evidence(Fact::ProcessesLeftOut { count: left_out }));
    let keeper = blockers.iter().find_map(|evidence| match &evidence.fact {
        Fact::Blocker { keeper: Some(keeper), .. } => Some((**keeper).clone()),
        _ => None,
    });
    let mut next = vec![explain_ns(inum)];
    next.extend(keeper.as_ref().map(|keeper| explain_process(keeper.pid)));
    let death = input.recent.namespace(inum).and_then(|record| record.death.as_ref());
    let death = death.map(init_exit_evidence);
    let unread =
        input.readings.activity.iter().filter(|(key, read)| {
            read.is_err() && awaited.iter().any(|awaited| awaited.process.pid == key.pid)
        });
    let unread: Vec<_> = unread
        .filter_map(|(_, read)| {
            Some(input.proc_evidence(Fact::Unseen { what: read.as_ref().err()?.clone() }))
        })
        .take(1)
        .collect();
    Some(Finding {
        id: Diagnosis::TeardownBlocked,
        severity: Severity::Critical,
        since_boot_ns: since,
        ns: input.ns(inum),
        process: None,
        evidence: death.into_iter().chain(blockers).chain(left_out).chain(unread).collect(),
        next,
    })
}

/// Whether the process that PID 1 waits for may have joined after the last snapshot.
fn needs_snapshot(input: &DetectorInput<'_>, since: BootNs) -> bool {
    let late = input.thresholds.teardown.as_nanos().try_into().unwrap_or(u64::MAX);
    input.world.processes_as_of().is_some_and(|as_of| as_of < since.saturating_add(late))
}

/// Whether a namespace waits for members, and none of the known members explains that. Only a new snapshot shows the
/// others. After it there are none: a namespace whose PID 1 is exiting gets no more members.
pub(super) fn needs_snapshot_again(input: &DetectorInput<'_>, found: &[Finding]) -> bool {
    waiting(input).any(|(inum, since)| {
        let is_found = || {
            found.iter().any(|finding| {
                finding.id == Diagnosis::TeardownBlocked
                    && finding.ns.as_ref().is_some_and(|ns| ns.inum == inum)
            })
        };
        needs_snapshot(input, since) && !is_found()
    })
}

/// The reason why this process is still there.
fn blocker(
    input: &DetectorInput<'_>,
    forest: &Forest<'_>,
    awaited: &Awaited,
    ending: NsInum,
) -> Option<Evidence> {
    let state = input.world.process(awaited.process.pid)?;
    let process = super::input::described(state);
    let read = input.readings.activity.get(&state.key()).and_then(|read| read.as_ref().ok());
    let (by, keeper, wchan) = match read {
        Some(activity) => {
            // The freezer state may not be readable from the cgroup.
            let is_frozen = matches!(awaited.why, Some(Reason::Frozen));
            by_reading(input, forest, &process, (activity, is_frozen), ending)
        }
        None => {
            let (by, keeper) = by_model(awaited.why.as_ref());
            (by, keeper.and_then(|pid| input.process(pid)), None)
        }
    };
    let keeper = keeper.map(Box::new);
    let fact = Fact::Blocker { process, by, keeper, wchan };
    Some(match read {
        Some(_) => Evidence { source: EvidenceSource::Proc, boot_ns: input.readings.at, fact },
        None => input.model_evidence(fact),
    })
}

fn by_reading(
    input: &DetectorInput<'_>,
    forest: &Forest<'_>,
    process: &Process,
    (activity, is_known_frozen): (&ProcessActivity, bool),
    ending: NsInum,
) -> (BlockedBy, Option<Process>, Option<crate::text::Name>) {
    let wchan = || activity.wchan.clone();
    let traced = activity.tracer.filter(|tracer| *tracer != activity.ppid);
    match activity.state {
        'Z' | 'X' => match traced {
            Some(tracer) => (BlockedBy::Tracer, keeper(input, tracer), None),
            // This /proc shows no parent, so it is outside.
            None if activity.ppid.0 == 0 => (BlockedBy::Parent, None, None),
            None => match keeper(input, activity.ppid) {
                Some(parent) if !input.world.is_within(parent.ns, ending) => {
                    (BlockedBy::Parent, Some(parent), None)
                }
                // PID 1 reaps it next; or its parent has just ended.
                Some(_) | None => (BlockedBy::Unknown, None, None),
            },
        },
        _ if activity.frozen || is_known_frozen => (BlockedBy::Freezer, None, wchan()),
        't' => (BlockedBy::Tracer, activity.tracer.and_then(|tracer| keeper(input, tracer)), None),
        'D' => (BlockedBy::Kernel, None, wchan()),
        _ if process.pids.last() == Some(&1) && forest.ends_with(process.ns).is_some() => {
            (BlockedBy::OwnNamespace, None, None)
        }
        _ => (BlockedBy::Unknown, None, wchan()),
    }
}

/// The process with this PID: as /proc shows it, because the model may not have it yet, or may have an earlier one.
fn keeper(input: &DetectorInput<'_>, pid: HostPid) -> Option<Process> {
    match (input.process(pid), input.readings.keepers.get(&pid)) {
        // The model also knows its container.
        (Some(known), Some(read)) if known.key().is_same(read.key()) => Some(known),
        (_, Some(read)) => Some(read.clone()),
        (known, None) => known,
    }
}

fn by_model(why: Option<&Reason>) -> (BlockedBy, Option<HostPid>) {
    match why {
        Some(Reason::NotReaped { pid, .. }) => (BlockedBy::Parent, *pid),
        Some(Reason::Traced { pid, .. }) => (BlockedBy::Tracer, Some(*pid)),
        Some(Reason::Frozen) => (BlockedBy::Freezer, None),
        Some(Reason::Uninterruptible) => (BlockedBy::Kernel, None),
        Some(Reason::OwnNamespace) => (BlockedBy::OwnNamespace, None),
        Some(Reason::Ending) | None => (BlockedBy::Unknown, None),
    }
}

/// Requests the state of the members of waiting namespaces.
pub(super) fn add_requests(input: &DetectorInput<'_>, request: &mut ReadRequest) {
    let blocked: Vec<_> = waiting(input).map(|(inum, _)| inum).collect();
    for inum in blocked {
        let members = input.world.processes().filter(|state| {
            input.world.is_within(state.process.ns, inum) && !(state.is_init() && state.process.ns == inum)
        });
        request.activity.extend(members.take(MAX_MEMBERS).map(|state| state.key()));
    }
}
