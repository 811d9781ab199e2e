//! A signal to PID 1 had no effect, because the kernel takes no default actions on an init (`sig_task_ignored()`,
//! kernel/signal.c).

use super::{
    DetectorInput,
    input::{self, by_namespace, init_exit_evidence},
};
use crate::{
    event::{
        finding::{Diagnosis, Finding, Severity},
        snapshot::SnapshotNamespace,
    },
    model::{Incident, IncidentKind},
};

/// Signals that request or cause the end of a process.
const MEANT_TO_END: [&str; 7] = ["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGKILL"];
/// Number of signals to list.
const LISTED: usize = 8;

pub(super) fn find(input: &DetectorInput<'_>) -> Vec<Finding> {
    let ignored = input.recent.incidents().filter(|incident| is_ignored(input, incident));
    by_namespace(ignored).into_iter().filter_map(|(ns, signals)| of(input, &ns, &signals)).collect()
}

/// Whether the signal should have ended PID 1, but did not.
fn is_ignored(input: &DetectorInput<'_>, incident: &Incident) -> bool {
    let IncidentKind::SignalIgnored { signal, from } = &incident.kind else { return false };
    let Some(ns) = &incident.ns else { return false };
    let death = input.recent.record_of(ns).and_then(|record| record.death.as_ref());
    // An exiting PID 1 ignores every signal.
    let was_exiting = death.is_some_and(|death| {
        death.at <= incident.first && death.process.key().is_same(incident.process.key())
    });
    MEANT_TO_END.contains(&signal.as_str())
        && from != "kernel"
        && !was_exiting
        && !input.has_passed(incident.last, input.thresholds.incident)
}

fn of(input: &DetectorInput<'_>, ns: &SnapshotNamespace, signals: &[&Incident]) -> Option<Finding> {
    let first = signals.iter().min_by_key(|incident| incident.first)?;
    let mut evidence = Vec::new();
    for incident in signals.iter().take(LISTED) {
        evidence.extend(input::incident_evidence(incident));
    }
    // The reaction: PID 1 was killed afterwards.
    if let Some(death) = input.recent.record_of(ns).and_then(|record| record.death.as_ref())
        && death.at > first.first
    {
        evidence.push(init_exit_evidence(death));
    }
    let mut next = Vec::from_iter(input.explain_existing(ns));
    if input.is_alive(first.process.key()) {
        next.push(format!("grep -E '^Sig(Cgt|Ign)' /proc/{}/status", first.process.pid));
    }
    Some(Finding {
        id: Diagnosis::InitIgnoredSignal,
        severity: Severity::Warning,
        since_boot_ns: first.first,
        ns: Some(input.latest_ns(ns)),
        process: Some(first.process.clone()),
        evidence,
        next,
    })
}
