//! PID 1 is exiting, and a member of its namespace does not go.
//!
//! `zap_pid_ns_processes()` (kernel/pid_namespace.c) kills all members and sleeps until each is reaped. It sleeps in state S, so
//! that the kernel's hung task detector reports nothing.

use std::time::Duration;

use super::{
    Scene,
    readings::{MOST_MEMBERS, Wanted},
    scene::{explain_ns, explain_process, init_exit},
};
use crate::{
    event::{
        Process,
        finding::{BlockedBy, Diagnosis, Evidence, EvidenceSource, Fact, Finding, Severity},
        identity::{BootNs, HostPid, NsInum},
    },
    model::{Awaited, Forest, Reason, Stage},
    procfs::doing::Doing,
};

/// Processes that are listed.
const LISTED: usize = 10;
/// How long what the members are doing is waited for.
const READING: Duration = Duration::from_secs(5);

pub(super) fn find(scene: &Scene<'_>) -> Vec<Finding> {
    let blocked: Vec<_> = waiting(scene).collect();
    if blocked.is_empty() {
        return Vec::new();
    }
    let forest = Forest::new(scene.snapshot());
    blocked.into_iter().filter_map(|(inum, since)| of(scene, &forest, inum, since)).collect()
}

/// The outermost namespaces that wait for members, for long enough, and since when.
fn waiting<'a>(scene: &'a Scene<'_>) -> impl Iterator<Item = (NsInum, BootNs)> + 'a {
    let since = |inum: NsInum| {
        let state = scene.world.namespace(inum)?;
        let Stage::Dying { since, torn_down: false, .. } = state.stage else { return None };
        // A zombie PID 1 has waited already.
        let init = state.init.and_then(|init| scene.world.process(init));
        if init.is_some_and(|init| init.ended.is_some() && !scene.world.is_exiting(init)) {
            return None;
        }
        since.or_else(|| scene.recent.namespace(inum)?.dying_since)
    };
    scene.world.namespaces().filter_map(move |state| {
        let inum = state.namespace.inum;
        let since_this = since(inum).filter(|since| scene.is_over(*since, scene.thresholds.teardown))?;
        let outer = state.namespace.parent.and_then(since);
        outer.is_none().then_some((inum, since_this))
    })
}

fn of(scene: &Scene<'_>, forest: &Forest<'_>, inum: NsInum, since: BootNs) -> Option<Finding> {
    let awaited = forest.awaited_by(inum);
    // What the members are doing now is read first, and takes a moment.
    let is_read = |awaited: &Awaited| {
        let key = awaited.process.key();
        key.is_some_and(|key| scene.readings.doing.contains_key(&key))
    };
    let is_late = scene.is_over(since, scene.thresholds.teardown + READING);
    if scene.can_read && !is_late && !awaited.iter().any(is_read) {
        return None;
    }
    let mut blockers: Vec<Evidence> =
        awaited.iter().filter_map(|awaited| blocker(scene, forest, awaited, inum)).collect();
    // Those that nothing keeps go with those that something does.
    let is_explained = |evidence: &Evidence| matches!(evidence.fact, Fact::Blocker { by, .. } if by != BlockedBy::Unknown && by != BlockedBy::OwnNamespace);
    if blockers.iter().any(is_explained) {
        blockers.retain(is_explained);
    }
    if blockers.is_empty() {
        return None;
    }
    blockers.truncate(LISTED);
    let keeper = blockers.iter().find_map(|evidence| match &evidence.fact {
        Fact::Blocker { keeper: Some(keeper), .. } => Some((**keeper).clone()),
        _ => None,
    });
    let mut next = vec![explain_ns(inum)];
    next.extend(keeper.as_ref().map(|keeper| explain_process(keeper.pid)));
    let death = scene.recent.namespace(inum).and_then(|record| record.death.as_ref());
    let death = death.map(init_exit);
    let unread =
        scene.readings.doing.iter().filter(|(key, read)| {
            read.is_err() && awaited.iter().any(|awaited| awaited.process.pid == key.pid)
        });
    let unread: Vec<_> = unread
        .filter_map(|(_, read)| Some(scene.read(Fact::Unseen { what: read.as_ref().err()?.clone() })))
        .take(1)
        .collect();
    Some(Finding {
        id: Diagnosis::TeardownBlocked,
        severity: Severity::Critical,
        since_boot_ns: since,
        ns: scene.ns(inum),
        process: None,
        evidence: death.into_iter().chain(blockers).chain(unread).collect(),
        next,
    })
}

/// Why this process is still there.
fn blocker(scene: &Scene<'_>, forest: &Forest<'_>, awaited: &Awaited, ending: NsInum) -> Option<Evidence> {
    let state = scene.world.process(awaited.process.pid)?;
    let process = super::scene::described(state);
    let read = scene.readings.doing.get(&state.key()).and_then(|read| read.as_ref().ok());
    let (by, keeper, wchan) = match read {
        Some(doing) => {
            // The cgroup is not always to be read.
            let is_frozen = matches!(awaited.why, Some(Reason::Frozen));
            by_reading(scene, forest, &process, (doing, is_frozen), ending)
        }
        None => {
            let (by, keeper) = by_model(awaited.why.as_ref());
            (by, keeper, None)
        }
    };
    let keeper = keeper.and_then(|pid| scene.process(pid)).map(Box::new);
    let fact = Fact::Blocker { process, by, keeper, wchan };
    Some(match read {
        Some(_) => Evidence { source: EvidenceSource::Proc, boot_ns: scene.readings.at, fact },
        None => scene.known(fact),
    })
}

fn by_reading(
    scene: &Scene<'_>,
    forest: &Forest<'_>,
    process: &Process,
    (doing, is_known_frozen): (&Doing, bool),
    ending: NsInum,
) -> (BlockedBy, Option<HostPid>, Option<crate::text::Name>) {
    let wchan = || doing.wchan.clone();
    let traced = doing.tracer.filter(|tracer| *tracer != doing.ppid);
    match doing.state {
        'Z' | 'X' => match traced {
            Some(tracer) => (BlockedBy::Tracer, Some(tracer), None),
            None => {
                let parent = scene.world.process(doing.ppid);
                let is_inside = parent.is_some_and(|parent| scene.world.is_within(parent.process.ns, ending));
                match is_inside {
                    true => (BlockedBy::Unknown, None, None),
                    false => (BlockedBy::Parent, Some(doing.ppid), None),
                }
            }
        },
        _ if doing.frozen || is_known_frozen => (BlockedBy::Freezer, None, wchan()),
        't' => (BlockedBy::Tracer, doing.tracer, None),
        'D' => (BlockedBy::Kernel, None, wchan()),
        _ if process.pids.last() == Some(&1) && forest.ends_with(process.ns).is_some() => {
            (BlockedBy::OwnNamespace, None, None)
        }
        _ => (BlockedBy::Unknown, None, wchan()),
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

/// What there is to read: what the members of namespaces that wait are doing.
pub(super) fn want(scene: &Scene<'_>, wanted: &mut Wanted) {
    let blocked: Vec<_> = waiting(scene).map(|(inum, _)| inum).collect();
    for inum in blocked {
        let members = scene.world.processes().filter(|state| {
            scene.world.is_within(state.process.ns, inum) && !(state.is_init() && state.process.ns == inum)
        });
        wanted.doing.extend(members.take(MOST_MEMBERS).map(|state| state.key()));
    }
}
