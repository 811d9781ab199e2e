//! Containers by the first process that their runtime's state names: for those whose cgroup does not have their id, as it is
//! called otherwise (`cgroupsPath`, `ctr run --cgroup`) or they have none of their own.
//!
//! A container's state names its first process once and for all, so that each is read once; a folder is read again only when
//! something has been added to it or taken away.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{
    super::{Roots, roots::Folder},
    oci,
    process::Init,
    read::{FolderName, Reader},
};
use crate::event::identity::ProcessKey;

/// Most containers whose first process is remembered.
const MOST_KNOWN: usize = 4_096;
/// How long a folder can change without another time in it: file systems count in ticks, of 10 ms at most.
const TICK: Duration = Duration::from_millis(20);

/// Where a container's state is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct StateOf {
    pub(super) id: String,
    /// containerd's namespace, in whose folder it is.
    pub(super) runtime_namespace: Option<String>,
}

/// A folder of containers, as it was read last.
#[derive(Debug)]
struct Listed {
    state: State,
    containers: HashMap<String, Init>,
    /// Whether the state of one could not be read yet.
    is_incomplete: bool,
}

/// The first processes of all containers of the machine's OCI runtimes.
#[derive(Debug, Default)]
pub(in super::super) struct FirstProcesses {
    listed: HashMap<PathBuf, Listed>,
    /// The folders of containers, each with containerd's namespace.
    folders: Vec<(Folder, Option<String>)>,
    /// The folders that were read to find those, each as it was.
    found_in: Vec<(PathBuf, State)>,
}

/// When a folder changed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Changed(SystemTime),
    /// Just now: more may change within the same timestamp.
    ChangedLately,
}

impl State {
    fn of(folder: &Path) -> Self {
        match fs::metadata(folder).and_then(|folder| folder.modified()) {
            Ok(changed) if changed.elapsed().is_ok_and(|age| age > TICK) => Self::Changed(changed),
            Ok(_) => Self::ChangedLately,
            Err(_) => Self::Absent,
        }
    }

    /// Whether what was read of the folder is what it has now.
    fn is_still(self, folder: &Path) -> bool {
        self != Self::ChangedLately && Self::of(folder) == self
    }
}

impl FirstProcesses {
    /// The container whose first process this is, if a state names it.
    pub(in super::super) fn find(&mut self, roots: &Roots, process: ProcessKey) -> Option<StateOf> {
        let reader = Reader::new();
        if self.found_in.is_empty() || !self.found_in.iter().all(|(folder, state)| state.is_still(folder)) {
            self.find_folders(&reader, roots);
        }
        let folders = std::mem::take(&mut self.folders);
        let found = folders.iter().find_map(|(folder, runtime_namespace)| {
            let id = self.list(&reader, folder).iter().find_map(|(id, init)| {
                let is_it = init.pid == process.pid
                    && init.start_ticks.is_none_or(|ticks| ticks == process.start.ticks());
                is_it.then(|| id.clone())
            })?;
            Some(StateOf { id, runtime_namespace: runtime_namespace.clone() })
        });
        self.folders = folders;
        found
    }

    fn find_folders(&mut self, reader: &Reader, roots: &Roots) {
        let (folders, mut doubts) = (roots.folders(), Vec::new());
        let Self { folders: all, found_in, .. } = self;
        *all = vec![(folders.runc.clone(), None), (folders.crun.clone(), None)];
        found_in.clear();
        let mut read =
            |folder: &Folder, doubts: &mut Vec<String>, is_wanted: &dyn Fn(FolderName<'_>) -> bool| {
                // Before it is read: what changes meanwhile is then seen by its time.
                let path = folder.path();
                let state = State::of(&path);
                found_in.push((path, state));
                reader.folders(folder, doubts, is_wanted)
            };
        for namespace in read(&folders.containerd_runc, &mut doubts, &|_| true) {
            all.push((folders.containerd_runc.join(&namespace), Some(namespace)));
        }
        for runtime in read(&folders.docker_run, &mut doubts, &|name| name.as_str().starts_with("runtime-")) {
            let runtime = folders.docker_run.join(runtime);
            for namespace in read(&runtime, &mut doubts, &|_| true) {
                all.push((runtime.join(&namespace), Some(namespace)));
            }
        }
    }

    /// The containers of a folder.
    fn list(&mut self, reader: &Reader, folder: &Folder) -> &HashMap<String, Init> {
        let path = folder.path();
        let state = State::of(&path);
        let known: usize = self.listed.values().map(|listed| listed.containers.len()).sum();
        let listed = self.listed.entry(path).or_insert_with(|| Listed {
            state: State::ChangedLately,
            containers: HashMap::new(),
            is_incomplete: true,
        });
        if state != State::ChangedLately && listed.state == state && !listed.is_incomplete {
            return &listed.containers;
        }
        let names = reader.folders(folder, &mut Vec::new(), |_| true);
        // One of the same id can have come in the meantime: what a changed folder has is read anew where it is not the same.
        listed.containers.retain(|id, _| names.contains(id) && listed.state == state);
        listed.is_incomplete = false;
        for name in names {
            if listed.containers.contains_key(&name) || known + listed.containers.len() >= MOST_KNOWN {
                continue;
            }
            let state = FolderName::new(name.as_bytes()).map(|id| oci::read(reader, folder, id));
            match state {
                Some(Ok(state)) => drop(listed.containers.insert(name, state.init)),
                // runc makes the folder before the file.
                _ => listed.is_incomplete = true,
            }
        }
        listed.state = state;
        &listed.containers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::identity::{BootNs, HostPid};

    fn put(base: &Path, root: &str, id: &str, pid: u32) {
        let folder = base.join(root).join(id);
        fs::create_dir_all(&folder).expect("a folder");
        let state = format!(r#"{{"init_process_pid": {pid}, "init_process_start": 500}}"#);
        fs::write(folder.join("state.json"), state).expect("a file");
    }

    #[test]
    fn a_container_is_found_by_the_process_that_its_state_names() {
        let base = tempfile::tempdir().expect("a temporary directory");
        put(base.path(), "run/runc", "web", 7);
        put(base.path(), "run/containerd/runc/default", "job", 8);
        let roots = Roots::below(base.path());
        let mut known = FirstProcesses::default();
        let mut find = |pid, ticks| {
            let found = known.find(&roots, ProcessKey::new(HostPid(pid), BootNs::from_ticks(ticks)));
            found.map(|found| (found.id, found.runtime_namespace))
        };
        assert_eq!(find(7, 500), Some(("web".to_owned(), None)));
        assert_eq!(find(8, 500), Some(("job".to_owned(), Some("default".to_owned()))));
        assert_eq!(find(7, 501), None, "another process of that PID");
        put(base.path(), "run/runc", "later", 9);
        assert_eq!(find(9, 500), Some(("later".to_owned(), None)));
        fs::remove_dir_all(base.path().join("run/runc/web")).expect("our own folder");
        assert_eq!(find(7, 500), None, "its state is gone");
    }

    /// As if nothing had changed there for a minute.
    fn age(folder: &Path) {
        let then = SystemTime::now() - Duration::from_secs(60);
        fs::File::open(folder).and_then(|file| file.set_modified(then)).expect("our own folder");
    }

    #[test]
    fn folders_that_have_not_changed_are_not_read_again_and_new_ones_are_found() {
        let base = tempfile::tempdir().expect("a temporary directory");
        put(base.path(), "run/containerd/runc/default", "job", 8);
        put(base.path(), "run/docker/runtime-runc/moby", "web", 7);
        let roots = Roots::below(base.path());
        let mut known = FirstProcesses::default();
        let key = |pid| ProcessKey::new(HostPid(pid), BootNs::from_ticks(500));
        let read = ["run/containerd/runc", "run/docker", "run/docker/runtime-runc"]
            .map(|path| base.path().join(path));
        read.iter().for_each(|folder| age(folder));
        assert!(known.find(&roots, key(8)).is_some() && known.find(&roots, key(7)).is_some());
        assert!(known.found_in.iter().all(|(folder, state)| state.is_still(folder)), "{known:?}");
        assert_eq!(known.found_in.iter().map(|(folder, _)| folder.clone()).collect::<Vec<_>>(), read);
        for (root, pid) in [("run/containerd/runc/k8s.io", 9), ("run/docker/runtime-kata/moby", 10)] {
            put(base.path(), root, "new", pid);
            let found = known.find(&roots, key(pid)).map(|found| found.id);
            assert_eq!(found.as_deref(), Some("new"), "{root}");
            read.iter().for_each(|folder| age(folder));
            let _ = known.find(&roots, key(8));
        }
    }

    #[test]
    fn a_state_that_is_written_after_its_folder_is_found() {
        let base = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(base.path().join("run/runc/web")).expect("a folder");
        let roots = Roots::below(base.path());
        let mut known = FirstProcesses::default();
        let key = ProcessKey::new(HostPid(7), BootNs::from_ticks(500));
        assert_eq!(known.find(&roots, key), None);
        put(base.path(), "run/runc", "web", 7);
        assert!(known.find(&roots, key).is_some());
    }
}
