//! PID 1 was killed, and all members with it: one record of who did it, what went with it, and how long that took.

use super::{
    Scene,
    scene::{self, explain_ns, explain_process, hooked, init_exit},
};
use crate::{
    event::{
        Cause, Exit, Process,
        finding::{Diagnosis, Fact, Finding, Severity},
    },
    model::{Death, Incident, IncidentKind, NamespaceRecord},
};

pub(super) fn find(scene: &Scene<'_>) -> Vec<Finding> {
    let found = scene.recent.namespaces().filter_map(|record| {
        let death = record.death.as_ref()?;
        let is_recent = !scene.is_over(death.at, scene.thresholds.incident);
        is_recent.then(|| of(scene, record, death)).flatten()
    });
    found.collect()
}

/// How severe it is that PID 1 ended so; `None` where it ended by itself, or the machine that it is was shut down.
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

fn of(scene: &Scene<'_>, record: &NamespaceRecord, death: &Death) -> Option<Finding> {
    let severity = severity(death)?;
    let init = &death.process;
    // What was tried before.
    let before = scene.recent.incidents().filter(|incident| is_before(incident, death, init));
    let mut evidence: Vec<_> = before.filter_map(scene::incident).take(4).collect();
    evidence.push(init_exit(death));
    if let Some(torn_down) = &record.torn_down {
        let fact = Fact::Teardown {
            killed: torn_down.killed,
            nested: torn_down.nested.clone(),
            duration_ns: torn_down.duration_ns,
        };
        evidence.push(hooked(torn_down.at, fact));
    }
    let sender = match &death.cause {
        Cause::Signal { sender: Some(sender), .. } => Some(sender.pid),
        Cause::ParentDeath { parent, .. } => Some(parent.pid),
        _ => None,
    };
    let sender = sender.filter(|pid| scene.world.process(*pid).is_some());
    let mut next = Vec::new();
    if scene.world.namespace(record.ns.inum).is_some_and(|state| state.is(&record.ns)) {
        next.push(explain_ns(record.ns.inum));
    }
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
