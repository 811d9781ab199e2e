//! A PID namespace could not be created: it would be deeper than level 32, or its user namespace has reached its limit
//! (user.max_pid_namespaces). The kernel returns ENOSPC for both (`create_pid_namespace()`, kernel/pid_namespace.c). A
//! call that also creates a user namespace can reach the limit on those first (user.max_user_namespaces).

use super::{
    DetectorInput,
    input::{self, by_namespace, explain_process, hook_evidence},
    lives::most_frequent,
};
use crate::{
    event::{
        MAX_LEVEL,
        finding::{Diagnosis, Evidence, Fact, Finding, Severity},
        snapshot::SnapshotNamespace,
    },
    model::{Incident, IncidentKind},
};

/// Number of processes to list.
const LISTED: usize = 8;

pub(super) fn find(input: &DetectorInput<'_>) -> Vec<Finding> {
    let refused = input.recent.incidents().filter(|incident| {
        matches!(&incident.kind, IncidentKind::CreationRefused { reason, .. }
            if ["depth_limit", "count_limit"].contains(&&**reason))
            && !input.has_passed(incident.last, input.thresholds.incident)
    });
    by_namespace(refused).into_iter().filter_map(|(ns, refused)| of(input, &ns, &refused)).collect()
}

fn of(input: &DetectorInput<'_>, ns: &SnapshotNamespace, refused: &[&Incident]) -> Option<Finding> {
    let mut latest = refused.to_vec();
    latest.sort_by_key(|incident| std::cmp::Reverse(incident.last));
    let last = latest.first()?;
    let mut evidence = Vec::new();
    let mut next = vec![explain_process(last.process.pid)];
    for incident in latest.iter().take(LISTED) {
        let IncidentKind::CreationRefused { reason, .. } = &incident.kind else { continue };
        evidence.extend(input::incident_evidence(incident));
        if let Some(limit) = incident.limit.clone() {
            let fact = Fact::Limit { limit, growth_per_minute: None, seconds_left: None };
            evidence.push(hook_evidence(incident.last, fact));
        }
        let kind = incident.limit.as_ref().map(|limit| &*limit.kind);
        let command = match (&**reason, kind) {
            ("count_limit", Some("max_user_namespaces")) => "sysctl user.max_user_namespaces; lsns -t user",
            ("count_limit", Some("max_pid_namespaces")) => "sysctl user.max_pid_namespaces; lsns -t pid",
            ("count_limit", _) => {
                "sysctl user.max_pid_namespaces user.max_user_namespaces; lsns -t pid -t user"
            }
            _ => "pidns-trace tree",
        };
        if !next.iter().any(|known| known == command) {
            next.push(command.to_owned());
        }
    }
    let full = latest.iter().find_map(|incident| {
        let limit = incident.limit.as_ref()?;
        limit.user_ns.filter(|_| limit.kind == "max_pid_namespaces")
    });
    evidence.extend(full.map(|user_ns| counted(input, user_ns)));
    let level = last.process.pids.len().saturating_sub(1) as u32;
    evidence.push(input.model_evidence(Fact::Depth { level, limit: MAX_LEVEL }));
    Some(Finding {
        id: Diagnosis::CreationRefused,
        severity: Severity::Warning,
        since_boot_ns: refused.iter().map(|incident| incident.first).min()?,
        ns: Some(input.latest_ns(ns)),
        process: None,
        evidence,
        next,
    })
}

/// The PID namespaces that use up the limit of a user namespace, those with a holder but no process included.
fn counted(input: &DetectorInput<'_>, user_ns: u32) -> Evidence {
    let known = || input.world.namespaces().filter(|state| state.namespace.user_ns == Some(user_ns));
    let inits: Vec<_> = known().filter_map(|state| input.world.process(state.init?)).collect();
    input.model_evidence(Fact::Namespaces {
        user_ns,
        count: known().count() as u64,
        without_process: known().filter(|state| state.members == 0).count() as u64,
        names: most_frequent(inits.iter().map(|init| &init.process.comm)),
    })
}
