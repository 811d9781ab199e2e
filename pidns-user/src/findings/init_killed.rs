//! PID 1 was killed, and all members died with it: the finding names the killer, the victims and the duration.

use super::{
    DetectorInput,
    input::{self, explain_process, hook_evidence, init_exit_evidence},
};
use crate::{
    event::{
        Cause, Exit, Process,
        finding::{Diagnosis, Fact, Finding, Severity},
    },
    model::{Death, Incident, IncidentKind, NamespaceRecord},
};

pub(super) fn find(input: &DetectorInput<'_>) -> Vec<Finding> {
    let found = input.recent.namespaces().filter_map(|record| {
        let death = record.death.as_ref()?;
        let is_recent = !input.has_passed(death.at, input.thresholds.incident);
        is_recent.then(|| of(input, record, death)).flatten()
    });
    found.collect()
}

/// Severity of this end of PID 1. `None` if PID 1 exited itself or its namespace was rebooted or shut down.
fn severity(death: &Death) -> Option<Severity> {
    match (&death.cause, &death.exit) {
        (Cause::Oom { .. } | Cause::Fault { .. }, _) => Some(Severity::Critical),
        (Cause::Cascade { .. }, _) => Some(Severity::Info),
        (Cause::Signal { .. } | Cause::ParentDeath { .. } | Cause::Unknown, Exit::Signal { .. }) => {
            Some(Severity::Warning)
        }
        (Cause::Exited | Cause::Reboot { .. }, _) | (_, Exit::Code { .. }) => None,
    }
}

fn of(input: &DetectorInput<'_>, record: &NamespaceRecord, death: &Death) -> Option<Finding> {
    let severity = severity(death)?;
    let init = &death.process;
    // Signals that PID 1 ignored before it was killed.
    let before = input.recent.incidents().filter(|incident| is_before(incident, death, init));
    let mut evidence: Vec<_> = before.filter_map(input::incident_evidence).take(4).collect();
    evidence.push(init_exit_evidence(death));
    if let Some(torn_down) = &record.torn_down {
        let fact = Fact::Teardown {
            killed: torn_down.killed,
            nested: torn_down.nested.clone(),
            duration_ns: torn_down.duration_ns,
        };
        evidence.push(hook_evidence(torn_down.at, fact));
        evidence.extend(record.held_up_by.iter().cloned());
    }
    let sender = match &death.cause {
        Cause::Signal { sender: Some(sender), .. } => Some(sender.pid),
        Cause::ParentDeath { parent, .. } => Some(parent.pid),
        _ => None,
    };
    let sender = sender.filter(|pid| input.world.process(*pid).is_some());
    let mut next = Vec::from_iter(input.explain_existing(&record.ns));
    next.extend(sender.map(explain_process));
    if matches!(death.cause, Cause::Oom { .. }) {
        next.push("dmesg --ctime | grep -i 'killed process'".to_owned());
    }
    Some(Finding {
        id: Diagnosis::InitKilled,
        severity,
        since_boot_ns: death.at,
        ns: Some(record.ns.clone()),
        process: Some(init.clone()),
        evidence,
        next,
    })
}

fn is_before(incident: &Incident, death: &Death, init: &Process) -> bool {
    let is_signal = matches!(incident.kind, IncidentKind::SignalIgnored { .. });
    is_signal && incident.first < death.at && incident.process.key().is_same(init.key())
}
