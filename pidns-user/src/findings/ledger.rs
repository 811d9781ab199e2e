//! Which findings are open: gives for each detection what was opened, what has changed, and what is over.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::finding::{Finding, FindingKey, FindingState};

/// Most findings that are open at once: it bounds the memory that they take.
const MOST: usize = 10_000;

/// The open findings.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    open: BTreeMap<FindingKey, Finding>,
    keys: BTreeSet<FindingKey>,
}

impl Ledger {
    /// Takes the findings of one detection. An open finding that is missing is over.
    pub fn update(&mut self, found: Vec<Finding>) -> Vec<(FindingState, Finding)> {
        let mut news = Vec::new();
        let mut open = BTreeMap::new();
        for mut finding in found.into_iter().take(MOST) {
            let key = finding.key();
            match self.open.remove(&key) {
                None => news.push((FindingState::Opened, finding.clone())),
                Some(before) => {
                    finding.since_boot_ns = finding.since_boot_ns.min(before.since_boot_ns);
                    if has_changed(&before, &finding) {
                        news.push((FindingState::Updated, finding.clone()));
                    } else {
                        // The next detection is compared with the last printed state: many small steps are a large one.
                        finding = before;
                    }
                }
            }
            open.insert(key, finding);
        }
        let over = std::mem::take(&mut self.open).into_values();
        news.extend(over.map(|finding| (FindingState::Closed, finding)));
        self.keys = open.keys().copied().collect();
        self.open = open;
        news
    }

    /// Takes a finding of a recording.
    pub fn replay(&mut self, state: FindingState, finding: &Finding) {
        let key = finding.key();
        if state == FindingState::Closed {
            self.open.remove(&key);
            self.keys.remove(&key);
        } else if self.open.len() < MOST {
            self.open.insert(key, finding.clone());
            self.keys.insert(key);
        }
    }

    /// The open findings.
    pub fn open(&self) -> impl Iterator<Item = &Finding> {
        self.open.values()
    }

    /// What distinguishes them.
    pub fn keys(&self) -> &BTreeSet<FindingKey> {
        &self.keys
    }
}

/// Whether there is news: another severity, other processes, another kind of fact, or twice as much of one.
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
