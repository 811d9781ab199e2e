//! All that a detector reads.

use std::{cell::OnceCell, collections::BTreeSet, time::Duration};

use super::{Thresholds, readings::Readings};
use crate::{
    event::{
        Process,
        finding::{Evidence, EvidenceSource, Fact, Finding, FindingKey, Role},
        identity::{BootNs, HostPid, NsInum, ProcessKey},
        snapshot::{Snapshot, SnapshotNamespace},
    },
    model::{Death, Incident, IncidentKind, ProcessState, Recent, World},
};

/// The state of the host at one moment.
pub struct Scene<'a> {
    /// What exists.
    pub world: &'a World,
    /// What happened lately.
    pub recent: &'a Recent,
    /// What was read of /proc.
    pub readings: &'a Readings,
    /// From when on something is a finding.
    pub thresholds: &'a Thresholds,
    /// The moment.
    pub now: BootNs,
    /// Whether more can be read of /proc: what is missing comes a moment later.
    pub can_read: bool,
    /// Whether this is the only detection: a namespace that is held without a process counts at once, as its start is unknown.
    pub at_once: bool,
    /// The findings that are open.
    pub open: &'a BTreeSet<FindingKey>,
    /// The namespaces that are asked about.
    pub asked: &'a BTreeSet<NsInum>,
    pub(super) snapshot: OnceCell<Snapshot>,
}

impl Scene<'_> {
    /// What exists as a snapshot has it; made when it is first asked for.
    pub(super) fn snapshot(&self) -> &Snapshot {
        self.snapshot.get_or_init(|| self.world.snapshot())
    }

    /// Whether this long has passed since then.
    pub(super) fn is_over(&self, since: BootNs, time: Duration) -> bool {
        u128::from(self.now.saturating_since(since)) >= time.as_nanos()
    }

    /// The namespace of this number, as findings name it.
    pub(super) fn ns(&self, inum: NsInum) -> Option<SnapshotNamespace> {
        self.world.namespace(inum).map(|state| state.namespace.clone())
    }

    /// The same process, as it was described last.
    pub(super) fn latest(&self, process: &Process) -> Process {
        let is_it = |state: &&ProcessState| state.key().is_same(process.key());
        self.world.process(process.pid).filter(is_it).map_or_else(|| process.clone(), described)
    }

    /// The process of this PID.
    pub(super) fn process(&self, pid: HostPid) -> Option<Process> {
        self.world.process(pid).map(described)
    }

    /// Whether this very process lives.
    pub(super) fn is_alive(&self, key: ProcessKey) -> bool {
        self.world.process(key.pid).is_some_and(|state| state.key().is_same(key) && state.ended.is_none())
    }

    /// The process that must wait for this one when it ends: its tracer, or else its parent.
    pub(super) fn reaper(&self, state: &ProcessState) -> Option<HostPid> {
        state.observed.tracer.or(state.parent)
    }

    /// A fact that the model has.
    pub(super) fn known(&self, fact: Fact) -> Evidence {
        let boot_ns = self.world.processes_as_of().unwrap_or(self.now);
        Evidence { source: EvidenceSource::Snapshot, boot_ns, fact }
    }

    /// A fact that was read of /proc.
    pub(super) fn read(&self, fact: Fact) -> Evidence {
        Evidence { source: EvidenceSource::Proc, boot_ns: self.readings.at, fact }
    }

    /// A process with its role.
    pub(super) fn role(&self, role: Role, process: Process) -> Evidence {
        let ended = !self.is_alive(process.key());
        self.known(Fact::Process { role, process, ended })
    }

    /// Whether this finding, or one of its kind, is open.
    pub(super) fn is_open(&self, finding: &Finding) -> bool {
        self.open.contains(&finding.key())
    }
}

/// A fact that a hook saw then.
pub(super) fn hooked(boot_ns: BootNs, fact: Fact) -> Evidence {
    Evidence { source: EvidenceSource::Hook, boot_ns, fact }
}

/// How PID 1 of a namespace ended.
pub(super) fn init_exit(death: &Death) -> Evidence {
    let Death { at, process, exit, cause, members } = death.clone();
    hooked(at, Fact::InitExit { process, exit, cause, members })
}

/// What an incident was; `None` of one whose finding needs more facts than its own.
pub(super) fn incident(incident: &Incident) -> Option<Evidence> {
    let Incident { process, sender, last, count, .. } = incident.clone();
    let fact = match incident.kind.clone() {
        IncidentKind::ForkRefused { errno, reason, thread } => {
            Fact::RefusedFork { process, errno, reason, thread, count }
        }
        IncidentKind::CreationRefused { via, errno, reason } => {
            Fact::RefusedCreation { process, via, errno, reason, count }
        }
        IncidentKind::SignalIgnored { signal, from } => {
            Fact::Signal { signal, sender, from, fate: "ignored".into(), count }
        }
        IncidentKind::MemberOom => return None,
    };
    Some(hooked(last, fact))
}

/// A process as findings name it: with the parent that it has now.
pub(super) fn described(state: &ProcessState) -> Process {
    Process { ppid: state.parent, ..state.process.clone() }
}

/// A command that explains a namespace.
pub(super) fn explain_ns(inum: NsInum) -> String {
    format!("pidns-trace explain {inum}")
}

/// A command that explains a process.
pub(super) fn explain_process(pid: HostPid) -> String {
    format!("pidns-trace explain {pid}")
}
