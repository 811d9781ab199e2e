//! Tracks which findings are open: for each detection it returns the opened, changed and closed findings.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::finding::{Finding, FindingKey, FindingState};

/// Maximum number of open findings, to limit the memory.
const MAX_FINDINGS: usize = 10_000;

/// An open finding.
#[derive(Clone, Debug)]
struct Open {
    /// The finding as of the last detection.
    now: Finding,
    /// The finding as last reported, if that differs. Detections are compared with it, because many small changes add
    /// up.
    reported: Option<Finding>,
}

/// The open findings.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    open: BTreeMap<FindingKey, Open>,
    keys: BTreeSet<FindingKey>,
}

impl Ledger {
    /// Records the findings of one detection. An open finding that is missing is closed.
    pub fn update(&mut self, found: Vec<Finding>) -> Vec<(FindingState, Finding)> {
        let mut news = Vec::new();
        let mut open = BTreeMap::new();
        for mut finding in found.into_iter().take(MAX_FINDINGS) {
            let key = finding.key();
            match self.open.remove(&key) {
                None => news.push((FindingState::Opened, finding.clone())),
                Some(Open { now: before, reported }) => {
                    finding.since_boot_ns = finding.since_boot_ns.min(before.since_boot_ns);
                    let reported = reported.unwrap_or(before);
                    if has_changed(&reported, &finding) {
                        news.push((FindingState::Updated, finding.clone()));
                    } else if reported != finding {
                        open.insert(key, Open { now: finding, reported: Some(reported) });
                        continue;
                    }
                }
            }
            open.insert(key, Open { now: finding, reported: None });
        }
        let over = std::mem::take(&mut self.open).into_values();
        news.extend(over.map(|open| (FindingState::Closed, open.now)));
        self.keys = open.keys().copied().collect();
        self.open = open;
        news
    }

    /// Records a finding from a recording.
    pub fn replay(&mut self, state: FindingState, finding: &Finding) {
        let key = finding.key();
        if state == FindingState::Closed {
            self.open.remove(&key);
            self.keys.remove(&key);
        } else if self.open.len() < MAX_FINDINGS {
            self.open.insert(key, Open { now: finding.clone(), reported: None });
            self.keys.insert(key);
        }
    }

    /// The open findings.
    pub fn open(&self) -> impl Iterator<Item = &Finding> {
        self.open.values().map(|open| &open.now)
    }

    /// The keys of the open findings.
    pub fn keys(&self) -> &BTreeSet<FindingKey> {
        &self.keys
    }
}

/// Whether the change is worth a report: another severity, other processes, another kind of fact, or a count that
/// doubled or halved.
fn has_changed(before: &Finding, now: &Finding) -> bool {
    let processes = |finding: &Finding| -> BTreeSet<_> {
        finding.evidence.iter().flat_map(|evidence| evidence.fact.processes()).map(|it| it.key()).collect()
    };
    let kinds = |finding: &Finding| -> Vec<_> {
        finding.evidence.iter().map(|evidence| std::mem::discriminant(&evidence.fact)).collect()
    };
    let counts = |finding: &Finding| -> Vec<u64> {
        finding.evidence.iter().filter_map(|evidence| evidence.fact.count()).collect()
    };
    let has_doubled = || {
        let (before, now) = (counts(before), counts(now));
        before.iter().zip(&now).any(|(before, now)| *now >= 2 * before.max(&1) || *before >= 2 * now.max(&1))
    };
    before.severity != now.severity
        || kinds(before) != kinds(now)
        || processes(before) != processes(now)
        || has_doubled()
}
