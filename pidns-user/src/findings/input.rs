//! The input of a detector.

use std::{
    cell::OnceCell,
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use super::{Thresholds, readings::Readings};
use crate::{
    event::{
        Process,
        finding::{Evidence, EvidenceSource, Fact, Finding, FindingKey, Role},
        identity::{BootNs, HostPid, NsInum, ProcessKey},
        snapshot::{Snapshot, SnapshotNamespace},
    },
    model::{Death, Incident, IncidentKind, NamespaceState, ProcessState, Recent, World},
};

/// The state of the host at one moment.
pub struct DetectorInput<'a> {
    /// The model of namespaces and processes.
    pub world: &'a World,
    /// Recent events.
    pub recent: &'a Recent,
    /// Data read from /proc.
    pub readings: &'a Readings,
    /// The thresholds of the detectors.
    pub thresholds: &'a Thresholds,
    /// The moment of the detection.
    pub now: BootNs,
    /// Whether the tool can read /proc. If so, data that is missing now arrives a moment later.
    pub has_reader: bool,
    /// Whether there is only this detection, from a single snapshot. Then a namespace without processes is reported at
    /// once, because it is unknown since when it has none, and the limits of all namespaces are read.
    pub is_only_detection: bool,
    /// The open findings.
    pub open: &'a BTreeSet<FindingKey>,
    /// Namespaces that the user asks about.
    pub targets: &'a BTreeSet<NsInum>,
    pub(super) snapshot: OnceCell<Snapshot>,
    pub(super) members: OnceCell<HashMap<NsInum, Vec<&'a ProcessState>>>,
}

impl<'a> DetectorInput<'a> {
    /// The processes of a namespace, its zombies included. The first call sorts the processes of all namespaces.
    pub(super) fn members(&self, inum: NsInum) -> impl Iterator<Item = &'a ProcessState> + '_ {
        let all = self.members.get_or_init(|| {
            let mut all = HashMap::<_, Vec<_>>::new();
            for state in self.world.processes() {
                all.entry(state.process.ns).or_default().push(state);
            }
            all
        });
        all.get(&inum).into_iter().flatten().copied()
    }
}

impl DetectorInput<'_> {
    /// A snapshot of the model, which the first call creates.
    pub(super) fn snapshot(&self) -> &Snapshot {
        self.snapshot.get_or_init(|| self.world.snapshot())
    }

    /// Whether `time` has passed since `since`.
    pub(super) fn has_passed(&self, since: BootNs, time: Duration) -> bool {
        u128::from(self.now.saturating_since(since)) >= time.as_nanos()
    }

    /// The namespace with this number, as findings show it.
    pub(super) fn ns(&self, inum: NsInum) -> Option<SnapshotNamespace> {
        self.world.namespace(inum).map(|state| state.namespace.clone())
    }

    /// The latest description of this namespace, or `ns` if it is forgotten.
    pub(super) fn latest_ns(&self, ns: &SnapshotNamespace) -> SnapshotNamespace {
        self.recent.record_of(ns).map_or_else(|| ns.clone(), |record| record.ns.clone())
    }

    /// The existing namespace. `None` if it is gone, even if another one has its inode number now.
    pub(super) fn existing(&self, ns: &SnapshotNamespace) -> Option<&NamespaceState> {
        self.world.namespace(ns.inum).filter(|state| state.is(ns))
    }

    /// The command that explains a namespace; `None` if the namespace is gone.
    pub(super) fn explain_existing(&self, ns: &SnapshotNamespace) -> Option<String> {
        self.existing(ns).map(|state| explain_ns(state.namespace.inum))
    }

    /// The latest description of this process, or `process` if the model no longer has it.
    pub(super) fn latest(&self, process: &Process) -> Process {
        let is_it = |state: &&ProcessState| state.key().is_same(process.key());
        self.world.process(process.pid).filter(is_it).map_or_else(|| process.clone(), described)
    }

    /// The process with this PID.
    pub(super) fn process(&self, pid: HostPid) -> Option<Process> {
        self.world.process(pid).map(described)
    }

    /// Whether this process is alive. Another process with the same PID does not count.
    pub(super) fn is_alive(&self, key: ProcessKey) -> bool {
        self.world.process(key.pid).is_some_and(|state| state.key().is_same(key) && state.ended.is_none())
    }

    /// The process that has to reap this one: its tracer, or else its parent.
    pub(super) fn reaper(&self, state: &ProcessState) -> Option<HostPid> {
        state.observed.tracer.or(state.parent)
    }

    /// Evidence: a fact from the model.
    pub(super) fn model_evidence(&self, fact: Fact) -> Evidence {
        let boot_ns = self.world.processes_as_of().unwrap_or(self.now);
        Evidence { source: EvidenceSource::Snapshot, boot_ns, fact }
    }

    /// Evidence: a fact that was read from /proc.
    pub(super) fn proc_evidence(&self, fact: Fact) -> Evidence {
        Evidence { source: EvidenceSource::Proc, boot_ns: self.readings.at, fact }
    }

    /// Evidence: a process and its role in the finding.
    pub(super) fn process_evidence(&self, role: Role, process: Process) -> Evidence {
        let ended = !self.is_alive(process.key());
        self.model_evidence(Fact::Process { role, process, ended })
    }

    /// Whether a finding with this key is open.
    pub(super) fn is_open(&self, finding: &Finding) -> bool {
        self.open.contains(&finding.key())
    }
}

/// Evidence: a fact that a hook reported at this time.
pub(super) fn hook_evidence(boot_ns: BootNs, fact: Fact) -> Evidence {
    Evidence { source: EvidenceSource::Hook, boot_ns, fact }
}

/// Evidence: the exit of a namespace's PID 1.
pub(super) fn init_exit_evidence(death: &Death) -> Evidence {
    let Death { at, process, exit, cause, members } = death.clone();
    hook_evidence(at, Fact::InitExit { process, exit, cause, members })
}

/// Evidence: an incident. `None` if the detector of its finding builds the evidence itself.
pub(super) fn incident_evidence(incident: &Incident) -> Option<Evidence> {
    let Incident { process, sender, last, count, .. } = incident.clone();
    let fact = match incident.kind.clone() {
        IncidentKind::ForkRefused { errno, reason, thread } => {
            Fact::RefusedFork { process, errno, reason, thread, elsewhere_by: None, count }
        }
        IncidentKind::CreationRefused { via, errno, reason } => {
            Fact::RefusedCreation { process, via, errno, reason, count }
        }
        IncidentKind::SignalIgnored { signal, from } => {
            Fact::Signal { signal, sender, from, fate: "ignored".into(), count }
        }
        IncidentKind::MemberOom => return None,
    };
    Some(hook_evidence(last, fact))
}

/// A process as findings show it, with its current parent.
pub(super) fn described(state: &ProcessState) -> Process {
    Process { ppid: state.parent, ..state.process.clone() }
}

/// The incidents of each namespace. Namespaces that had the same inode number have separate entries.
pub(super) fn by_namespace<'a>(
    incidents: impl Iterator<Item = &'a Incident>,
) -> Vec<(SnapshotNamespace, Vec<&'a Incident>)> {
    let mut groups: Vec<(SnapshotNamespace, Vec<&Incident>)> = Vec::new();
    let mut by_number: HashMap<NsInum, Vec<usize>> = HashMap::new();
    for incident in incidents {
        let Some(ns) = &incident.ns else { continue };
        let known = by_number.entry(ns.inum).or_default();
        match known.iter().find(|&&index| !groups[index].0.differs_from(ns)) {
            Some(&index) => groups[index].1.push(incident),
            None => {
                known.push(groups.len());
                groups.push((ns.clone(), vec![incident]));
            }
        }
    }
    groups
}

/// The command that explains a namespace.
pub(super) fn explain_ns(inum: NsInum) -> String {
    format!("pidns-trace explain {inum}")
}

/// The command that explains a process.
pub(super) fn explain_process(pid: HostPid) -> String {
    format!("pidns-trace explain {pid}")
}
