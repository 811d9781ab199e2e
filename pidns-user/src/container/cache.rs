//! The containers of processes, remembered: read once, and still known when the container is gone.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Roots,
    cgroup::{self, Place},
    ring::Ring,
    state::{self, Api, FirstProcesses, Found, Witness, is_there, parent_of},
};
use crate::event::container::Container;
use crate::event::identity::{HostPid, ProcessKey};
use crate::procfs::read_record;

/// How long after the first read of a process the next ones are, while the files do not name it. After the
/// last it stays with what is known.
pub(super) const AGAIN_AFTER: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(10)];
/// How soon another process of a place that is not in the files causes another read.
const PAUSE: Duration = Duration::from_millis(100);

/// What was found of a process.
#[derive(Debug)]
struct KnownProcess {
    place: Arc<Place>,
    container: Option<Arc<Container>>,
    first_look: Instant,
    reads: usize,
    settled: bool,
}

impl KnownProcess {
    fn is_due(&self, now: Instant) -> bool {
        let wait = AGAIN_AFTER.get(self.reads.saturating_sub(1));
        !self.settled && wait.is_some_and(|wait| now.duration_since(self.first_look) >= *wait)
    }
}

/// What the last read of a place found: all processes there share it.
#[derive(Debug)]
struct Shared {
    container: Option<Arc<Container>>,
    read_at: Instant,
    settled: bool,
    /// The first process by which it was confirmed: absent where only the path names the container.
    witness: Option<Witness>,
}

/// Finds the containers of processes, and remembers them.
#[derive(Debug)]
pub struct ContainerCache {
    roots: Roots,
    api: Option<Api>,
    processes: Ring<ProcessKey, KnownProcess>,
    places: Ring<Arc<Place>, Shared>,
    first_processes: FirstProcesses,
}

impl ContainerCache {
    /// Nothing is read yet.
    pub fn new(roots: Roots) -> Self {
        Self {
            roots,
            api: None,
            processes: Ring::default(),
            places: Ring::default(),
            first_processes: FirstProcesses::default(),
        }
    }

    /// As `new`, and asks the daemons for the names that their files do not have. Each read may take as long
    /// as they take to answer, up to 2 s once for a daemon that does not.
    pub fn asking(roots: Roots, api: Api) -> Self {
        Self { api: Some(api), ..Self::new(roots) }
    }

    /// A process is gone, and nothing more will be asked of it.
    pub fn forget(&mut self, process: ProcessKey) {
        self.processes.remove(&process);
    }

    /// The proc file system that processes are looked up in.
    pub(super) fn proc(&self) -> &Path {
        &self.roots.proc
    }

    /// The container of a process whose /proc/PID/cgroup is `cgroup`; none where it is in no container and no
    /// unit.
    ///
    /// Reads the runtime's files at the first call for a container. While they do not name this process,
    /// it reads them again at later calls, three times at most: 0.1, 1 and 10 s after the first.
    ///
    /// Ask for the first process of a PID namespace rather than for each: once its container is known that
    /// reads nothing, while another process takes a check whether that first one still lives there, two
    /// files of /proc.
    pub fn of(&mut self, process: ProcessKey, cgroup: &[u8]) -> Option<Arc<Container>> {
        self.of_at(process, cgroup, Instant::now())
    }

    /// The container of a process of this /proc; as [`Self::of`], which has more about it. What was known of one that has
    /// gone stays.
    pub fn find(&mut self, process: ProcessKey) -> Option<Arc<Container>> {
        self.look(process, false)
    }

    /// `is_anew`: whenever it was looked at last, unless that is settled.
    fn look(&mut self, process: ProcessKey, is_anew: bool) -> Option<Arc<Container>> {
        if let Some(KnownProcess { container: Some(container), settled: true, .. }) =
            self.processes.get(&process)
            && container.is_vouched()
        {
            return Some(Arc::clone(container));
        }
        // One that may not be read is in no known container.
        let cgroup =
            read_record(&self.roots.proc.join(format!("{}/cgroup", process.pid))).unwrap_or_default();
        let Some(parent) = parent_of(process, &self.roots.proc) else {
            // It has gone, and what was read may be of the next process of its PID.
            return self.remembered(process);
        };
        self.of_child((process, Some(parent)), &cgroup, Instant::now(), is_anew)
    }

    /// The container of a process of the host: as [`Self::find`], but none where its cgroup names neither a container nor a
    /// folder that may be one's, which is all that is read then.
    pub fn find_on_host(&mut self, process: ProcessKey) -> Option<Arc<Container>> {
        let cgroup = read_record(&self.roots.proc.join(format!("{}/cgroup", process.pid))).ok()?;
        let place = cgroup::parse(&cgroup)?;
        let may_be_one = !place.containers.is_empty() || !place.candidates.is_empty();
        if may_be_one { self.find(process) } else { None }
    }

    /// Whether the two were found in one cgroup.
    pub(super) fn are_together(&self, process: ProcessKey, other: ProcessKey) -> bool {
        let place = |process| self.processes.get(&process).map(|known| &known.place);
        place(process).is_some_and(|known| place(other) == Some(known))
    }

    /// Whether a process is in the very cgroup that this other one was found in: then it is in the same container.
    pub(super) fn is_where(&self, process: ProcessKey, other: ProcessKey) -> bool {
        let cgroup = || read_record(&self.roots.proc.join(format!("{}/cgroup", process.pid))).ok();
        self.processes.get(&other).is_some_and(|known| {
            cgroup().and_then(|text| cgroup::parse(&text)).as_ref() == Some(&*known.place)
        })
    }

    /// As [`Self::find`], of a process that may just have come into its container: what is not settled is read again, whenever
    /// that was read last. What was known of one that has ended since stays.
    pub fn find_anew(&mut self, process: ProcessKey) -> Option<Arc<Container>> {
        self.look(process, true)
    }

    /// The container of a process as it was found last: for the dead, whose cgroup cannot be read any more.
    pub fn remembered(&self, process: ProcessKey) -> Option<Arc<Container>> {
        self.processes.get(&process)?.container.clone()
    }

    fn of_at(&mut self, process: ProcessKey, cgroup: &[u8], now: Instant) -> Option<Arc<Container>> {
        self.of_child((process, None), cgroup, now, false)
    }

    /// As [`Self::of`]; `parent` where that has been read, `is_anew` as of [`Self::look`].
    fn of_child(
        &mut self,
        (process, parent): (ProcessKey, Option<Option<HostPid>>),
        cgroup: &[u8],
        now: Instant,
        is_anew: bool,
    ) -> Option<Arc<Container>> {
        let known = self.processes.get(&process);
        let place = match (cgroup::parse(cgroup), known) {
            (Some(place), _) => place,
            // A process on the way into its container is in the root, and with v1 a zombie is too: what was known
            // stays.
            (None, Some(known)) if *known.place != Place::default() => return known.container.clone(),
            (None, _) => Place::default(),
        };
        let known = known.filter(|known| *known.place == place);
        let is_anew = is_anew && known.is_some_and(|known| !known.settled);
        if let Some(known) = known.filter(|known| !known.is_due(now) && !is_anew) {
            return known.container.clone();
        }
        let (first_look, reads) = match known {
            Some(known) if !is_anew => (known.first_look, known.reads),
            _ => (now, 0),
        };
        let place = known.map_or_else(|| Arc::new(place), |known| Arc::clone(&known.place));
        if is_anew {
            self.places.remove(&place);
        }
        let shared = self.places.get(&place).filter(|shared| match &shared.witness {
            _ if !shared.settled => now.duration_since(shared.read_at) < PAUSE,
            Some(witness) => witness.speaks_for(process, &self.roots),
            None => true,
        });
        let (container, settled) = match shared {
            Some(shared) => (shared.container.clone(), shared.settled),
            None => {
                let Found { container, settled, witness } =
                    state::find(&self.roots, self.api.as_ref(), process, &place);
                let container = container.map(Arc::new);
                let shared = Shared { container: container.clone(), read_at: now, settled, witness };
                self.places.insert(Arc::clone(&place), shared);
                (container, settled)
            }
        };
        let (container, settled) = match container {
            Some(container) if !container.is_unit() => (Some(container), settled),
            other => match self.by_first_process(process, &place) {
                Some(found) => (Some(found), true),
                // The state may be written later.
                None => {
                    let machine = state::nspawn_machine(&self.roots, process, parent, &place).map(Arc::new);
                    (machine.or(other), false)
                }
            },
        };
        let known =
            KnownProcess { place, container: container.clone(), first_look, reads: reads + 1, settled };
        let proc = &self.roots.proc;
        self.processes.insert_beside(process, known, |process, _| is_there(*process, proc));
        container
    }

    /// The container whose state names this process, which its cgroup does not show. What is in that cgroup is then in it too, if
    /// it is one of its own.
    fn by_first_process(&mut self, process: ProcessKey, place: &Arc<Place>) -> Option<Arc<Container>> {
        let state = self.first_processes.find(&self.roots, process)?;
        let Found { container, settled, witness } =
            state::find_by_first_process(&self.roots, process, place, state)?;
        let container = container.map(Arc::new);
        if !place.candidates.is_empty() {
            let shared = Shared { container: container.clone(), read_at: Instant::now(), settled, witness };
            self.places.insert(Arc::clone(place), shared);
        }
        container
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{container::ring::LIMIT, event::identity::BootNs, text::Name};

    const JOB: &[u8] = b"0::/job\n";

    fn process(pid: u32) -> ProcessKey {
        ProcessKey::new(HostPid(pid), BootNs(5_000_000_000))
    }

    /// runc's file about a container of this first process.
    fn write_state(base: &Path, init: u32) {
        let folder = base.join("run/runc/job");
        fs::create_dir_all(&folder).unwrap();
        let state = format!(r#"{{"init_process_pid": {init}, "init_process_start": 500}}"#);
        fs::write(folder.join("state.json"), state).unwrap();
    }

    #[test]
    fn a_file_that_comes_late_is_found() {
        let base = tempfile::tempdir().unwrap();
        let mut names = ContainerCache::new(Roots::below(base.path()));
        let start = Instant::now();
        let mut at = |milliseconds| names.of_at(process(7), JOB, start + Duration::from_millis(milliseconds));
        assert_eq!(at(0), None);
        write_state(base.path(), 7);
        assert_eq!(at(99), None, "not again at once");
        assert!(at(100).is_some());
        fs::remove_dir_all(base.path()).unwrap();
        assert!(at(60_000).is_some(), "once found, it is not searched for again");
    }

    #[test]
    fn a_container_that_is_not_found_is_read_four_times() {
        let base = tempfile::tempdir().unwrap();
        let mut names = ContainerCache::new(Roots::below(base.path()));
        let start = Instant::now();
        for seconds in [0.0, 0.5, 2.0, 15.0] {
            assert_eq!(names.of_at(process(7), JOB, start + Duration::from_secs_f64(seconds)), None);
        }
        assert_eq!(names.processes.get(&process(7)).unwrap().reads, 4);
        write_state(base.path(), 7);
        let late = start + Duration::from_secs(3600);
        assert_eq!(names.of_at(process(7), JOB, late), None, "it stays with what is known");
        write_state(base.path(), 8);
        assert!(names.of_at(process(8), JOB, late).is_some(), "another process is searched for anew");
    }

    #[test]
    fn an_unknown_place_is_read_again_at_intervals() {
        let base = tempfile::tempdir().unwrap();
        let mut names = ContainerCache::new(Roots::below(base.path()));
        let start = Instant::now();
        assert_eq!(names.of_at(process(1), JOB, start), None);
        write_state(base.path(), 7);
        put(base.path(), 7, 500, "/job");
        let soon = start + Duration::from_millis(99);
        assert_eq!(names.of_at(process(8), JOB, soon), None, "the last read is the answer");
        assert!(names.of_at(process(8), JOB, soon + Duration::from_millis(100)).is_some());
    }

    #[test]
    fn a_first_process_is_found_by_the_state_that_names_it_whatever_its_cgroup_is_called() {
        let base = tempfile::tempdir().unwrap();
        write_state(base.path(), 7);
        for cgroup in ["0::/another/name\n", "0::/\n", "0::/system.slice/ssh.service\n"] {
            let mut names = ContainerCache::new(Roots::below(base.path()));
            let found = names.of(process(7), cgroup.as_bytes()).expect(cgroup);
            assert_eq!((&found.id, found.is_vouched()), (&Some(Name::from("job")), true), "{cgroup}");
            let other = names.of(process(8), b"0::/system.slice/ssh.service\n");
            assert!(other.is_some_and(|other| other.is_unit()), "{cgroup}");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let base = tempfile::tempdir().unwrap();
        let mut names = ContainerCache::new(Roots::below(base.path()));
        let last = LIMIT as u32 + 500;
        for pid in 1..=last {
            let container = names.of(process(pid), format!("0::/lxc.payload.c{pid}\n").as_bytes());
            assert!(container.is_some());
        }
        assert_eq!(names.processes.sizes(), (LIMIT, LIMIT));
        assert_eq!(names.places.sizes(), (LIMIT, LIMIT));
        assert_eq!(names.remembered(process(1)), None, "the longest known is forgotten");
        assert!(names.remembered(process(last)).is_some());
        for round in 0..3 * LIMIT {
            names.of(process(last), format!("0::/lxc.payload.r{}\n", round % 7).as_bytes());
        }
        assert_eq!(names.processes.sizes(), (LIMIT, LIMIT), "one that moves about is there once");
    }

    /// A process of a made-up /proc.
    fn put(base: &Path, pid: u32, start_ticks: u64, cgroup: &str) {
        let folder = base.join("proc").join(pid.to_string());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
        let stat = format!("{pid} (x) S {}{start_ticks} 1 2 3\n", "0 ".repeat(18));
        fs::write(folder.join("stat"), stat).unwrap();
    }

    #[test]
    fn what_was_known_of_a_process_that_has_ended_stays_when_it_is_looked_at_anew() {
        let base = tempfile::tempdir().unwrap();
        let folder = |path: &str| format!("0::{path}\n4:memory:{path}\n");
        let id = format!("{:064}", 7);
        let place = |pid: u32, text: &str| {
            put(base.path(), pid, 500, "/");
            fs::write(base.path().join(format!("proc/{pid}/cgroup")), text).unwrap();
        };
        for (pid, then) in [(7, Some(folder("/"))), (8, None)] {
            place(pid, &folder(&format!("/libpod-{id}")));
            let mut names = ContainerCache::new(Roots::below(base.path()));
            let known = names.find(process(pid)).expect("its cgroup tells the id");
            assert!(known.by_cgroup_alone && known.id.is_some());
            match then {
                // With v1 a zombie is in the root.
                Some(text) => place(pid, &text),
                None => fs::remove_dir_all(base.path().join(format!("proc/{pid}"))).unwrap(),
            }
            assert_eq!(names.find_anew(process(pid)), Some(Arc::clone(&known)), "{pid}");
            assert_eq!(names.find(process(pid)), Some(known), "{pid}");
        }
    }

    #[test]
    fn the_next_process_of_a_pid_does_not_rename_the_one_before() {
        let base = tempfile::tempdir().unwrap();
        let mut names = ContainerCache::new(Roots::below(base.path()));
        let id = |found: Option<Arc<Container>>| found.and_then(|found| found.id.clone());
        put(base.path(), 7, 500, "/lxc.payload.web");
        assert_eq!(id(names.find(process(7))), Some(Name::from("web")));
        put(base.path(), 7, 501, "/lxc.payload.other");
        assert_eq!(id(names.find(process(7))), Some(Name::from("web")));
        assert_eq!(names.find(process(8)), None, "there is none");
    }

    #[test]
    fn living_processes_are_forgotten_after_the_dead() {
        let base = tempfile::tempdir().unwrap();
        let mut names = ContainerCache::new(Roots::below(base.path()));
        put(base.path(), 1, 500, "/lxc.payload.web");
        assert!(names.find(process(1)).is_some());
        for pid in 2..LIMIT as u32 * 2 {
            names.of(process(pid), format!("0::/lxc.payload.c{pid}\n").as_bytes());
        }
        assert_eq!(names.processes.sizes(), (LIMIT, LIMIT));
        assert!(names.remembered(process(1)).is_some());
        assert_eq!(names.remembered(process(2)), None);
    }
}
