//! Which findings are about a TARGET.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    commands::failure::Failure,
    event::{
        container::Container,
        finding::Finding,
        identity::NsInum,
        snapshot::{Snapshot, SnapshotNamespace},
    },
    model::{Forest, World},
    target::find::{self, Target},
};

/// What a TARGET stands for.
pub(super) struct Asked {
    /// Namespaces, with those below them.
    pub(super) namespaces: BTreeSet<NsInum>,
    /// Containers in namespaces that others share: there it is about their own processes alone.
    pub(super) containers: Vec<Arc<Container>>,
}

impl Asked {
    pub(super) fn of(target: &str, snapshot: &Snapshot, forest: &Forest<'_>) -> Result<Self, Failure> {
        let scope = find::scope(target, snapshot, forest)?;
        let members = scope.members.iter().filter_map(|&pid| forest.process(pid)?.container.clone());
        let mut containers: Vec<Arc<Container>> = Vec::new();
        for container in members {
            if !containers.iter().any(|known| known.is_same(&container)) {
                containers.push(container);
            }
        }
        Ok(Self { namespaces: scope.whole.into_iter().collect(), containers })
    }

    /// The same in a recording, where the namespace can be gone by the moment.
    pub(super) fn of_recording(
        target: &str,
        snapshot: &Snapshot,
        forest: &Forest<'_>,
        gone: &[SnapshotNamespace],
    ) -> Result<Self, Failure> {
        Self::of(target, snapshot, forest).or_else(|error| {
            let inum = match find::name(target, snapshot, gone) {
                Ok(Target::Namespace(inum)) => inum,
                Ok(Target::GoneContainer(key)) => key.inum,
                _ => return Err(error),
            };
            let was_there = gone.iter().any(|gone| gone.inum == inum);
            was_there.then(|| Self { namespaces: [inum].into(), containers: Vec::new() }).ok_or(error)
        })
    }

    fn is_about(&self, finding: &Finding, world: &World) -> bool {
        let ns = finding.ns.as_ref();
        let process = finding.process.as_ref();
        let inums = [ns.map(|ns| ns.inum), ns.and_then(|ns| ns.parent), process.map(|process| process.ns)];
        let is_within =
            |inum: NsInum| self.namespaces.iter().any(|&top| inum == top || world.is_within(inum, top));
        let mut its_own =
            [ns.and_then(|ns| ns.container.as_ref()), process.and_then(|process| process.container.as_ref())]
                .into_iter()
                .flatten();
        inums.into_iter().flatten().any(is_within)
            || its_own.any(|own| self.containers.iter().any(|container| container.is_same(own)))
    }
}

/// The findings that are about what is asked for; all where nothing is. The most severe first.
pub(super) fn about<'a>(
    open: impl Iterator<Item = &'a Finding>,
    asked: Option<&Asked>,
    world: &World,
) -> Vec<Finding> {
    let is_meant = |finding: &&Finding| asked.is_none_or(|asked| asked.is_about(finding, world));
    let mut found: Vec<Finding> = open.filter(is_meant).cloned().collect();
    found.sort_by_key(|finding| (std::cmp::Reverse(finding.severity), finding.since_boot_ns));
    found
}
