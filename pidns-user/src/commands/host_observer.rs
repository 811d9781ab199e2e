//! Takes snapshots for a command, prints notices about them, and finds the containers.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{failure::Failure, notices::Notices};
use crate::{
    container::{Api, ContainerCache, Pass, Roots},
    event::identity::{HostPid, NsInum},
    event::{
        container::Container,
        snapshot::{Snapshot, SnapshotNamespace, SnapshotProcess, Unread},
    },
    source::observer::{Notice, Observed, Observer},
    target::ParsedTarget,
};

/// Takes snapshots and finds their containers.
pub(super) struct HostObserver {
    observer: Observer,
    notices: Notices,
    /// The containers found so far, so that each is looked up once.
    containers: ContainerCache,
    /// The contents of /proc/PID/cgroup, of processes of the last snapshot.
    cgroups: HashMap<HostPid, Arc<[u8]>>,
}

/// The processes that share the result of one container lookup: those in one cgroup (v2) and namespace, or one process
/// and its descendants there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lookup {
    Cgroup(NsInum, u64),
    Process(HostPid),
}

/// The processes of a snapshot. [`Self::lookup`] selects those that may be in another container than their PID 1.
struct Members<'a> {
    /// Sorted by PID.
    processes: &'a [SnapshotProcess],
    inits: BTreeMap<NsInum, &'a SnapshotProcess>,
}

impl<'a> Members<'a> {
    fn of(processes: &'a [SnapshotProcess]) -> Self {
        let inits = processes.iter().filter(|process| process.is_init());
        Self { processes, inits: inits.filter_map(|init| Some((init.ns?, init))).collect() }
    }

    fn process(&self, pid: HostPid) -> Option<&'a SnapshotProcess> {
        let index = self.processes.binary_search_by_key(&pid, |process| process.pid).ok()?;
        self.processes.get(index)
    }

    /// The namespace, its lookup, and the process to read. `None` if the container is that of its PID 1.
    fn lookup(&self, process: &'a SnapshotProcess) -> Option<(NsInum, Lookup, &'a SnapshotProcess)> {
        /// Id of the root cgroup. All processes are in it if v2 is not used.
        const ROOT: u64 = 1;
        let (ns, level) = (process.ns?, process.level()?);
        if level > 0 && process.is_init() {
            return None;
        }
        if let Some(cgroup) = process.cgroup_id.filter(|&id| id != ROOT) {
            let home = self.inits.get(&ns).filter(|_| level > 0).and_then(|init| init.cgroup_id);
            return (home != Some(cgroup)).then_some((ns, Lookup::Cgroup(ns, cgroup), process));
        }
        let entered = if level > 0 { self.entered(process, ns)? } else { process };
        Some((ns, Lookup::Process(entered.pid), entered))
    }

    /// The process, or its nearest ancestor, that came into the namespace from outside. `None` for a descendant of PID
    /// 1, which is in the cgroup of PID 1.
    fn entered(&self, process: &'a SnapshotProcess, ns: NsInum) -> Option<&'a SnapshotProcess> {
        /// Maximum number of ancestors to follow. Parents can change while a snapshot is taken, so they can form a
        /// cycle.
        const MAX_ANCESTORS: usize = 1_000;
        let mut next = process;
        for _ in 0..MAX_ANCESTORS {
            match next.ppid.and_then(|ppid| self.process(ppid)).filter(|parent| parent.ns == Some(ns)) {
                None => return Some(next),
                Some(init) if init.is_init() => return None,
                Some(parent) => next = parent,
            }
        }
        None
    }
}

impl HostObserver {
    /// For a command that only takes snapshots.
    pub(super) fn new(runtime_api: bool, notices: Notices) -> Self {
        let cgroups = HashMap::new();
        Self { observer: Observer::new(), notices, containers: containers(runtime_api), cgroups }
    }

    /// Makes snapshots include the path of each process's cgroup.
    pub(super) fn with_cgroups(self) -> Self {
        Self { observer: self.observer.with_cgroups(), ..self }
    }

    /// For a command that loads a stream afterwards: keeps the privileges for it.
    pub(super) fn before_a_stream(runtime_api: bool, notices: Notices) -> Self {
        Self { observer: Observer::before_a_stream(), ..Self::new(runtime_api, notices) }
    }

    /// For a command that never shows holders of namespaces.
    pub(super) fn without_holders(self) -> Self {
        Self { observer: self.observer.without_holders(), ..self }
    }

    /// Takes a snapshot and prints the notices about it.
    pub(super) fn snapshot(&mut self, with_holders: bool) -> Result<Snapshot, Failure> {
        let (snapshot, notices) = self.snapshot_and_notices(with_holders)?;
        self.notify(notices, with_holders, false);
        Ok(snapshot)
    }

    /// Takes a snapshot and returns the notices about it for the caller to print.
    pub(super) fn snapshot_and_notices(
        &mut self,
        with_holders: bool,
    ) -> Result<(Snapshot, Vec<Notice>), Failure> {
        let Observed { snapshot, notices } = self.observer.snapshot(with_holders, &mut || {})?;
        Ok((snapshot, notices))
    }

    /// Prints notices. Omits notices about holders if the command does not show holders. If it shows all namespaces
    /// (`shows_all`), one that only an unnamed proc or a hanging mount holds is missing, so these are reported anyway.
    pub(super) fn notify(&self, notices: Vec<Notice>, shows_holders: bool, shows_all: bool) {
        let bears = |notice| match notice {
            notice if shows_holders => Some(notice),
            Notice::Unnamed(_) if !shows_all => None,
            Notice::Unread(unread) => {
                let behind_server = if shows_all { unread.behind_server } else { 0 };
                Some(Notice::Unread(Unread { files: 0, mounts: 0, behind_server, ..unread }))
            }
            notice => Some(notice),
        };
        notices.into_iter().filter_map(bears).for_each(|notice| self.notices.notice(&notice));
    }

    /// Adds the containers. Each namespace except the host's gets the container of its PID 1. A process gets its own
    /// container if that is another one.
    pub(super) fn name_containers(&mut self, snapshot: &mut Snapshot) -> Result<(), Failure> {
        let Snapshot { processes, namespaces, .. } = snapshot;
        let mut pass = Pass::new(processes, self.containers.proc());
        for process in processes.iter().filter(|process| process.is_init() && process.level() > Some(0)) {
            let Some(ns) = process.ns else { continue };
            if let Some(namespace) = namespaces.get_mut(&ns) {
                namespace.container = self.containers.find_listed(process, &mut pass);
            }
        }
        let own = self.containers_of_members(processes, namespaces, &mut pass);
        self.cgroups = pass.into_cgroups();
        for (index, container) in own {
            processes[index].container = Some(container);
        }
        Ok(())
    }

    /// The containers of processes that are in another one than their PID 1, as containers can share a PID namespace.
    /// Each comes with the index of its process. One lookup serves all processes of a cgroup.
    fn containers_of_members(
        &mut self,
        processes: &[SnapshotProcess],
        namespaces: &BTreeMap<NsInum, SnapshotNamespace>,
        pass: &mut Pass<'_>,
    ) -> Vec<(usize, Arc<Container>)> {
        let members = Members::of(processes);
        let mut own = Vec::new();
        let mut known: BTreeMap<Lookup, Option<Arc<Container>>> = BTreeMap::new();
        for (index, process) in processes.iter().enumerate() {
            let Some((ns, lookup, read)) = members.lookup(process) else { continue };
            let found = match known.get(&lookup) {
                Some(found) => found.clone(),
                None => {
                    let cache = &mut self.containers;
                    let own = if process.level() > Some(0) {
                        cache.find_listed(read, pass)
                    } else {
                        cache.find_listed_on_host(read, pass)
                    };
                    let home = namespaces.get(&ns).and_then(|ns| ns.container.as_deref());
                    let own = own.and_then(|own| Container::unless_same(own, home));
                    known.insert(lookup, own.clone());
                    own
                }
            };
            own.extend(found.map(|found| (index, found)));
        }
        own
    }

    /// The contents of /proc/PID/cgroup that the last [`Self::name_containers`] read.
    pub(super) fn take_cgroups(&mut self) -> HashMap<HostPid, Arc<[u8]>> {
        std::mem::take(&mut self.cgroups)
    }

    /// The container of a namespace's PID 1. The host's namespace has none.
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

    /// Adds the containers if TARGET may be the name of a container.
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

/// Finds this host's containers; with `runtime_api` also by asking the daemons.
pub(super) fn containers(runtime_api: bool) -> ContainerCache {
    let roots = Roots::host();
    if runtime_api {
        ContainerCache::with_api(roots.clone(), Api::new(&roots))
    } else {
        ContainerCache::new(roots)
    }
}
