//! Containers by the first process that their runtime's state names: for those whose cgroup says nothing of their id, as it is
//! called otherwise (`cgroupsPath`, `ctr run --cgroup`) or they have none of their own.
//!
//! A container's state names its first process once and for all, so that each is read once; a folder is read again only when
//! something has been added to it or taken away.

use std::{collections::HashMap, path::PathBuf, time::SystemTime};

use super::{
    super::{Roots, roots::Folder},
    oci,
    process::Init,
    read::{FolderName, Reader},
};
use crate::event::identity::ProcessKey;

/// Most containers whose first process is remembered.
const MOST_KNOWN: usize = 4_096;

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
    changed: Option<SystemTime>,
    containers: HashMap<String, Init>,
    /// Whether the state of one could not be read yet.
    is_incomplete: bool,
}

/// The first processes of all containers of the machine's OCI runtimes.
#[derive(Debug, Default)]
pub(in super::super) struct FirstProcesses {
    listed: HashMap<PathBuf, Listed>,
}

impl FirstProcesses {
    /// The container whose first process this is, if a state says so.
    pub(in super::super) fn find(&mut self, roots: &Roots, process: ProcessKey) -> Option<StateOf> {
        let reader = Reader::new();
        let (folders, mut doubts) = (roots.folders(), Vec::new());
        let mut all = vec![(folders.runc.clone(), None), (folders.crun.clone(), None)];
        for namespace in reader.folders(&folders.containerd_runc, &mut doubts, |_| true) {
            all.push((folders.containerd_runc.join(&namespace), Some(namespace)));
        }
        let is_runtime = |name: FolderName<'_>| name.as_str().starts_with("runtime-");
        for runtime in reader.folders(&folders.docker_run, &mut doubts, is_runtime) {
            let runtime = folders.docker_run.join(runtime);
            for namespace in reader.folders(&runtime, &mut doubts, |_| true) {
                all.push((runtime.join(&namespace), Some(namespace)));
            }
        }
        all.into_iter().find_map(|(folder, runtime_namespace)| {
            let id = self.list(&reader, &folder).iter().find_map(|(id, init)| {
                let is_it = init.pid == process.pid
                    && init.start_ticks.is_none_or(|ticks| ticks == process.start.ticks());
                is_it.then(|| id.clone())
            })?;
            Some(StateOf { id, runtime_namespace })
        })
    }

    /// The containers of a folder.
    fn list(&mut self, reader: &Reader, folder: &Folder) -> &HashMap<String, Init> {
        let path = folder.path();
        let changed = std::fs::metadata(&path).and_then(|folder| folder.modified()).ok();
        let known: usize = self.listed.values().map(|listed| listed.containers.len()).sum();
        let listed = self.listed.entry(path).or_insert_with(|| Listed {
            changed: None,
            containers: HashMap::new(),
            is_incomplete: true,
        });
        if changed.is_some() && listed.changed == changed && !listed.is_incomplete {
            return &listed.containers;
        }
        let names = reader.folders(folder, &mut Vec::new(), |_| true);
        // One of the same id can have come in the meantime: what a changed folder has is read anew where it is not the same.
        listed.containers.retain(|id, _| names.contains(id) && listed.changed == changed);
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
        listed.changed = changed;
        &listed.containers
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

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
