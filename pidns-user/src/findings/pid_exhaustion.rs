//! A limit on PIDs is reached, or nearly: `pids.max` of a cgroup around, `kernel.pid_max`, `kernel.threads-max`, RLIMIT_NPROC.
//! Threads and zombies count.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Scene,
    limit_use::{HALF, LimitUse, is_of_the_machine, percent, tightest},
    lives,
    readings::{LimitChain, Wanted},
    scene::{self, explain_ns, hooked},
};
use crate::{
    event::{
        finding::{Diagnosis, Evidence, EvidenceSource, Fact, Finding, Severity},
        identity::{BootNs, NsInum},
    },
    model::{Incident, IncidentKind, ProcessState, Stage},
    text::Count,
};

/// It counts as solved when so much less is used than where it begins, in percent.
const HYSTERESIS: u8 = 10;
/// How often the limits of a namespace are read while the machine gets or loses tasks, or a limit is half used; and else.
const BUSY: Duration = Duration::from_secs(1);
const QUIET: Duration = Duration::from_secs(60);
/// By so many tasks more or less something has happened.
const TASKS: u64 = 8;
/// Namespaces whose limits are read at once: each costs about 30 µs.
const AT_ONCE: usize = 200;
/// Processes that are listed.
const LISTED: usize = 8;

pub(super) fn find(scene: &Scene<'_>) -> Vec<Finding> {
    let mut refused: BTreeMap<NsInum, Vec<&Incident>> = BTreeMap::new();
    for incident in scene.recent.incidents() {
        if let IncidentKind::ForkRefused { reason, .. } | IncidentKind::CreationRefused { reason, .. } =
            &incident.kind
            && ["pids_cgroup", "pid_max", "nproc_limit"].contains(&&**reason)
            && !scene.is_over(incident.last, scene.thresholds.incident)
        {
            let inum = incident.ns.as_ref().map_or(incident.process.ns, |ns| ns.inum);
            refused.entry(inum).or_default().push(incident);
        }
    }
    let known = scene.world.namespaces().map(|state| state.namespace.inum);
    let all: std::collections::BTreeSet<_> = known.chain(refused.keys().copied()).collect();
    let none = Vec::new();
    all.into_iter().filter_map(|inum| of(scene, inum, refused.get(&inum).unwrap_or(&none))).collect()
}

fn of(scene: &Scene<'_>, inum: NsInum, refused: &[&Incident]) -> Option<Finding> {
    let from_percent = scene.thresholds.pids_percent;
    let tightest = tightest(scene, inum);
    let ns = scene.recent.last_namespace(inum).map(|record| record.ns.clone());
    let mut finding = Finding {
        id: Diagnosis::PidExhaustion,
        severity: Severity::Warning,
        since_boot_ns: tightest.as_ref().map_or(scene.now, |limit| limit.at),
        ns: scene.ns(inum).or(ns),
        process: None,
        evidence: Vec::new(),
        next: vec![explain_ns(inum), format!("pidns-trace ps {inum} --fields +threads")],
    };
    let from_percent =
        if scene.is_open(&finding) { from_percent.saturating_sub(HYSTERESIS) } else { from_percent };
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
        finding.evidence.extend(scene::incident(incident));
    }
    if let Some((at, limit)) = latest.iter().find_map(|refused| Some((refused.last, refused.limit.clone()?)))
    {
        let fact = Fact::Limit { limit, growth_per_minute: None, seconds_left: None };
        finding.evidence.push(hooked(at, fact));
    }
    // The whole chain: another limit may be the next.
    if let Some(LimitChain { at, limits, unread, .. }) = scene.readings.limits.get(&inum) {
        let chosen = tightest.as_ref().map(|tightest| tightest.limit.clone());
        finding.evidence.extend(tightest.map(LimitUse::evidence));
        let others = limits.iter().filter(|limit| Some(*limit) != chosen.as_ref()).take(LISTED);
        finding.evidence.extend(others.map(|limit| Evidence {
            source: EvidenceSource::Proc,
            boot_ns: *at,
            fact: Fact::Limit { limit: limit.clone(), growth_per_minute: None, seconds_left: None },
        }));
        if *unread > 0 {
            let what =
                format!("{} could not be read", Count(*unread, "limit of a cgroup", "limits of cgroups"));
            finding.evidence.push(scene.read(Fact::Unseen { what }));
        }
    }
    finding.evidence.extend(fills(scene, inum));
    finding.evidence.extend(lives::lives(scene, inum));
    Some(finding)
}

/// What there is of zombies, which count as well. Those that are reaped at once use up nothing.
fn fills(scene: &Scene<'_>, inum: NsInum) -> Option<Evidence> {
    let since =
        |state: &ProcessState| state.ended.as_ref()?.since.or_else(|| scene.recent.zombie_since(state.key()));
    let zombies = || {
        let members = scene.world.processes().filter(|state| state.process.ns == inum && !state.is_init());
        members.filter(|state| {
            let stays = since(state).is_some_and(|since| scene.is_over(since, scene.thresholds.zombie_age));
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
    Some(scene.known(fact))
}

/// What there is to read: the limits of namespaces that are due.
pub(super) fn want(scene: &Scene<'_>, wanted: &mut Wanted) {
    let mut due = Vec::new();
    for state in scene.world.namespaces().filter(|state| matches!(state.stage, Stage::Alive)) {
        let (inum, Some(init)) = (state.namespace.inum, state.init) else { continue };
        let known = scene.readings.limits.get(&inum);
        let is_near = known.is_some_and(|chain| {
            let own =
                chain.limits.iter().filter(|limit| state.namespace.level == 0 || !is_of_the_machine(limit));
            own.filter_map(percent).any(|percent| percent >= HALF)
        });
        let has_moved = known.is_some_and(|chain| chain.tasks.abs_diff(scene.readings.tasks) >= TASKS);
        let is_busy = is_near || has_moved;
        let every = if is_busy { BUSY } else { QUIET };
        match known {
            None => due.push((BootNs(0), inum, init)),
            Some(chain) if scene.is_over(chain.at, every) => due.push((chain.at, inum, init)),
            Some(_) => {}
        }
    }
    due.sort_unstable();
    let count = if scene.at_once { due.len() } else { AT_ONCE };
    wanted.limits.extend(due.into_iter().take(count).map(|(_, inum, init)| (inum, init)));
}
