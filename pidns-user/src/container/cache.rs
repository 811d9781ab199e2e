//! Remembers the containers of processes. Each is read once, and stays known after the container is gone.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Pass, Roots,
    bounded_map::BoundedMap,
    cgroup::{self, ParsedCgroup},
    state::{self, Api, ConfirmedBy, FirstProcesses, Found, Parent, parent_of, process_exists},
};
use crate::event::container::Container;
use crate::event::{identity::ProcessKey, snapshot::SnapshotProcess};
use crate::procfs::read_record;

/// While no file names the container of a process, the files are read again at these times after the first read. The
/// result of the last read is final.
pub(super) const RETRY_AFTER: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(10)];
/// Minimum time between two reads for the same cgroup while no file names its container.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// The known container of a process.
#[derive(Debug)]
struct KnownProcess {
    parsed: Arc<ParsedCgroup>,
    container: Option<Arc<Container>>,
    first_read: Instant,
    reads: usize,
    settled: bool,
}

impl KnownProcess {
    fn is_due(&self, now: Instant) -> bool {
        let wait = RETRY_AFTER.get(self.reads.saturating_sub(1));
        !self.settled && wait.is_some_and(|wait| now.duration_since(self.first_read) >= *wait)
    }
}

/// Result of the last read for a cgroup. All processes in that cgroup share it.
#[derive(Debug)]
struct Shared {
    container: Option<Arc<Container>>,
    read_at: Instant,
    settled: bool,
    /// The first process of the container, which confirms the result. Absent if only the path names the container.
    confirmed_by: Option<ConfirmedBy>,
}

/// Finds the containers of processes and remembers them.
#[derive(Debug)]
pub struct ContainerCache {
    roots: Roots,
    api: Option<Api>,
    processes: BoundedMap<ProcessKey, KnownProcess>,
    by_cgroup: BoundedMap<Arc<ParsedCgroup>, Shared>,
    first_processes: FirstProcesses,
}

impl ContainerCache {
    /// An empty cache.
    pub fn new(roots: Roots) -> Self {
        Self {
            roots,
            api: None,
            processes: BoundedMap::default(),
            by_cgroup: BoundedMap::default(),
            first_processes: FirstProcesses::default(),
        }
    }

    /// Like `new`, but also queries the daemons for names that their files do not have. A read waits for their answers,
    /// at most 2 s for a daemon.
    pub fn with_api(roots: Roots, api: Api) -> Self {
        Self { api: Some(api), ..Self::new(roots) }
    }

    /// Forgets a process that is gone. Call it only if its container is not needed any more.
    pub fn forget(&mut self, process: ProcessKey) {
        self.processes.remove(&process);
    }

    /// The proc file system of the processes.
    pub fn proc(&self) -> &Path {
        &self.roots.proc
    }

    /// Returns the container of a process whose /proc/PID/cgroup is `cgroup`; `None` if it is in no container and no
    /// unit.
    ///
    /// Reads the runtime's files at the first call for a container. If they do not name this process, it reads them
    /// again at later calls, at most three times: 0.1, 1 and 10 s after the first.
    ///
    /// Call it for the first process of a PID namespace rather than for each process. Once its container is known, that
    /// call reads nothing. For another process it must check whether the first one still lives there, which reads two
    /// files of /proc.
    pub fn find_by_cgroup(&mut self, process: ProcessKey, cgroup: &[u8]) -> Option<Arc<Container>> {
        self.find_by_cgroup_at(process, cgroup, Instant::now())
    }

    /// Returns the container of a process of this /proc; see [`Self::find_by_cgroup`]. The result for a process that is
    /// gone stays.
    pub fn find(&mut self, process: ProcessKey) -> Option<Arc<Container>> {
        self.find_with(process, false)
    }

    /// Returns the container of a process of a snapshot, like [`Self::find`]. The other processes of the pass are not
    /// read again.
    pub fn find_listed(&mut self, process: &SnapshotProcess, pass: &mut Pass<'_>) -> Option<Arc<Container>> {
        let key = process.key()?;
        if let Some(container) = self.confirmed(key) {
            return Some(container);
        }
        let Some(parsed) = pass.parsed(process) else { return self.last_known(key) };
        let parent = pass.parent(process);
        self.find_with_parent((key, parent), parsed, Instant::now(), false, Some(pass))
    }

    /// Like [`Self::find_on_host`], for a process of a snapshot.
    pub fn find_listed_on_host(
        &mut self,
        process: &SnapshotProcess,
        pass: &mut Pass<'_>,
    ) -> Option<Arc<Container>> {
        let parsed = pass.parsed(process)??;
        if may_be_container(&parsed) { self.find_listed(process, pass) } else { None }
    }

    /// A final result that a file confirms.
    fn confirmed(&self, process: ProcessKey) -> Option<Arc<Container>> {
        match self.processes.get(&process) {
            Some(KnownProcess { container: Some(container), settled: true, .. })
                if container.is_confirmed() =>
            {
                Some(Arc::clone(container))
            }
            _ => None,
        }
    }

    /// `reread`: reads again even if the last read was recent, unless the result is final.
    fn find_with(&mut self, process: ProcessKey, reread: bool) -> Option<Arc<Container>> {
        if let Some(container) = self.confirmed(process) {
            return Some(container);
        }
        // If its cgroup cannot be read, its container is unknown.
        let cgroup =
            read_record(&self.roots.proc.join(format!("{}/cgroup", process.pid))).unwrap_or_default();
        let Some(parent) = parent_of(process, &self.roots.proc) else {
            // It is gone, and its PID may belong to another process by now.
            return self.last_known(process);
        };
        let parsed = cgroup::parse(&cgroup).map(Arc::new);
        self.find_with_parent((process, Parent::Pid(parent)), parsed, Instant::now(), reread, None)
    }

    /// Returns the container of a process of the host, like [`Self::find`]. If the cgroup names neither a container nor
    /// a directory that may belong to one, the result is `None` and nothing else is read.
    pub fn find_on_host(&mut self, process: ProcessKey) -> Option<Arc<Container>> {
        let cgroup = read_record(&self.roots.proc.join(format!("{}/cgroup", process.pid))).ok()?;
        let parsed = cgroup::parse(&cgroup)?;
        if may_be_container(&parsed) { self.find(process) } else { None }
    }

    /// Whether both processes were found in the same cgroup.
    pub(super) fn share_cgroup(&self, process: ProcessKey, other: ProcessKey) -> bool {
        let parsed = |process| self.processes.get(&process).map(|known| &known.parsed);
        parsed(process).is_some_and(|known| parsed(other) == Some(known))
    }

    /// Whether a process is in the cgroup in which `other` was found. Then it is in the same container.
    pub(super) fn is_in_cgroup_of(&self, process: ProcessKey, other: ProcessKey) -> bool {
        let cgroup = || read_record(&self.roots.proc.join(format!("{}/cgroup", process.pid))).ok();
        self.processes.get(&other).is_some_and(|known| {
            cgroup().and_then(|text| cgroup::parse(&text)).as_ref() == Some(&*known.parsed)
        })
    }

    /// Like [`Self::find`], for a process that may just have entered its container: a result that is not final is read
    /// again, however recent it is. The result for a process that has ended stays.
    pub fn refresh(&mut self, process: ProcessKey) -> Option<Arc<Container>> {
        self.find_with(process, true)
    }

    /// Returns the container that was found last. For ended processes, whose cgroup cannot be read any more.
    pub fn last_known(&self, process: ProcessKey) -> Option<Arc<Container>> {
        self.processes.get(&process)?.container.clone()
    }

    fn find_by_cgroup_at(
        &mut self,
        process: ProcessKey,
        cgroup: &[u8],
        now: Instant,
    ) -> Option<Arc<Container>> {
        self.find_with_parent(
            (process, Parent::Unread),
            cgroup::parse(cgroup).map(Arc::new),
            now,
            false,
            None,
        )
    }

    /// Like [`Self::find_by_cgroup`]; `reread` as in [`Self::find_with`]. `pass`: the pass that the process belongs to.
    fn find_with_parent(
        &mut self,
        (process, parent): (ProcessKey, Parent<'_>),
        parsed: Option<Arc<ParsedCgroup>>,
        now: Instant,
        reread: bool,
        pass: Option<&mut Pass<'_>>,
    ) -> Option<Arc<Container>> {
        let known = self.processes.get(&process);
        let parsed = match (parsed, known) {
            (Some(parsed), _) => parsed,
            // The process is in the root cgroup: on the way into its container or, with v1, as a zombie. Keep the
            // result.
            (None, Some(known)) if *known.parsed != ParsedCgroup::default() => {
                return known.container.clone();
            }
            (None, _) => Arc::default(),
        };
        let known = known.filter(|known| known.parsed == parsed);
        let reread = reread && known.is_some_and(|known| !known.settled);
        if let Some(known) = known.filter(|known| !known.is_due(now) && !reread) {
            return known.container.clone();
        }
        let (first_read, reads) = match known {
            Some(known) if !reread => (known.first_read, known.reads),
            _ => (now, 0),
        };
        let parsed = known.map_or(parsed, |known| Arc::clone(&known.parsed));
        if reread {
            self.by_cgroup.remove(&parsed);
        }
        let shared = self.by_cgroup.get(&parsed).filter(|shared| match &shared.confirmed_by {
            _ if !shared.settled => now.duration_since(shared.read_at) < MIN_INTERVAL,
            Some(confirmed_by) => confirmed_by.confirms(process, &self.roots),
            None => true,
        });
        let (container, settled) = match shared {
            Some(shared) => (shared.container.clone(), shared.settled),
            None => {
                let Found { container, settled, confirmed_by } =
                    state::find(&self.roots, self.api.as_ref(), process, &parsed);
                let container = container.map(Arc::new);
                let shared = Shared { container: container.clone(), read_at: now, settled, confirmed_by };
                self.by_cgroup.insert(Arc::clone(&parsed), shared);
                (container, settled)
            }
        };
        let (container, settled) = match container {
            Some(container) if !container.is_unit() => (Some(container), settled),
            other => match self.by_first_process(process, &parsed, pass) {
                Some(found) => (Some(found), true),
                // The runtime may write its state later.
                None => {
                    let machine = state::nspawn_machine(&self.roots, process, parent, &parsed).map(Arc::new);
                    (machine.or(other), false)
                }
            },
        };
        let known =
            KnownProcess { parsed, container: container.clone(), first_read, reads: reads + 1, settled };
        let proc = &self.roots.proc;
        self.processes.insert_keeping(process, known, |process, _| process_exists(*process, proc));
        container
    }

    /// Returns the container whose state names this process, although its cgroup does not show it. If the container has
    /// its own cgroup, the other processes in that cgroup belong to it too.
    fn by_first_process(
        &mut self,
        process: ProcessKey,
        parsed: &Arc<ParsedCgroup>,
        pass: Option<&mut Pass<'_>>,
    ) -> Option<Arc<Container>> {
        let has_states = pass.is_some_and(|pass| std::mem::replace(&mut pass.has_states, true));
        if !has_states {
            self.first_processes.update(&self.roots);
        }
        let state = self.first_processes.find(&self.roots, process)?;
        let Found { container, settled, confirmed_by } =
            state::find_by_first_process(&self.roots, process, parsed, state)?;
        let container = container.map(Arc::new);
        if !parsed.candidates.is_empty() {
            let shared =
                Shared { container: container.clone(), read_at: Instant::now(), settled, confirmed_by };
            self.by_cgroup.insert(Arc::clone(parsed), shared);
        }
        container
    }
}

/// Whether a process there may be in a container.
fn may_be_container(parsed: &ParsedCgroup) -> bool {
    !parsed.containers.is_empty() || !parsed.candidates.is_empty()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        container::bounded_map::LIMIT,
        event::identity::{BootNs, HostPid},
        text::Name,
    };

    const JOB: &[u8] = b"0::/job\n";

    fn process(pid: u32) -> ProcessKey {
        ProcessKey::new(HostPid(pid), BootNs(5_000_000_000))
    }

    /// Writes runc's state of a container with this first process.
    fn write_state(base: &Path, init: u32) {
        let folder = base.join("run/runc/job");
        fs::create_dir_all(&folder).unwrap();
        let state = format!(r#"{{"init_process_pid": {init}, "init_process_start": 500}}"#);
        fs::write(folder.join("state.json"), state).unwrap();
    }

    #[test]
    fn a_file_that_comes_late_is_found() {
        let base = tempfile::tempdir().unwrap();
        let mut cache = ContainerCache::new(Roots::below(base.path()));
        let start = Instant::now();
        let mut at = |milliseconds| {
            cache.find_by_cgroup_at(process(7), JOB, start + Duration::from_millis(milliseconds))
        };
        assert_eq!(at(0), None);
        write_state(base.path(), 7);
        assert_eq!(at(99), None, "the pause is not over");
        assert!(at(100).is_some());
        fs::remove_dir_all(base.path()).unwrap();
        assert!(at(60_000).is_some(), "a found container is final");
    }

    #[test]
    fn a_container_that_is_not_found_is_read_four_times() {
        let base = tempfile::tempdir().unwrap();
        let mut cache = ContainerCache::new(Roots::below(base.path()));
        let start = Instant::now();
        for seconds in [0.0, 0.5, 2.0, 15.0] {
            assert_eq!(
                cache.find_by_cgroup_at(process(7), JOB, start + Duration::from_secs_f64(seconds)),
                None
            );
        }
        assert_eq!(cache.processes.get(&process(7)).unwrap().reads, 4);
        write_state(base.path(), 7);
        let late = start + Duration::from_secs(3600);
        assert_eq!(cache.find_by_cgroup_at(process(7), JOB, late), None, "the result is final");
        write_state(base.path(), 8);
        assert!(cache.find_by_cgroup_at(process(8), JOB, late).is_some(), "another process is read again");
    }

    #[test]
    fn an_unknown_place_is_read_again_at_intervals() {
        let base = tempfile::tempdir().unwrap();
        let mut cache = ContainerCache::new(Roots::below(base.path()));
        let start = Instant::now();
        assert_eq!(cache.find_by_cgroup_at(process(1), JOB, start), None);
        write_state(base.path(), 7);
        put(base.path(), 7, 500, "/job");
        let soon = start + Duration::from_millis(99);
        assert_eq!(cache.find_by_cgroup_at(process(8), JOB, soon), None, "the last result is reused");
        assert!(cache.find_by_cgroup_at(process(8), JOB, soon + Duration::from_millis(100)).is_some());
    }

    #[test]
    fn a_first_process_is_found_by_its_state_under_any_cgroup_name() {
        let base = tempfile::tempdir().unwrap();
        write_state(base.path(), 7);
        for cgroup in ["0::/another/name\n", "0::/\n", "0::/system.slice/ssh.service\n"] {
            let mut cache = ContainerCache::new(Roots::below(base.path()));
            let found = cache.find_by_cgroup(process(7), cgroup.as_bytes()).expect(cgroup);
            assert_eq!((&found.id, found.is_confirmed()), (&Some(Name::from("job")), true), "{cgroup}");
            let other = cache.find_by_cgroup(process(8), b"0::/system.slice/ssh.service\n");
            assert!(other.is_some_and(|other| other.is_unit()), "{cgroup}");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let base = tempfile::tempdir().unwrap();
        let mut cache = ContainerCache::new(Roots::below(base.path()));
        let last = LIMIT as u32 + 500;
        for pid in 1..=last {
            let container =
                cache.find_by_cgroup(process(pid), format!("0::/lxc.payload.c{pid}\n").as_bytes());
            assert!(container.is_some());
        }
        assert_eq!(cache.processes.sizes(), (LIMIT, LIMIT));
        assert_eq!(cache.by_cgroup.sizes(), (LIMIT, LIMIT));
        assert_eq!(cache.last_known(process(1)), None, "the oldest is forgotten");
        assert!(cache.last_known(process(last)).is_some());
        for round in 0..3 * LIMIT {
            cache.find_by_cgroup(process(last), format!("0::/lxc.payload.r{}\n", round % 7).as_bytes());
        }
        assert_eq!(cache.processes.sizes(), (LIMIT, LIMIT), "a process that moves has one entry");
    }

    /// Adds a process to a made-up /proc.
    fn put(base: &Path, pid: u32, start_ticks: u64, cgroup: &str) {
        let folder = base.join("proc").join(pid.to_string());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
        let stat = format!("{pid} (x) S {}{start_ticks} 1 2 3\n", "0 ".repeat(18));
        fs::write(folder.join("stat"), stat).unwrap();
    }

    #[test]
    fn the_container_of_an_ended_process_stays_known_after_another_read() {
        let base = tempfile::tempdir().unwrap();
        let folder = |path: &str| format!("0::{path}\n4:memory:{path}\n");
        let id = format!("{:064}", 7);
        let write_cgroup = |pid: u32, text: &str| {
            put(base.path(), pid, 500, "/");
            fs::write(base.path().join(format!("proc/{pid}/cgroup")), text).unwrap();
        };
        for (pid, then) in [(7, Some(folder("/"))), (8, None)] {
            write_cgroup(pid, &folder(&format!("/libpod-{id}")));
            let mut cache = ContainerCache::new(Roots::below(base.path()));
            let known = cache.find(process(pid)).expect("its cgroup contains the id");
            assert!(known.by_cgroup_alone && known.id.is_some());
            match then {
                // With v1, a zombie is in the root cgroup.
                Some(text) => write_cgroup(pid, &text),
                None => fs::remove_dir_all(base.path().join(format!("proc/{pid}"))).unwrap(),
            }
            assert_eq!(cache.refresh(process(pid)), Some(Arc::clone(&known)), "{pid}");
            assert_eq!(cache.find(process(pid)), Some(known), "{pid}");
        }
    }

    #[test]
    fn a_reused_pid_does_not_rename_the_earlier_process() {
        let base = tempfile::tempdir().unwrap();
        let mut cache = ContainerCache::new(Roots::below(base.path()));
        let id = |found: Option<Arc<Container>>| found.and_then(|found| found.id.clone());
        put(base.path(), 7, 500, "/lxc.payload.web");
        assert_eq!(id(cache.find(process(7))), Some(Name::from("web")));
        put(base.path(), 7, 501, "/lxc.payload.other");
        assert_eq!(id(cache.find(process(7))), Some(Name::from("web")));
        assert_eq!(cache.find(process(8)), None, "no such process");
    }

    #[test]
    fn living_processes_are_forgotten_after_ended_ones() {
        let base = tempfile::tempdir().unwrap();
        let mut cache = ContainerCache::new(Roots::below(base.path()));
        put(base.path(), 1, 500, "/lxc.payload.web");
        assert!(cache.find(process(1)).is_some());
        for pid in 2..LIMIT as u32 * 2 {
            cache.find_by_cgroup(process(pid), format!("0::/lxc.payload.c{pid}\n").as_bytes());
        }
        assert_eq!(cache.processes.sizes(), (LIMIT, LIMIT));
        assert!(cache.last_known(process(1)).is_some());
        assert_eq!(cache.last_known(process(2)), None);
    }
}
