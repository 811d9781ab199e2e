//! The containers of namespaces: what the PID 1 of each runs in, found while that lives, and known when it is gone.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{ContainerCache, cache::AGAIN_AFTER, members::Members, ring::Ring, state::is_there};
use crate::{
    event::container::Container,
    event::identity::{HostPid, NsInum, ProcessKey},
    event::snapshot::Snapshot,
    procfs::Procfs,
};

/// Least time between two reads of all of /proc.
const PAUSE: Duration = Duration::from_secs(1);

/// The PID 1 of a namespace, and when it was read.
#[derive(Debug)]
struct TrackedInit {
    process: ProcessKey,
    first_look: Instant,
    reads: usize,
}

/// Namespaces by their inode number: of more than 50,000 the longest known are forgotten, and of those whose PID 1 lives
/// the ones beyond 55,000.
#[derive(Debug)]
pub struct ContainerTracker {
    names: ContainerCache,
    /// None where it has none yet.
    inits: Ring<NsInum, Option<TrackedInit>>,
    members: Members,
    /// Whether the host's own processes are read, too.
    with_host: bool,
    /// Whether inits may have been missed, and when all were read last.
    stale: bool,
    read_at: Option<Instant>,
}

impl ContainerTracker {
    /// No namespace is known yet.
    pub fn new(names: ContainerCache) -> Self {
        Self {
            names,
            inits: Ring::default(),
            members: Members::default(),
            with_host: false,
            stale: false,
            read_at: None,
        }
    }

    /// As `new`, and reads the processes of the host's own namespace too: a container can share that.
    pub fn with_host(self) -> Self {
        Self { with_host: true, ..self }
    }

    /// Reads the PID 1s of all namespaces in /proc but the one that this program is in, and at those members that are in
    /// another cgroup.
    pub fn read_all(&mut self) {
        let (inits, members): (Vec<_>, Vec<_>) =
            Procfs::at(self.names.proc()).members().into_iter().partition(|(_, process)| process.is_init());
        for (inum, init) in inits {
            let Some(init) = init.key() else { continue };
            self.track_existing(inum, init);
        }
        for (inum, member) in members {
            let Some(key) = member.key() else { continue };
            self.track_member(Some(inum), key, member.ppid);
        }
        if self.with_host {
            for process in Procfs::at(self.names.proc()).own_members() {
                let Some(key) = process.key() else { continue };
                self.track_member(None, key, process.ppid);
            }
        }
        self.stale = false;
        self.read_at = Some(Instant::now());
    }

    /// Tracks the processes of a snapshot: /proc may hide the namespaces of processes, the task iterator does not.
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

    /// Events were lost: a PID 1 may have been missed.
    pub fn mark_stale(&mut self) {
        self.stale = true;
    }

    /// Reads all of /proc after a loss, at most once a second.
    pub fn resync_if_due(&mut self) {
        if self.stale && self.read_at.is_none_or(|read_at| read_at.elapsed() >= PAUSE) {
            self.read_all();
        }
    }

    /// A new namespace: forgets an earlier one with the same inode number.
    pub fn begins(&mut self, inum: NsInum) {
        self.insert(inum, None);
    }

    /// Finds the container of a namespace's PID 1: when it is first known, and again when it runs another program,
    /// as a runtime may put it in its cgroup only after it exists.
    pub fn track(&mut self, inum: NsInum, init: ProcessKey) {
        self.names.find_anew(init);
        let first_look = Instant::now();
        self.insert(inum, Some(TrackedInit { process: init, first_look, reads: 1 }));
    }

    /// The same for a PID 1 that is not new, unless it was done before. If many are in one cgroup and no runtime knows
    /// them, one read is enough for all.
    pub fn track_existing(&mut self, inum: NsInum, init: ProcessKey) {
        let known = self.inits.get(&inum).and_then(Option::as_ref);
        if !known.is_some_and(|known| known.process.is_same(init)) {
            self.names.find(init);
            self.insert(inum, Some(TrackedInit { process: init, first_look: Instant::now(), reads: 1 }));
        }
    }

    /// A process has come into a namespace from outside: a runtime may put it in a separate container.
    pub fn enters(&mut self, process: ProcessKey) {
        self.members.enters(process);
    }

    /// A process was forked by another one of its namespace.
    pub fn on_fork(&mut self, process: ProcessKey, parent: ProcessKey) {
        self.members.on_fork(process, parent);
    }

    /// A process runs another program. The container may now be known if it entered its namespace from outside (`inum`)
    /// or is one of the host's own (`None`).
    pub fn runs_program(&mut self, inum: Option<NsInum>, process: ProcessKey) {
        match inum {
            Some(_) if self.members.has_entered(process) => {
                self.names.find_anew(process);
                self.members.mark_read(process);
            }
            Some(_) => {}
            None if self.names.find_on_host(process).is_some() => self.members.mark_read(process),
            None => {}
        }
    }

    /// Finds the container of a process that is not new and no PID 1, unless it is in the cgroup of its namespace's PID
    /// 1. A child of that PID 1 is.
    pub fn track_member(&mut self, inum: Option<NsInum>, process: ProcessKey, parent: Option<HostPid>) {
        let Some(inum) = inum else {
            if self.names.find_on_host(process).is_some() {
                self.members.mark_read(process);
            }
            return;
        };
        let init = self.inits.get(&inum).and_then(Option::as_ref).map(|init| init.process);
        if init.is_some_and(|init| parent == Some(init.pid)) {
            return;
        }
        if !self.members.has_entered(process) && !init.is_some_and(|init| self.names.is_where(process, init))
        {
            self.names.find(process);
            self.members.mark_read(process);
        }
    }

    /// The container of a process by its own cgroup, if it differs from that of the PID 1 of its namespace (`None`: the
    /// host's own).
    pub fn own_of(&mut self, process: ProcessKey, inum: Option<NsInum>) -> Option<Arc<Container>> {
        let (root, own) = self.members.container(process, &mut self.names)?;
        let home = inum.and_then(|inum| self.of(inum));
        let init = inum.and_then(|inum| self.inits.get(&inum)?.as_ref()).map(|init| init.process);
        if init.is_some_and(|init| self.names.are_together(root, init)) {
            return None;
        }
        Container::beside(own, home.as_deref())
    }

    /// A namespace is gone, and nothing more will be asked of it.
    pub fn forget(&mut self, inum: NsInum) {
        if let Some(Some(init)) = self.inits.get(&inum) {
            self.names.forget(init.process);
        }
        self.inits.remove(&inum);
    }

    fn insert(&mut self, inum: NsInum, init: Option<TrackedInit>) {
        let proc = self.names.proc();
        self.inits.insert_beside(inum, init, |_, init| {
            init.as_ref().is_some_and(|init| is_there(init.process, proc))
        });
    }

    /// The container of a namespace's PID 1, as far as it is known by now. While that is young it is read again: 0.1,
    /// 1 and 10 s after the last [`Self::track`].
    pub fn of(&mut self, inum: NsInum) -> Option<Arc<Container>> {
        let init = self.inits.get_mut(&inum)?.as_mut()?;
        if let Some(wait) = AGAIN_AFTER.get(init.reads - 1)
            && init.first_look.elapsed() >= *wait
        {
            init.reads += 1;
            return self.names.find(init.process);
        }
        self.names.remembered(init.process)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path};

    use super::*;
    use crate::container::ring::LIMIT;
    use crate::{
        container::Roots,
        event::identity::{BootNs, HostPid},
        text::Name,
    };

    const INIT: ProcessKey = ProcessKey::new(HostPid(40), BootNs(5_000_000_000));
    const WEB: NsInum = NsInum(200);

    /// PID 1 of namespace 200, in a container of LXC, whose name is in its cgroup.
    fn put(proc: &Path, name: &str) {
        let folder = proc.join("40");
        fs::create_dir_all(folder.join("ns")).expect("a folder");
        fs::write(folder.join("cgroup"), format!("0::/lxc.payload.{name}\n")).expect("a file");
        fs::write(folder.join("status"), "Name:\tx\nUid:\t0\t0\t0\t0\nNSpid:\t40\t1\n").expect("a file");
        let stat = format!("40 (x) S {}500 1 2 3\n", "0 ".repeat(18));
        fs::write(folder.join("stat"), stat).expect("a file");
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
        assert_eq!(containers.of(WEB), None, "no event has named it");
        containers.read_all();
        assert_eq!(name(containers.of(WEB)), Some(Name::from("web")));
        fs::remove_dir_all(&proc).expect("our own folder");
        assert_eq!(name(containers.of(WEB)), Some(Name::from("web")), "it is gone, and known");
        containers.begins(WEB);
        assert_eq!(containers.of(WEB), None, "another one has its number");
    }

    #[test]
    fn an_init_that_runs_another_program_is_read_again() {
        let base = tempfile::tempdir().expect("a temporary directory");
        let proc = base.path().join("proc");
        put(&proc, "before");
        let mut containers = ContainerTracker::new(ContainerCache::new(Roots::below(base.path())));
        containers.track(WEB, INIT);
        put(&proc, "after");
        assert_eq!(name(containers.of(WEB)), Some(Name::from("before")), "not at every event");
        containers.track(WEB, INIT);
        assert_eq!(name(containers.of(WEB)), Some(Name::from("after")));
    }

    #[test]
    fn a_namespace_that_lives_keeps_its_container_while_thousands_come_and_go() {
        let base = tempfile::tempdir().expect("a temporary directory");
        put(&base.path().join("proc"), "web");
        let mut containers = ContainerTracker::new(ContainerCache::new(Roots::below(base.path())));
        containers.read_all();
        for pid in 1_000..LIMIT as u32 + 12_000 {
            containers.begins(NsInum(pid));
            containers.track(NsInum(pid), ProcessKey { pid: HostPid(pid), ..INIT });
        }
        assert_eq!(name(containers.of(WEB)), Some(Name::from("web")));
        assert_eq!(containers.inits.sizes().0, LIMIT);
    }

    #[test]
    fn of_a_namespace_that_is_gone_nothing_is_kept() {
        let base = tempfile::tempdir().expect("a temporary directory");
        put(&base.path().join("proc"), "web");
        let mut containers = ContainerTracker::new(ContainerCache::new(Roots::below(base.path())));
        containers.track(WEB, INIT);
        assert!(containers.of(WEB).is_some());
        containers.forget(WEB);
        assert_eq!(containers.of(WEB), None);
        assert_eq!((containers.inits.sizes(), containers.names.remembered(INIT)), ((0, 0), None));
    }

    #[test]
    fn after_a_loss_it_takes_at_most_one_snapshot_a_second() {
        let base = tempfile::tempdir().expect("a temporary directory");
        let proc = base.path().join("proc");
        let mut containers = ContainerTracker::new(ContainerCache::new(Roots::below(base.path())));
        containers.read_all();
        put(&proc, "web");
        containers.mark_stale();
        containers.resync_if_due();
        assert_eq!(containers.of(WEB), None, "not again at once");
        containers.read_at = Instant::now().checked_sub(PAUSE);
        containers.resync_if_due();
        assert_eq!(name(containers.of(WEB)), Some(Name::from("web")));
    }
}
