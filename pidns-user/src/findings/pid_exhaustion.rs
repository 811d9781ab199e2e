//! A limit on PIDs is reached or nearly reached: `pids.max` of an enclosing cgroup, `kernel.pid_max`,
//! `kernel.threads-max`, or RLIMIT_NPROC. Threads and zombies count.

use std::time::Duration;

use super::{
    DetectorInput,
    input::{self, by_namespace, explain_ns, hook_evidence},
    limit_use::{LimitUse, is_of_the_machine, own_pid_max, tightest},
    lives,
    readings::{HALF, LimitChain, MINUTE_NS, ReadRequest},
    thread_growth,
};
use crate::{
    event::{
        ReachedLimit,
        finding::{Diagnosis, Evidence, EvidenceSource, Fact, Finding, Severity},
        identity::{BootNs, NsInum},
        snapshot::SnapshotNamespace,
    },
    model::{Incident, IncidentKind, ProcessState, Stage},
    text::Count,
};

/// An open finding is closed when the usage is this many percentage points below the threshold.
const HYSTERESIS: u8 = 10;
/// Interval between readings of a namespace's limits, while the number of tasks changes or a limit is half used.
const BUSY: Duration = Duration::from_secs(1);
/// The same for all other namespaces.
const QUIET: Duration = Duration::from_secs(60);
/// Change in the number of tasks that counts as activity.
const TASKS: u64 = 8;
/// Maximum number of namespaces whose limits are read in one pass. Each takes about 30 µs.
const MAX_NAMESPACES_A_PASS: usize = 200;
/// Number of processes to list.
const LISTED: usize = 8;

pub(super) fn find(input: &DetectorInput<'_>) -> Vec<Finding> {
    let refused = by_namespace(input.recent.incidents().filter(|incident| {
        matches!(
            &incident.kind,
            IncidentKind::ForkRefused { reason, .. } | IncidentKind::CreationRefused { reason, .. }
                if ["pids_cgroup", "pid_max", "nproc_limit"].contains(&&**reason)
        ) && !input.has_passed(incident.last, input.thresholds.incident)
    }));
    let existing = input.world.namespaces().map(|state| {
        let refused = refused.iter().find(|(ns, _)| ns.inum == state.namespace.inum && state.is(ns));
        (&state.namespace, refused.map_or(&[][..], |(_, refused)| refused))
    });
    let gone = refused.iter().filter(|(ns, _)| input.existing(ns).is_none());
    let all = existing.chain(gone.map(|(ns, refused)| (ns, refused.as_slice())));
    all.filter_map(|(ns, refused)| of(input, ns, refused)).collect()
}

fn of(input: &DetectorInput<'_>, ns: &SnapshotNamespace, refused: &[&Incident]) -> Option<Finding> {
    let from_percent = input.thresholds.pids_percent;
    // Facts that are kept by inode number are about the namespace that has the number now.
    let existing = input.existing(ns).map(|state| state.namespace.inum);
    let tightest = existing.and_then(|inum| tightest(input, inum));
    let mut finding = Finding {
        id: Diagnosis::PidExhaustion,
        severity: Severity::Warning,
        since_boot_ns: tightest.as_ref().map_or(input.now, |limit| limit.at),
        ns: Some(input.latest_ns(ns)),
        process: None,
        evidence: Vec::new(),
        next: existing.map_or_else(Vec::new, |inum| {
            vec![explain_ns(inum), format!("pidns-trace ps {inum} --fields +threads")]
        }),
    };
    let from_percent =
        if input.is_open(&finding) { from_percent.saturating_sub(HYSTERESIS) } else { from_percent };
    let is_near = tightest.as_ref().is_some_and(|limit| limit.is_nearly_reached(from_percent));
    if refused.is_empty() && !is_near {
        return None;
    }
    let is_full = tightest.as_ref().is_some_and(|limit| limit.percent() >= 95);
    if !refused.is_empty() || is_full {
        finding.severity = Severity::Critical;
    }
    let mut latest = refused.to_vec();
    latest.sort_by_key(|incident| std::cmp::Reverse(incident.last));
    for incident in latest.iter().take(LISTED) {
        finding.since_boot_ns = finding.since_boot_ns.min(incident.first);
        finding.evidence.extend(input::incident_evidence(incident));
    }
    if let Some((at, limit)) = latest.iter().find_map(|refused| Some((refused.last, refused.limit.clone()?)))
    {
        let fact = Fact::Limit { limit, growth_per_minute: None, seconds_left: None };
        finding.evidence.push(hook_evidence(at, fact));
    }
    // List the whole chain, because another limit may be reached next.
    let chosen = tightest.as_ref().map(|tightest| tightest.limit.clone());
    finding.evidence.extend(tightest.map(LimitUse::evidence));
    let other = |limit| Fact::Limit { limit, growth_per_minute: None, seconds_left: None };
    let own = existing.and_then(|_| own_pid_max(ns)).filter(|limit| Some(limit) != chosen.as_ref());
    finding.evidence.extend(own.map(|limit| input.model_evidence(other(limit))));
    let chain = existing.and_then(|inum| input.readings.limits.get(&inum));
    if let Some(LimitChain { at, limits, unread, .. }) = chain {
        let others = limits.iter().filter(|limit| Some(*limit) != chosen.as_ref()).take(LISTED);
        finding.evidence.extend(others.map(|limit| Evidence {
            source: EvidenceSource::Proc,
            boot_ns: *at,
            fact: other(limit.clone()),
        }));
        if *unread > 0 {
            let what =
                format!("{} could not be read", Count(*unread, "limit of a cgroup", "limits of cgroups"));
            finding.evidence.push(input.proc_evidence(Fact::Unseen { what }));
        }
    }
    finding.evidence.extend(existing.and_then(|inum| fills(input, inum)));
    finding.evidence.extend(existing.map(|inum| young(input, inum)));
    let threads = existing.and_then(|inum| thread_growth::largest_of(input, inum));
    finding
        .evidence
        .extend(threads.map(|(process, threads)| input.proc_evidence(Fact::Threads { process, threads })));
    finding.evidence.extend(existing.and_then(|inum| lives::lives(input, inum)));
    Some(finding)
}

/// The zombies, which count too. Those that are reaped at once are omitted: they use up nothing.
fn fills(input: &DetectorInput<'_>, inum: NsInum) -> Option<Evidence> {
    let since =
        |state: &ProcessState| state.ended.as_ref()?.since.or_else(|| input.recent.zombie_since(state.key()));
    let zombies = || {
        let members = input.members(inum).filter(|state| !state.is_init());
        members.filter(|state| {
            let stays =
                since(state).is_some_and(|since| input.has_passed(since, input.thresholds.zombie_age));
            stays && inum != crate::event::INITIAL_NS
        })
    };
    let oldest = zombies().filter_map(since);
    let fact = Fact::Zombies {
        count: zombies().count() as u64,
        oldest_boot_ns: oldest.min()?,
        orphans: zombies().filter(|state| state.orphaned).count() as u64,
        names: lives::most_frequent(zombies().map(|state| &state.process.comm)),
        forked_by: Vec::new(),
    };
    Some(input.model_evidence(fact))
}

/// The processes that were started in the last minute and have not ended: they make the usage grow. The fact is there
/// even if there are none, so that short processes do not change the finding.
fn young(input: &DetectorInput<'_>, inum: NsInum) -> Evidence {
    let since = input.now.saturating_sub(MINUTE_NS);
    let members = input.members(inum).filter(|state| state.ended.is_none());
    let young: Vec<_> = members.filter(|state| state.process.start_boot_ns >= since).collect();
    input.model_evidence(Fact::Young {
        count: young.len() as u64,
        names: lives::most_frequent(young.iter().map(|state| &state.process.comm)),
        forked_by: lives::most_frequent(young.iter().filter_map(|state| input.recent.forked_by(state.key()))),
    })
}

/// Requests the limits of namespaces that are due.
pub(super) fn add_requests(input: &DetectorInput<'_>, request: &mut ReadRequest) {
    let mut due = Vec::new();
    for state in input.world.namespaces().filter(|state| matches!(state.stage, Stage::Alive)) {
        let (inum, Some(init)) = (state.namespace.inum, state.init) else { continue };
        let known = input.readings.limits.get(&inum);
        let is_near = known.is_some_and(|chain| {
            let own =
                chain.limits.iter().filter(|limit| state.namespace.level == 0 || !is_of_the_machine(limit));
            own.filter_map(ReachedLimit::percent).any(|percent| percent >= HALF)
        });
        let has_moved = known.is_some_and(|chain| chain.tasks.abs_diff(input.readings.tasks) >= TASKS);
        let is_busy = is_near || has_moved;
        let every = if is_busy { BUSY } else { QUIET };
        match known {
            None => due.push((BootNs(0), inum, init)),
            Some(chain) if input.has_passed(chain.at, every) => due.push((chain.at, inum, init)),
            Some(_) => {}
        }
    }
    due.sort_unstable();
    let count = if input.is_only_detection { due.len() } else { MAX_NAMESPACES_A_PASS };
    request.limits.extend(due.into_iter().take(count).map(|(_, inum, init)| (inum, init)));
}
