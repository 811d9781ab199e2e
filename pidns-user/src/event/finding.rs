//! A finding: a problem with PID namespaces, with its evidence. docs/findings.md describes each.

mod diagnosis;
mod fact;

use serde::{Deserialize, Serialize};

pub use self::{
    diagnosis::{Diagnosis, Severity},
    fact::{BlockedBy, Evidence, EvidenceSource, Fact, NameCount, Role, Windows},
};
use super::{
    Process, bounds,
    identity::{BootNs, NamespaceKey, ProcessKey},
    snapshot::SnapshotNamespace,
};

/// The change of a finding that an event reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingState {
    /// It is new.
    Opened,
    /// Its severity, its processes or their number have changed.
    Updated,
    /// It is over.
    Closed,
}

/// A problem of one namespace or process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The kind of problem.
    pub id: Diagnosis,
    /// How much it matters.
    pub severity: Severity,
    /// Since when the problem exists; if no event shows that, since when it is known.
    pub since_boot_ns: BootNs,
    /// The namespace with the problem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ns: Option<SnapshotNamespace>,
    /// The process with the problem: the one to act on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// The facts that show it.
    #[serde(deserialize_with = "bounds::facts")]
    pub evidence: Vec<Evidence>,
    /// Suggested commands.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "bounds::facts")]
    pub next: Vec<String>,
}

/// Identity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FindingKey {
    id: Diagnosis,
    ns: Option<NamespaceKey>,
    process: Option<ProcessKey>,
}

impl Finding {
    /// Its identity.
    pub fn key(&self) -> FindingKey {
        FindingKey {
            id: self.id,
            ns: self.ns.as_ref().map(SnapshotNamespace::key),
            process: self.process.as_ref().map(Process::key),
        }
    }

    /// Adds the processes that hold up a teardown, if it is about one, to those that are known.
    pub fn add_blockers(&self, known: &mut Vec<Evidence>) {
        /// Number of processes to keep.
        const MOST: usize = 10;
        if self.id != Diagnosis::TeardownBlocked {
            return;
        }
        for evidence in &self.evidence {
            let Fact::Blocker { process, .. } = &evidence.fact else { continue };
            let is_it = |other: &Evidence| match &other.fact {
                Fact::Blocker { process: other, .. } => other.key() == process.key(),
                _ => false,
            };
            match known.iter().position(is_it) {
                // A later reading may name the reason.
                Some(index) => known[index] = evidence.clone(),
                None if known.len() < MOST => known.push(evidence.clone()),
                None => {}
            }
        }
    }

    /// Whether it cannot be about `ns` or its processes: its namespace is another one with the same inode number, or it
    /// is about something older than `ns`.
    pub fn cannot_be_about(&self, ns: &SnapshotNamespace) -> bool {
        match (&self.ns, &self.process) {
            (Some(its), _) if its.inum == ns.inum => its.differs_from(ns),
            (Some(its), _) => ns.is_younger_than(its.born_boot_ns),
            (None, Some(process)) => ns.is_younger_than(Some(process.start_boot_ns)),
            (None, None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finding_survives_a_round_trip_through_json() {
        let process = r#"{"pid":20,"pids":[20,2],"comm":"sh","start_boot_ns":7,"ppid":1,"uid":0,"ns":9}"#;
        let line = format!(
            r#"{{"id":"teardown-blocked","severity":"critical","since_boot_ns":5,"ns":{{"inum":9,"level":1,"dying":true}},"process":{process},"evidence":[{{"source":"hook","boot_ns":4,"kind":"init_exit","process":{process},"exit":{{"code":0}},"cause":{{"kind":"exited"}},"members":2}},{{"source":"proc","boot_ns":6,"kind":"blocker","process":{process},"by":"kernel","wchan":"do_wait"}}],"next":["pidns-trace explain 9"]}}"#
        );
        let finding: Finding = serde_json::from_str(&line).expect(&line);
        assert_eq!(serde_json::to_string(&finding).expect("JSON"), line);
        assert_eq!(finding.evidence[1].fact.processes().count(), 1);
    }
}
