//! Selects the findings about a TARGET.

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

/// The objects that a TARGET names.
pub(super) struct FindingFilter {
    /// Namespaces. Findings about namespaces nested in them count too.
    pub(super) namespaces: BTreeSet<NsInum>,
    /// The identities of the namespaces, to ignore earlier namespaces with the same number. Empty if the TARGET is a
    /// number, because that means all of them.
    identities: BTreeMap<NsInum, SnapshotNamespace>,
    /// Containers that share a namespace. Only findings about their own processes are selected.
    pub(super) containers: Vec<Arc<Container>>,
}

impl FindingFilter {
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
        let identities = known.filter(|_| !is_number).map(|ns| (ns.inum, ns.clone())).collect();
        Ok(Self { namespaces, identities, containers })
    }

    /// Only this namespace, not earlier ones with the same number.
    pub(super) fn of_namespace(ns: &SnapshotNamespace) -> Self {
        let identities = [(ns.inum, ns.clone())].into();
        Self { namespaces: [ns.inum].into(), identities, containers: Vec::new() }
    }

    /// Like `of`, for a recording. The TARGET can also be a namespace or container that is already `gone`.
    pub(super) fn of_recording(
        target: &str,
        snapshot: &Snapshot,
        forest: &Forest<'_>,
        gone: &[SnapshotNamespace],
    ) -> Result<Self, Failure> {
        Self::of(target, snapshot, forest).or_else(|error| match find::name(target, snapshot, gone) {
            Ok(Target::Namespace(inum)) if gone.iter().any(|gone| gone.inum == inum) => {
                Ok(Self { namespaces: [inum].into(), identities: BTreeMap::new(), containers: Vec::new() })
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
        let is_same = |top: NsInum| self.identities.get(&top).is_none_or(|ns| !finding.cannot_be_about(ns));
        let is_within = |inum: NsInum| {
            self.namespaces.iter().any(|&top| (inum == top || world.is_within(inum, top)) && is_same(top))
        };
        let mut its_containers =
            [ns.and_then(|ns| ns.container.as_ref()), process.and_then(|process| process.container.as_ref())]
                .into_iter()
                .flatten();
        inums.into_iter().flatten().any(is_within)
            || its_containers.any(|own| self.containers.iter().any(|container| container.is_same(own)))
    }
}

/// The findings about the TARGET, or all findings without a TARGET. The most severe come first.
pub(super) fn about<'a>(
    open: impl Iterator<Item = &'a Finding>,
    requested: Option<&FindingFilter>,
    world: &World,
) -> Vec<Finding> {
    let is_selected =
        |finding: &&Finding| requested.is_none_or(|requested| requested.is_about(finding, world));
    let mut found: Vec<Finding> = open.filter(is_selected).cloned().collect();
    found.sort_by_key(|finding| (std::cmp::Reverse(finding.severity), finding.since_boot_ns));
    found
}
