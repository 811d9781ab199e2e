//! Takes snapshots for a command, prints the notices about them, and finds their containers.

use std::{collections::BTreeMap, sync::Arc};

use super::{failure::Failure, notices::Notices};
use crate::{
    container::{Api, ContainerCache, Roots},
    event::identity::{HostPid, NsInum, ProcessKey},
    event::{
        container::Container,
        snapshot::{Snapshot, SnapshotProcess, Unread},
    },
    source::observer::{Notice, Observed, Observer},
    target::ParsedTarget,
};

/// Takes snapshots, and finds the containers in them.
pub(super) struct HostObserver {
    observer: Observer,
    notices: Notices,
    /// The containers that were seen, so that each is found once.
    containers: ContainerCache,
}

/// The processes whose container one lookup finds: those of a namespace that are in one cgroup (v2), or one process and those that
/// it forked there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lookup {
    Cgroup(NsInum, u64),
    Process(HostPid),
}

/// The processes of a snapshot. [`Self::lookup`] finds those that may run in another container than their PID 1.
struct Members<'a> {
    by_pid: BTreeMap<HostPid, &'a SnapshotProcess>,
    inits: BTreeMap<NsInum, &'a SnapshotProcess>,
}

impl<'a> Members<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        let inits = snapshot.processes.iter().filter(|process| process.is_init());
        Self {
            by_pid: snapshot.processes.iter().map(|process| (process.pid, process)).collect(),
            inits: inits.filter_map(|init| Some((init.ns?, init))).collect(),
        }
    }

    /// The namespace of this process, the lookup that finds its container, and the process to read. `None` if its PID 1 gives
    /// the container.
    fn lookup(&self, process: &SnapshotProcess) -> Option<(NsInum, Lookup, ProcessKey)> {
        /// The root of the hierarchy. All processes are in it where v2 is not used.
        const ROOT: u64 = 1;
        let (ns, level) = (process.ns?, process.level()?);
        if level > 0 && process.is_init() {
            return None;
        }
        if let Some(cgroup) = process.cgroup_id.filter(|&id| id != ROOT) {
            let home = self.inits.get(&ns).filter(|_| level > 0).and_then(|init| init.cgroup_id);
            return (home != Some(cgroup)).then_some((ns, Lookup::Cgroup(ns, cgroup), process.key()?));
        }
        let entered = if level > 0 { self.entered(process, ns)? } else { process };
        Some((ns, Lookup::Process(entered.pid), entered.key()?))
    }

    /// The process itself or its ancestor that came into the namespace from outside. `None` for a descendant of PID 1, which is in
    /// the cgroup of PID 1.
    fn entered<'b>(&'b self, process: &'b SnapshotProcess, ns: NsInum) -> Option<&'b SnapshotProcess> {
        /// Most ancestors that are followed: parents can change while a snapshot is taken, so they could form a circle.
        const FURTHEST: usize = 1_000;
        let mut next = process;
        for _ in 0..FURTHEST {
            match next.ppid.and_then(|ppid| self.by_pid.get(&ppid)).filter(|parent| parent.ns == Some(ns)) {
                None => return Some(next),
                Some(init) if init.is_init() => return None,
                Some(parent) => next = parent,
            }
        }
        None
    }
}

impl HostObserver {
    /// For a command that does nothing but take snapshots.
    pub(super) fn new(runtime_api: bool, notices: Notices) -> Self {
        Self { observer: Observer::new(), notices, containers: containers(runtime_api) }
    }

    /// Its snapshots have the path of each process's cgroup.
    pub(super) fn with_cgroups(self) -> Self {
        Self { observer: self.observer.with_cgroups(), ..self }
    }

    /// For a command that loads a stream afterwards: it keeps the privileges that this takes.
    pub(super) fn before_a_stream(runtime_api: bool, notices: Notices) -> Self {
        Self { observer: Observer::before_a_stream(), ..Self::new(runtime_api, notices) }
    }

    /// For a command whose snapshots never include the holders of namespaces.
    pub(super) fn without_holders(self) -> Self {
        Self { observer: self.observer.without_holders(), ..self }
    }

    /// Takes a snapshot, and prints the notices about it.
    pub(super) fn snapshot(&mut self, with_holders: bool) -> Result<Snapshot, Failure> {
        let (snapshot, notices) = self.snapshot_and_notices(with_holders)?;
        self.notify(notices, with_holders);
        Ok(snapshot)
    }

    /// Takes a snapshot, and returns the notices about it. The caller prints them.
    pub(super) fn snapshot_and_notices(
        &mut self,
        with_holders: bool,
    ) -> Result<(Snapshot, Vec<Notice>), Failure> {
        let Observed { snapshot, notices } = self.observer.snapshot(with_holders, &mut || {})?;
        Ok((snapshot, notices))
    }

    /// Prints notices. It leaves out those about holders of namespaces if the command does not show holders.
    pub(super) fn notify(&self, notices: Vec<Notice>, shows_holders: bool) {
        let bears = |notice| match notice {
            notice if shows_holders => Some(notice),
            Notice::Unnamed(_) => None,
            Notice::Unread(unread) => {
                Some(Notice::Unread(Unread { files: 0, mounts: 0, behind_server: 0, ..unread }))
            }
            notice => Some(notice),
        };
        notices.into_iter().filter_map(bears).for_each(|notice| self.notices.notice(&notice));
    }

    /// Adds the containers. Each namespace except the host's gets the container of its PID 1. A process gets its own container
    /// where that is another one.
    pub(super) fn name_containers(&mut self, snapshot: &mut Snapshot) -> Result<(), Failure> {
        let inits =
            snapshot.processes.iter().filter(|process| process.is_init() && process.level() > Some(0));
        for process in inits {
            let Some(ns) = process.ns else { continue };
            if let Some(namespace) = snapshot.namespaces.get_mut(&ns) {
                namespace.container = self.container_of_init(process)?;
            }
        }
        self.name_members(snapshot)
    }

    /// Adds the container of each process whose PID 1 runs in another one, as containers can share a PID namespace. One lookup
    /// serves all processes of a cgroup.
    fn name_members(&mut self, snapshot: &mut Snapshot) -> Result<(), Failure> {
        let own = {
            let members = Members::of(snapshot);
            let mut own = Vec::new();
            let mut known: BTreeMap<Lookup, Option<Arc<Container>>> = BTreeMap::new();
            for (index, process) in snapshot.processes.iter().enumerate() {
                let Some((ns, lookup, key)) = members.lookup(process) else { continue };
                let found = match known.get(&lookup) {
                    Some(found) => found.clone(),
                    None => {
                        let cache = &mut self.containers;
                        let own =
                            if process.level() > Some(0) { cache.find(key) } else { cache.find_on_host(key) };
                        let home = snapshot.namespaces.get(&ns).and_then(|ns| ns.container.as_deref());
                        let own = own.and_then(|own| Container::beside(own, home));
                        known.insert(lookup, own.clone());
                        own
                    }
                };
                own.extend(found.map(|found| (index, found)));
            }
            own
        };
        for (index, container) in own {
            snapshot.processes[index].container = Some(container);
        }
        Ok(())
    }

    /// The container of a namespace, which is that of its PID 1. The host's namespace has none.
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

    /// Adds the containers if TARGET may be the name of one.
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
        Ok(self.containers.find(key))
    }
}

/// Finds the containers of this machine; with `runtime_api` it also asks the daemons.
pub(super) fn containers(runtime_api: bool) -> ContainerCache {
    let roots = Roots::host();
    if runtime_api {
        ContainerCache::asking(roots.clone(), Api::new(&roots))
    } else {
        ContainerCache::new(roots)
    }
}
