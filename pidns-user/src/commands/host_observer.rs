//! Takes snapshots for a command: prints what there is to say of them, and names containers.

use std::sync::Arc;

use super::{background::Background, failure::Failure, notices::Notices};
use crate::{
    container::{Api, ContainerCache, Roots},
    event::identity::NsInum,
    event::{
        container::Container,
        snapshot::{Snapshot, SnapshotProcess},
    },
    source::observer::{Observed, Observer},
    target::ParsedTarget,
};

/// Takes snapshots, and knows their containers.
pub(super) struct HostObserver {
    observer: Observer,
    notices: Notices,
    /// Whether daemons are asked for the names of containers.
    runtime_api: bool,
    /// The containers that were seen, so that each is looked up once.
    containers: Option<HostContainers>,
}

/// The container cache, and what its questions to daemons run in.
pub(super) struct HostContainers {
    pub(super) cache: ContainerCache,
    pub(super) background: Option<Arc<Background>>,
}

impl HostObserver {
    /// For a command that does nothing but take snapshots.
    pub(super) fn new(runtime_api: bool, notices: Notices) -> Self {
        Self { observer: Observer::new(), notices, runtime_api, containers: None }
    }

    /// For a command that loads a stream afterwards, which takes privileges.
    pub(super) fn before_a_stream(runtime_api: bool, notices: Notices) -> Self {
        Self { observer: Observer::before_a_stream(), ..Self::new(runtime_api, notices) }
    }

    /// Takes a snapshot.
    pub(super) fn snapshot(&mut self, with_holders: bool) -> Result<Snapshot, Failure> {
        let Observed { snapshot, notices } = self.observer.snapshot(with_holders, &mut || {})?;
        notices.iter().for_each(|notice| self.notices.notice(notice));
        // Behind the first snapshot: what asks daemons has a thread, and loading the iterator wants no other.
        if self.containers.is_none() {
            self.containers = Some(containers(self.runtime_api)?);
        }
        Ok(snapshot)
    }

    /// Adds the containers: what the PID 1 of each namespace but the host's own runs in.
    pub(super) fn name_containers(&mut self, snapshot: &mut Snapshot) -> Result<(), Failure> {
        let inits =
            snapshot.processes.iter().filter(|process| process.is_init() && process.level() > Some(0));
        for process in inits {
            let Some(ns) = process.ns else { continue };
            if let Some(namespace) = snapshot.namespaces.get_mut(&ns) {
                namespace.container = self.container_of_init(process)?;
            }
        }
        Ok(())
    }

    /// The container of one namespace: what its PID 1 runs in; of the host's own none.
    pub(super) fn container_of(
        &mut self,
        snapshot: &Snapshot,
        inum: NsInum,
    ) -> Result<Option<Arc<Container>>, Failure> {
        let is_it = |process: &&SnapshotProcess| {
            process.ns == Some(inum) && process.is_init() && process.level() > Some(0)
        };
        match snapshot.processes.iter().find(is_it) {
            Some(init) => self.container_of_init(init),
            None => Ok(None),
        }
    }

    /// Adds the containers where the TARGET may be the name of one.
    pub(super) fn name_containers_for(
        &mut self,
        target: Option<&str>,
        snapshot: &mut Snapshot,
    ) -> Result<(), Failure> {
        match target.is_some_and(|target| matches!(ParsedTarget::of(target), Ok(ParsedTarget::Name(_)))) {
            true => self.name_containers(snapshot),
            false => Ok(()),
        }
    }

    fn container_of_init(&mut self, init: &SnapshotProcess) -> Result<Option<Arc<Container>>, Failure> {
        let Some(key) = init.key() else { return Ok(None) };
        let containers = match &mut self.containers {
            Some(containers) => containers,
            none => none.insert(containers(self.runtime_api)?),
        };
        Ok(containers.cache.find(key))
    }
}

/// What names the containers of this machine; with the daemons' help where that is wanted.
pub(super) fn containers(runtime_api: bool) -> Result<HostContainers, Failure> {
    let roots = Roots::host();
    if !runtime_api {
        return Ok(HostContainers { cache: ContainerCache::new(roots), background: None });
    }
    let io = |error| Failure::Io { what: "start a thread to ask daemons", error };
    let background = Background::get().map_err(io)?;
    let api = Api::new(&roots, background.handle().clone()).map_err(io)?;
    Ok(HostContainers { cache: ContainerCache::asking(roots, api), background: Some(background) })
}
