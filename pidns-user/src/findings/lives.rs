//! Forks, exits and reaps of a namespace's processes, and their names.

use std::collections::HashMap;

use super::{DetectorInput, input::hook_evidence};
use crate::{
    event::{
        finding::{Evidence, Fact, NameCount},
        identity::NsInum,
    },
    text::Name,
};

/// Number of names to list.
const NAMES: usize = 5;

/// Forks, exits and reaps of a namespace, if any were seen.
pub(super) fn lives(input: &DetectorInput<'_>, inum: NsInum) -> Option<Evidence> {
    let lives = input.recent.namespace(inum)?.lives.as_ref()?;
    let [births, exits, reaps] = [&lives.births, &lives.exits, &lives.reaps].map(|it| it.until(input.now));
    Some(hook_evidence(input.now, Fact::Lives { births, exits, reaps }))
}

/// The most frequent names.
pub(super) fn most_frequent<'a>(names: impl Iterator<Item = &'a Name>) -> Vec<NameCount> {
    let mut counts: HashMap<&Name, u64> = HashMap::new();
    names.for_each(|name| *counts.entry(name).or_default() += 1);
    let mut counts: Vec<_> =
        counts.into_iter().map(|(comm, count)| NameCount { comm: comm.clone(), count }).collect();
    counts.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.comm.as_bytes().cmp(b.comm.as_bytes())));
    counts.truncate(NAMES);
    counts
}
