//! Finds containers by the first process that their runtime's state names. Needed if the cgroup does not contain the
//! id, because it has another name (`cgroupsPath`, `ctr run --cgroup`) or the container has no cgroup of its own.
//!
//! The first process of a container never changes, so each state is read only once. A directory is read again only
//! after entries were added or removed.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use super::{
    super::{Roots, roots::Folder},
    oci,
    process::Init,
    read::{FolderName, Reader, modified},
};
use crate::{
    event::identity::{HostPid, ProcessKey},
    procfs::Procfs,
};

/// Maximum number of users whose run directories are read.
const MAX_USERS: usize = 64;
/// Maximum number of containers whose first process is remembered.
const MAX_KNOWN: usize = 4_096;
/// A directory that changes twice within this time may get the same timestamp twice: file systems count in ticks of at
/// most 10 ms.
const TICK: Duration = Duration::from_millis(20);

/// Identifies a container's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct StateId {
    pub(super) id: String,
    /// containerd's namespace; the state is in that namespace's directory.
    pub(super) runtime_namespace: Option<String>,
    /// The user whose run directory has the state, for a rootless runtime.
    pub(super) user: Option<u32>,
}

/// A directory with one subdirectory for each container.
#[derive(Clone, Debug)]
struct Containers {
    folder: Folder,
    /// containerd's namespace for them.
    runtime_namespace: Option<String>,
    /// The user who owns them.
    user: Option<u32>,
}

/// The containers of a directory, as last read.
#[derive(Debug)]
struct Listed {
    state: State,
    containers: HashMap<String, Init>,
    /// Their ids by the PID of the first process, sorted.
    by_pid: HashMap<HostPid, Vec<String>>,
    /// Whether the state of some container could not be read yet.
    is_incomplete: bool,
}

/// First processes of all containers of the machine's OCI runtimes.
#[derive(Debug, Default)]
pub(in super::super) struct FirstProcesses {
    listed: HashMap<PathBuf, Listed>,
    folders: Vec<Containers>,
    /// Directories that were read to find `folders`, with the time of their last change then.
    found_in: Vec<(Folder, State)>,
}

/// When a directory was last changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Changed(SystemTime),
    /// So recently that another change may get the same timestamp.
    ChangedLately,
}

impl State {
    fn of(folder: &Folder) -> Self {
        // A user may mount anything over the own directories.
        let changed = if folder.is_the_machines() {
            fs::metadata(folder.path()).and_then(|folder| folder.modified()).ok()
        } else {
            modified(folder)
        };
        match changed {
            Some(changed) if changed.elapsed().is_ok_and(|age| age > TICK) => Self::Changed(changed),
            Some(_) => Self::ChangedLately,
            None => Self::Absent,
        }
    }

    /// Whether the directory still has the content that was read.
    fn is_still(self, folder: &Folder) -> bool {
        self != Self::ChangedLately && Self::of(folder) == self
    }
}

impl FirstProcesses {
    /// Returns the container whose state names this process as its first, if any. [`Self::update`] must be called
    /// before.
    pub(in super::super) fn find(&self, roots: &Roots, process: ProcessKey) -> Option<StateId> {
        self.folders.iter().find_map(|Containers { folder, runtime_namespace, user }| {
            let listed = self.listed.get(&folder.path())?;
            let is_it = |id: &&String| {
                let init = listed.containers.get(*id);
                init.is_some_and(|init| init.start_ticks.is_none_or(|ticks| ticks == process.start.ticks()))
            };
            let id = listed.by_pid.get(&process.pid)?.iter().find(is_it)?;
            // A user's file may name any process. The user's runtime only runs processes in user namespaces of that
            // user.
            let owner = || Procfs::at(&roots.proc).owner_of_user_namespace(process.pid);
            if user.is_some() && owner() != *user {
                return None;
            }
            Some(StateId { id: id.clone(), runtime_namespace: runtime_namespace.clone(), user: *user })
        })
    }

    /// Reads what has changed since the last call.
    pub(in super::super) fn update(&mut self, roots: &Roots) {
        if self.found_in.is_empty() || !self.found_in.iter().all(|(folder, state)| state.is_still(folder)) {
            self.find_folders(&Reader::new(), roots);
        }
        let folders = std::mem::take(&mut self.folders);
        let reader = Reader::new();
        for containers in &folders {
            // One user may not use up what another one needs.
            let own = containers.user.map(|_| Reader::new());
            self.list(own.as_ref().unwrap_or(&reader), &containers.folder);
        }
        self.folders = folders;
    }

    fn find_folders(&mut self, reader: &Reader, roots: &Roots) {
        let (folders, mut doubts) = (roots.folders(), Vec::new());
        let Self { folders: all, found_in, .. } = self;
        let of = |folder, runtime_namespace, user| Containers { folder, runtime_namespace, user };
        *all = vec![of(folders.runc.clone(), None, None), of(folders.crun.clone(), None, None)];
        found_in.clear();
        let mut read =
            |folder: &Folder, doubts: &mut Vec<String>, is_wanted: &dyn Fn(FolderName<'_>) -> bool| {
                // Take the time before reading, so that a change during the read is noticed later.
                found_in.push((folder.clone(), State::of(folder)));
                reader.folders(folder, doubts, is_wanted)
            };
        for namespace in read(&folders.containerd_runc, &mut doubts, &|_| true) {
            all.push(of(folders.containerd_runc.join(&namespace), Some(namespace), None));
        }
        for runtime in read(&folders.docker_run, &mut doubts, &|name| name.as_str().starts_with("runtime-")) {
            let runtime = folders.docker_run.mountable(&runtime);
            for namespace in read(&runtime, &mut doubts, &|_| true) {
                all.push(of(runtime.join(&namespace), Some(namespace), None));
            }
        }
        // The user's own directory appears with the first session. A runtime makes its directories in it later.
        let users = read(&roots.user_run_folder(), &mut doubts, &|_| true);
        for uid in users.iter().filter_map(|name| name.parse().ok()).take(MAX_USERS) {
            let own = roots.folders_of(uid);
            all.extend([own.runc, own.crun].map(|folder| of(folder, None, Some(uid))));
        }
    }

    /// Reads the containers of a directory.
    fn list(&mut self, reader: &Reader, folder: &Folder) {
        let path = folder.path();
        let state = State::of(folder);
        if state == State::Absent {
            self.listed.remove(&path);
            return;
        }
        let known: usize = self.listed.values().map(|listed| listed.containers.len()).sum();
        let listed = self.listed.entry(path).or_insert_with(|| Listed {
            state: State::ChangedLately,
            containers: HashMap::new(),
            by_pid: HashMap::new(),
            is_incomplete: true,
        });
        if state != State::ChangedLately && listed.state == state && !listed.is_incomplete {
            return;
        }
        let names = reader.folders(folder, &mut Vec::new(), |_| true);
        // Another container may have the same id now. So if the directory has changed, all states are read again.
        listed.containers.retain(|id, _| names.contains(id) && listed.state == state);
        listed.is_incomplete = false;
        for name in names {
            if listed.containers.contains_key(&name) || known + listed.containers.len() >= MAX_KNOWN {
                continue;
            }
            let state = FolderName::new(name.as_bytes()).map(|id| oci::read(reader, folder, id));
            match state {
                Some(Ok(state)) => drop(listed.containers.insert(name, state.init)),
                // runc makes the directory before the file.
                _ => listed.is_incomplete = true,
            }
        }
        listed.state = state;
        let mut ids: Vec<(&String, &Init)> = listed.containers.iter().collect();
        ids.sort_unstable_by_key(|(id, _)| *id);
        listed.by_pid.clear();
        for (id, init) in ids {
            listed.by_pid.entry(init.pid).or_default().push(id.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::event::identity::BootNs;

    fn put(base: &Path, root: &str, id: &str, pid: u32) {
        let folder = base.join(root).join(id);
        fs::create_dir_all(&folder).expect("create a directory");
        let state = format!(r#"{{"init_process_pid": {pid}, "init_process_start": 500}}"#);
        fs::write(folder.join("state.json"), state).expect("write a file");
    }

    #[test]
    fn a_container_is_found_by_the_process_that_its_state_names() {
        let base = tempfile::tempdir().expect("a temporary directory");
        put(base.path(), "run/runc", "web", 7);
        put(base.path(), "run/containerd/runc/default", "job", 8);
        let roots = Roots::below(base.path());
        let mut known = FirstProcesses::default();
        let mut find = |pid, ticks| {
            known.update(&roots);
            let found = known.find(&roots, ProcessKey::new(HostPid(pid), BootNs::from_ticks(ticks)));
            found.map(|found| (found.id, found.runtime_namespace))
        };
        assert_eq!(find(7, 500), Some(("web".to_owned(), None)));
        assert_eq!(find(8, 500), Some(("job".to_owned(), Some("default".to_owned()))));
        assert_eq!(find(7, 501), None, "another process with that PID");
        put(base.path(), "run/runc", "later", 9);
        assert_eq!(find(9, 500), Some(("later".to_owned(), None)));
        fs::remove_dir_all(base.path().join("run/runc/web")).expect("our own folder");
        assert_eq!(find(7, 500), None, "its state is gone");
    }

    #[test]
    fn a_users_state_is_only_believed_for_processes_of_that_user() {
        let base = tempfile::tempdir().expect("a temporary directory");
        let own = std::process::id();
        put(base.path(), "run/user/4294967294/runc", "web", own);
        let key = ProcessKey::new(HostPid(own), BootNs::from_ticks(500));
        let roots = Roots { proc: PathBuf::from("/proc"), ..Roots::below(base.path()) };
        let mut known = FirstProcesses::default();
        known.update(&roots);
        assert_eq!(
            known.listed.values().map(|listed| listed.containers.len()).sum::<usize>(),
            1,
            "{known:?}"
        );
        assert_eq!(known.find(&roots, key), None, "its user namespace belongs to another user");
    }

    /// Makes the directory look unchanged for a minute.
    fn age(folder: &Path) {
        let then = SystemTime::now() - Duration::from_secs(60);
        fs::File::open(folder).and_then(|file| file.set_modified(then)).expect("our own folder");
    }

    #[test]
    fn unchanged_directories_are_not_read_again_and_new_ones_are_found() {
        let base = tempfile::tempdir().expect("a temporary directory");
        put(base.path(), "run/containerd/runc/default", "job", 8);
        put(base.path(), "run/docker/runtime-runc/moby", "web", 7);
        put(base.path(), "run/user/1000/crun", "job", 9);
        let roots = Roots::below(base.path());
        let mut known = FirstProcesses::default();
        let key = |pid| ProcessKey::new(HostPid(pid), BootNs::from_ticks(500));
        let read = ["run/containerd/runc", "run/docker", "run/docker/runtime-runc", "run/user"]
            .map(|path| base.path().join(path));
        read.iter().for_each(|folder| age(folder));
        known.update(&roots);
        assert!(known.find(&roots, key(8)).is_some() && known.find(&roots, key(7)).is_some());
        known.update(&roots);
        assert!(known.found_in.iter().all(|(folder, state)| state.is_still(folder)), "{known:?}");
        let found_in: Vec<PathBuf> = known.found_in.iter().map(|(folder, _)| folder.path()).collect();
        assert_eq!(found_in, read);
        for (root, pid) in [("run/containerd/runc/k8s.io", 9), ("run/docker/runtime-kata/moby", 10)] {
            put(base.path(), root, "new", pid);
            known.update(&roots);
            let found = known.find(&roots, key(pid)).map(|found| found.id);
            assert_eq!(found.as_deref(), Some("new"), "{root}");
            read.iter().for_each(|folder| age(folder));
            known.update(&roots);
        }
    }

    #[test]
    fn a_state_written_after_its_directory_is_found() {
        let base = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(base.path().join("run/runc/web")).expect("create a directory");
        let roots = Roots::below(base.path());
        let mut known = FirstProcesses::default();
        let key = ProcessKey::new(HostPid(7), BootNs::from_ticks(500));
        known.update(&roots);
        assert_eq!(known.find(&roots, key), None);
        put(base.path(), "run/runc", "web", 7);
        known.update(&roots);
        assert!(known.find(&roots, key).is_some());
    }
}
