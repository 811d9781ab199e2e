//! Which findings are about a TARGET.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

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
    /// Which namespace of its number each is: those that had it before are not meant. None of those that were asked for by number.
    which: BTreeMap<NsInum, SnapshotNamespace>,
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
        let namespaces: BTreeSet<NsInum> = scope.whole.into_iter().collect();
        let is_number = matches!(find::name(target, snapshot, &[]), Ok(Target::Namespace(_)));
        let known = namespaces.iter().filter_map(|inum| snapshot.namespaces.get(inum));
        let which = known.filter(|_| !is_number).map(|ns| (ns.inum, ns.clone())).collect();
        Ok(Self { namespaces, which, containers })
    }

    /// This namespace, and none that had its number before.
    pub(super) fn of_namespace(ns: &SnapshotNamespace) -> Self {
        let which = [(ns.inum, ns.clone())].into();
        Self { namespaces: [ns.inum].into(), which, containers: Vec::new() }
    }

    /// The same in a recording, where the namespace can be gone by the moment.
    pub(super) fn of_recording(
        target: &str,
        snapshot: &Snapshot,
        forest: &Forest<'_>,
        gone: &[SnapshotNamespace],
    ) -> Result<Self, Failure> {
        Self::of(target, snapshot, forest).or_else(|error| match find::name(target, snapshot, gone) {
            Ok(Target::Namespace(inum)) if gone.iter().any(|gone| gone.inum == inum) => {
                Ok(Self { namespaces: [inum].into(), which: BTreeMap::new(), containers: Vec::new() })
            }
            Ok(Target::GoneContainer(key)) => {
                gone.iter().find(|gone| gone.key() == key).map(Self::of_namespace).ok_or(error)
            }
            _ => Err(error),
        })
    }

    fn is_about(&self, finding: &Finding, world: &World) -> bool {
        let ns = finding.ns.as_ref();
        let process = finding.process.as_ref();
        let inums = [ns.map(|ns| ns.inum), ns.and_then(|ns| ns.parent), process.map(|process| process.ns)];
        let is_meant = |top: NsInum| self.which.get(&top).is_none_or(|which| !finding.is_beside(which));
        let is_within = |inum: NsInum| {
            self.namespaces.iter().any(|&top| (inum == top || world.is_within(inum, top)) && is_meant(top))
        };
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
