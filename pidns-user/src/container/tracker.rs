//! Tracks the container of each namespace. It is found while PID 1 is alive, and remembered afterwards.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    ContainerCache, bounded_map::BoundedMap, cache::RETRY_AFTER, glances::Glances, members::Members,
    state::process_exists,
};
use crate::{
    event::container::Container,
    event::identity::{BootNs, HostPid, NsInum, ProcessKey},
    event::snapshot::Snapshot,
    procfs::Procfs,
};

/// Minimum time between two reads of the whole /proc.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// The PID 1 of a namespace, and when it was read.
#[derive(Debug)]
struct TrackedInit {
    process: ProcessKey,
    first_read: Instant,
    reads: usize,
}

/// The namespace that now has an inode number.
#[derive(Debug)]
struct Tracked {
    /// When it got the number.
    from: BootNs,
    /// `None` if it has no PID 1 yet.
    init: Option<TrackedInit>,
    /// The previous namespace with this number: when it got the number, and its PID 1. Its last events and findings may
    /// arrive after the kernel has reused the number.
    before: Option<(BootNs, ProcessKey)>,
}

impl Tracked {
    fn has_init(&self, process: ProcessKey) -> bool {
        self.init.as_ref().is_some_and(|init| init.process.is_same(process))
    }
}

/// Namespaces by inode number. Above 50,000 entries, the oldest without a live PID 1 is forgotten; above 55,000, the
/// oldest of all.
#[derive(Debug)]
pub struct ContainerTracker {
    cache: ContainerCache,
    namespaces: BoundedMap<NsInum, Tracked>,
    members: Members,
    glances: Glances,
    /// Whether the host's own processes are also read.
    with_host: bool,
    /// Whether inits may have been missed. `read_at` is when all were last read.
    stale: bool,
    read_at: Option<Instant>,
}

impl ContainerTracker {
    /// A tracker that knows no namespace yet.
    pub fn new(cache: ContainerCache) -> Self {
        Self {
            cache,
            namespaces: BoundedMap::default(),
            members: Members::default(),
            glances: Glances::default(),
            with_host: false,
            stale: false,
            read_at: None,
        }
    }

    /// Like `new`, but also reads the processes of the host's own namespace, because a container can share that.
    pub fn with_host(self) -> Self {
        Self { with_host: true, ..self }
    }

    /// Reads /proc: the PID 1s of all namespaces except this program's own, and the members that are in another cgroup
    /// than their PID 1.
    pub fn read_all(&mut self) {
        let (inits, members): (Vec<_>, Vec<_>) =
            Procfs::at(self.cache.proc()).members().into_iter().partition(|(_, process)| process.is_init());
        for (inum, init) in inits {
            let Some(init) = init.key() else { continue };
            self.track_existing(inum, init);
        }
        for (inum, member) in members {
            let Some(key) = member.key() else { continue };
            self.track_member(Some(inum), key, member.ppid);
        }
        if self.with_host {
            for process in Procfs::at(self.cache.proc()).own_members() {
                let Some(key) = process.key() else { continue };
                self.track_member(None, key, process.ppid);
            }
        }
        self.stale = false;
        self.read_at = Some(Instant::now());
    }

    /// Tracks the processes of a snapshot. The task iterator also shows namespaces of processes that /proc hides.
    pub fn track_all(&mut self, snapshot: &Snapshot) {
        let known =
            snapshot.processes.iter().filter_map(|process| Some((process, process.ns?, process.key()?)));
        let (inits, members): (Vec<_>, Vec<_>) = known
            .filter(|(process, ..)| process.level() > Some(0))
            .partition(|(process, ..)| process.is_init());
        for (_, inum, init) in inits {
            self.track_existing(inum, init);
        }
        for (process, inum, member) in members {
            self.track_member(Some(inum), member, process.ppid);
        }
    }

    /// Notes that events were lost, so that a PID 1 may have been missed.
    pub fn mark_stale(&mut self) {
        self.stale = true;
    }

    /// Reads the whole /proc after a loss, at most once a second.
    pub fn resync_if_due(&mut self) {
        if self.stale && self.read_at.is_none_or(|read_at| read_at.elapsed() >= MIN_INTERVAL) {
            self.read_all();
        }
    }

    /// Records that a namespace was created at this time. The PID 1 of an earlier one with the same inode number stays
    /// known.
    pub fn on_create(&mut self, inum: NsInum, from: BootNs) {
        self.insert(inum, from, None);
    }

    /// Finds the container of a namespace's PID 1. Call it when PID 1 is first known, and again when it executes
    /// another program: a runtime may move PID 1 into the container's cgroup only after it has created it.
    pub fn track(&mut self, inum: NsInum, init: ProcessKey) {
        self.cache.refresh(init);
        self.set_init(inum, init);
    }

    /// Like [`Self::track`], for a PID 1 that is not new. Does nothing if it is already tracked. If many PID 1s are in
    /// one cgroup that no runtime knows, one read is enough for all.
    pub fn track_existing(&mut self, inum: NsInum, init: ProcessKey) {
        if !self.namespaces.get(&inum).is_some_and(|known| known.has_init(init)) {
            self.cache.find(init);
            self.set_init(inum, init);
        }
    }

    /// Records that a process came into a namespace from outside. A runtime may put it in a separate container.
    pub fn on_enter(&mut self, process: ProcessKey) {
        self.members.on_enter(process);
    }

    /// Records that a process was forked by another one in its namespace.
    pub fn on_fork(&mut self, process: ProcessKey, parent: ProcessKey) {
        self.members.on_fork(process, parent);
    }

    /// Records that a process executes another program. Its container may be known now if it entered its namespace from
    /// outside (`inum`) or is one of the host's own (`None`).
    pub fn on_exec(&mut self, inum: Option<NsInum>, process: ProcessKey) {
        match inum {
            Some(_) if self.members.has_entered(process) => {
                self.cache.refresh(process);
                self.members.mark_read(process);
            }
            Some(_) => {}
            None if self.cache.find_on_host(process).is_some() => self.members.mark_read(process),
            None => {}
        }
    }

    /// Finds the container of an existing process that is not a PID 1, unless it is in the cgroup of its namespace's
    /// PID 1. A child of that PID 1 is assumed to be in that cgroup.
    pub fn track_member(&mut self, inum: Option<NsInum>, process: ProcessKey, parent: Option<HostPid>) {
        let Some(inum) = inum else {
            if self.cache.find_on_host(process).is_some() {
                self.members.mark_read(process);
            }
            return;
        };
        let init = self.init_of(inum);
        if init.is_some_and(|init| parent == Some(init.pid)) {
            return;
        }
        if !self.members.has_entered(process)
            && !init.is_some_and(|init| self.cache.is_in_cgroup_of(process, init))
        {
            self.cache.find(process);
            self.members.mark_read(process);
        }
    }

    /// Notes that the processes of another snapshot follow.
    pub fn begin_snapshot(&mut self) {
        self.glances.begin();
    }

    /// Like [`Self::track_member`], for snapshots that come all the time: reads a limited number of processes in each,
    /// and each process in two of them.
    pub fn track_member_sparingly(
        &mut self,
        inum: Option<NsInum>,
        process: ProcessKey,
        parent: Option<HostPid>,
    ) {
        let init = inum.and_then(|inum| self.init_of(inum));
        let is_childs = init.is_some_and(|init| parent == Some(init.pid));
        if !is_childs && self.glances.is_due(process) {
            self.track_member(inum, process, parent);
        }
    }

    /// The container of a process by its own cgroup, if it differs from that of its namespace's PID 1. `inum` is `None`
    /// for the host's own namespace. `at` is a time when the process was in that namespace.
    pub fn own_container_of(
        &mut self,
        process: ProcessKey,
        inum: Option<NsInum>,
        at: BootNs,
    ) -> Option<Arc<Container>> {
        let (root, own) = self.members.container(process, &mut self.cache)?;
        let home = inum.and_then(|inum| self.container_of(inum, at));
        let init = inum.and_then(|inum| self.init_of(inum));
        if init.is_some_and(|init| self.cache.share_cgroup(root, init)) {
            return None;
        }
        Container::unless_same(own, home.as_deref())
    }

    /// Forgets a namespace that ended at this time and will not be asked for again. A later one with its number stays.
    pub fn forget(&mut self, inum: NsInum, at: BootNs) {
        let Some(tracked) = self.namespaces.get_mut(&inum) else { return };
        let before = tracked.before.take();
        let ended = (tracked.from <= at).then_some(tracked.init.as_ref().map(|init| init.process));
        if ended.is_some() {
            self.namespaces.remove(&inum);
        }
        for init in before.map(|(_, init)| init).into_iter().chain(ended.flatten()) {
            self.cache.forget(init);
        }
    }

    /// The container of the PID 1 of the namespace that had this inode number at this time, if it is known yet. The
    /// first call after each of 0.1, 1 and 10 s since the last [`Self::track`] reads it again.
    pub fn container_of(&mut self, inum: NsInum, at: BootNs) -> Option<Arc<Container>> {
        let tracked = self.namespaces.get_mut(&inum)?;
        if at < tracked.from {
            let (from, init) = tracked.before?;
            return if at < from { None } else { self.cache.last_known(init) };
        }
        let init = tracked.init.as_mut()?;
        if let Some(wait) = RETRY_AFTER.get(init.reads - 1)
            && init.first_read.elapsed() >= *wait
        {
            init.reads += 1;
            return self.cache.find(init.process);
        }
        self.cache.last_known(init.process)
    }

    fn init_of(&self, inum: NsInum) -> Option<ProcessKey> {
        self.namespaces.get(&inum)?.init.as_ref().map(|init| init.process)
    }

    /// Sets the PID 1 of a namespace. If the number is not tracked, or with another PID 1, the creation of this
    /// namespace was not seen. It then counts from the start of this PID 1.
    fn set_init(&mut self, inum: NsInum, process: ProcessKey) {
        let init = TrackedInit { process, first_read: Instant::now(), reads: 1 };
        match self.namespaces.get_mut(&inum) {
            Some(tracked) if tracked.init.is_none() || tracked.has_init(process) => {
                // A snapshot shows the start of PID 1 as the namespace's birth, and a clone starts PID 1 just before
                // its hook.
                tracked.from = tracked.from.min(process.start);
                tracked.init = Some(init);
            }
            _ => self.insert(inum, process.start, Some(init)),
        }
    }

    fn insert(&mut self, inum: NsInum, from: BootNs, init: Option<TrackedInit>) {
        let before = self.namespaces.get(&inum).and_then(|known| {
            known.init.as_ref().map_or(known.before, |init| Some((known.from, init.process)))
        });
        let proc = self.cache.proc();
        self.namespaces.insert_keeping(inum, Tracked { from, init, before }, |_, tracked| {
            tracked.init.as_ref().is_some_and(|init| process_exists(init.process, proc))
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path};

    use super::*;
    use crate::container::bounded_map::LIMIT;
    use crate::{container::Roots, event::identity::HostPid, text::Name};

    const INIT: ProcessKey = ProcessKey::new(HostPid(40), BootNs(5_000_000_000));
    const WEB: NsInum = NsInum(200);
    /// After the start of [`INIT`].
    const NOW: BootNs = BootNs(9_000_000_000);

    /// Adds PID 1 of namespace 200. It is in an LXC container, whose name is in the cgroup.
    fn put(proc: &Path, name: &str) {
        let folder = proc.join("40");
        fs::create_dir_all(folder.join("ns")).expect("create a directory");
        fs::write(folder.join("cgroup"), format!("0::/lxc.payload.{name}\n")).expect("write a file");
        fs::write(folder.join("status"), "Name:\tx\nUid:\t0\t0\t0\t0\nNSpid:\t40\t1\n")
            .expect("write a file");
        let stat = format!("40 (x) S {}500 1 2 3\n", "0 ".repeat(18));
        fs::write(folder.join("stat"), stat).expect("write a file");
        let _there_already = symlink("pid:[200]", folder.join("ns/pid"));
    }

    fn name(container: Option<Arc<Container>>) -> Option<Name> {
        container?.name.clone()
    }

    #[test]
    fn a_namespace_has_the_container_of_its_init_and_keeps_it() {
        let base = tempfile::tempdir().expect("a temporary directory");
        let proc = base.path().join("proc");
        put(&proc, "web");
        let mut containers = ContainerTracker::new(ContainerCache::new(Roots::below(base.path())));
        assert_eq!(containers.container_of(WEB, NOW), None, "no event has named it");
        containers.read_all();
        assert_eq!(name(containers.container_of(WEB, NOW)), Some(Name::from("web")));
        fs::remove_dir_all(&proc).expect("our own folder");
        assert_eq!(name(containers.container_of(WEB, NOW)), Some(Name::from("web")), "it stays known");
        containers.on_create(WEB, NOW);
        assert_eq!(containers.container_of(WEB, NOW), None, "another namespace has its number");
    }

    #[test]
    fn late_events_of_a_namespace_have_its_container_although_another_one_has_its_number() {
        let base = tempfile::tempdir().expect("a temporary directory");
        let proc = base.path().join("proc");
        put(&proc, "web");
        let mut containers = ContainerTracker::new(ContainerCache::new(Roots::below(base.path())));
        containers.track(WEB, INIT);
        let (born, reused) = (INIT.start, BootNs(20_000_000_000));
        containers.on_create(WEB, reused);
        let at = |containers: &mut ContainerTracker, at| name(containers.container_of(WEB, at));
        assert_eq!(at(&mut containers, born), Some(Name::from("web")));
        assert_eq!(at(&mut containers, reused), None, "the later one has no PID 1 yet");
        put(&proc, "next");
        let next = ProcessKey { start: BootNs(20_000_000_001), ..INIT };
        fs::write(proc.join("40/stat"), format!("40 (x) S {}2000 1 2 3\n", "0 ".repeat(18)))
            .expect("write a file");
        containers.track(WEB, next);
        assert_eq!(at(&mut containers, NOW), Some(Name::from("web")));
        assert_eq!(at(&mut containers, reused), Some(Name::from("next")));
        assert_eq!(at(&mut containers, BootNs(born.0 - 1)), None, "it was before both");
        containers.forget(WEB, NOW);
        assert_eq!(at(&mut containers, NOW), None, "the earlier one is forgotten");
        assert_eq!(at(&mut containers, reused), Some(Name::from("next")), "the later one is not");
        containers.forget(WEB, reused);
        assert_eq!((containers.namespaces.sizes(), containers.cache.last_known(next)), ((0, 0), None));
    }

    #[test]
    fn an_init_that_runs_another_program_is_read_again() {
        let base = tempfile::tempdir().expect("a temporary directory");
        let proc = base.path().join("proc");
        put(&proc, "before");
        let mut containers = ContainerTracker::new(ContainerCache::new(Roots::below(base.path())));
        containers.track(WEB, INIT);
        put(&proc, "after");
        assert_eq!(
            name(containers.container_of(WEB, NOW)),
            Some(Name::from("before")),
            "it is not read at every event"
        );
        containers.track(WEB, INIT);
        assert_eq!(name(containers.container_of(WEB, NOW)), Some(Name::from("after")));
    }

    #[test]
    fn a_living_namespace_keeps_its_container_while_thousands_come_and_go() {
        let base = tempfile::tempdir().expect("a temporary directory");
        put(&base.path().join("proc"), "web");
        let mut containers = ContainerTracker::new(ContainerCache::new(Roots::below(base.path())));
        containers.read_all();
        for pid in 1_000..LIMIT as u32 + 12_000 {
            containers.on_create(NsInum(pid), NOW);
            containers.track(NsInum(pid), ProcessKey { pid: HostPid(pid), ..INIT });
        }
        assert_eq!(name(containers.container_of(WEB, NOW)), Some(Name::from("web")));
        assert_eq!(containers.namespaces.sizes().0, LIMIT);
    }

    #[test]
    fn nothing_is_kept_of_a_forgotten_namespace() {
        let base = tempfile::tempdir().expect("a temporary directory");
        put(&base.path().join("proc"), "web");
        let mut containers = ContainerTracker::new(ContainerCache::new(Roots::below(base.path())));
        containers.track(WEB, INIT);
        assert!(containers.container_of(WEB, NOW).is_some());
        containers.forget(WEB, NOW);
        assert_eq!(containers.container_of(WEB, NOW), None);
        assert_eq!((containers.namespaces.sizes(), containers.cache.last_known(INIT)), ((0, 0), None));
    }

    #[test]
    fn after_a_loss_proc_is_read_at_most_once_a_second() {
        let base = tempfile::tempdir().expect("a temporary directory");
        let proc = base.path().join("proc");
        let mut containers = ContainerTracker::new(ContainerCache::new(Roots::below(base.path())));
        containers.read_all();
        put(&proc, "web");
        containers.mark_stale();
        containers.resync_if_due();
        assert_eq!(containers.container_of(WEB, NOW), None, "the pause is not over");
        containers.read_at = Instant::now().checked_sub(MIN_INTERVAL);
        containers.resync_if_due();
        assert_eq!(name(containers.container_of(WEB, NOW)), Some(Name::from("web")));
    }
}
