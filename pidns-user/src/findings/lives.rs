//! How processes of a namespace come and go, and what they are called.

use std::collections::HashMap;

use super::{Scene, scene::hooked};
use crate::{
    event::{
        finding::{Evidence, Fact, NameCount},
        identity::NsInum,
    },
    text::Name,
};

/// Names that are listed.
const NAMES: usize = 5;

/// Births, exits and reapings of a namespace, where any were seen.
pub(super) fn lives(scene: &Scene<'_>, inum: NsInum) -> Option<Evidence> {
    let lives = scene.recent.namespace(inum)?.lives.as_ref()?;
    let [births, exits, reaps] = [&lives.births, &lives.exits, &lives.reaps].map(|it| it.until(scene.now));
    Some(hooked(scene.now, Fact::Lives { births, exits, reaps }))
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
