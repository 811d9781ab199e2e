//! Looks a container up: in the state of the OCI runtimes, in the daemons' files, and by asking the daemons.

use std::path::Path;

use super::{
    super::{
        cgroup::{Layer, Pod},
        roots::{Folder, Folders},
    },
    annotations::{self, Managers},
    api::Api,
    daemons::{self, DaemonRecord},
    oci,
    process::Init,
    read::{FolderName, ReadFailure, Reader},
};
use crate::{
    event::container::{Container, Runtime, is_long_id},
    event::identity::ProcessKey,
    text::Name,
};

/// A container to look up in the files.
pub(super) struct FileLookup<'a> {
    pub(super) layer: &'a Layer,
    pub(super) process: ProcessKey,
    pub(super) proc: &'a Path,
    pub(super) reader: &'a Reader,
}

/// Directory of an OCI runtime's state, with its owner.
struct OciRoot {
    folder: Folder,
    /// The program that runs containers there, and its namespace.
    manager: Option<Runtime>,
    namespace: Option<String>,
}

impl FileLookup<'_> {
    /// Adds the facts of the files. Returns the first process of the container if one of the files is about the
    /// container of this process.
    pub(super) fn fill(
        &self,
        folders: &Folders,
        id: FolderName<'_>,
        container: &mut Container,
    ) -> Option<Init> {
        let doubts_before = container.doubts.len();
        let Some((root, state)) = self.oci_state(folders, id, &mut container.doubts) else {
            // If there is a state, but about another process or unreadable, a daemon's file proves nothing: it has no
            // start time.
            let has_state = container.doubts.len() > doubts_before;
            return if has_state { None } else { self.fill_without_oci(folders, id, container) };
        };
        let manager = root.manager.or_else(|| annotations::manager(&state.annotations));
        let runtime = manager.or(container.runtime).unwrap_or(state.runtime);
        container.runtime = Some(runtime);
        if runtime == Runtime::Containerd {
            container.runtime_namespace =
                root.namespace.as_deref().map(Name::from).or(container.runtime_namespace.take());
        }
        let managers = Managers { runtime: Some(runtime), in_pod: self.in_pod() };
        annotations::fill(container, &state.annotations, managers);
        // The name in the daemon's file is right even before the daemon has written the PID.
        let record = self.daemon(folders, id, container).filter(|record| {
            let other = record.pid.filter(|&pid| pid != state.init.pid);
            if let Some(pid) = other {
                let (first, daemon) = (state.init.pid, runtime.name());
                container
                    .doubts
                    .push(format!("{daemon} says that its first process is PID {pid}, not {first}"));
            }
            other.is_none()
        });
        if let Some(record) = record {
            add(container, record.names);
        }
        Some(state.init)
    }

    /// Returns the state of the OCI runtime that runs the container.
    fn oci_state(
        &self,
        folders: &Folders,
        id: FolderName<'_>,
        doubts: &mut Vec<String>,
    ) -> Option<(OciRoot, oci::StateFile)> {
        for root in self.oci_roots(folders, doubts) {
            let state = match oci::read(self.reader, &root.folder, id) {
                Ok(state) => state,
                Err(ReadFailure::Absent(_)) => continue,
                Err(error @ ReadFailure::Spent) => {
                    doubts.push(error.to_string());
                    break;
                }
                Err(error) => {
                    doubts.push(error.to_string());
                    continue;
                }
            };
            let manager = root.manager.or_else(|| annotations::manager(&state.annotations));
            if !self.may_be_run_by(manager) {
                continue;
            }
            match state.init.doubt(self.process, &self.layer.path, self.proc) {
                None => return Some((root, state)),
                Some(doubt) => {
                    doubts.push(format!("{}: {doubt}", root.folder.join(id.as_str()).path().display()))
                }
            }
        }
        None
    }

    /// Whether the kubelet made the cgroup around it.
    fn in_pod(&self) -> bool {
        self.layer.pod.as_ref().is_some_and(Pod::is_kubernetes)
    }

    /// Whether the path names this runtime. If it names none, whether the id can be one of this runtime: Docker, Podman
    /// and CRI-O generate all their ids, and most directories with a name like a container's belong to none.
    fn may_be_of(&self, runtime: Runtime) -> bool {
        match self.layer.runtime {
            Some(named) => named == runtime,
            None => runtime == Runtime::Containerd || is_long_id(self.layer.id.as_bytes()),
        }
    }

    /// Whether the path names this manager or none. Docker and containerd keep the state in their own directories.
    fn may_be_run_by(&self, manager: Option<Runtime>) -> bool {
        match (self.layer.runtime, manager) {
            (None, _) => true,
            (Some(named), Some(manager)) => named == manager,
            (Some(named), None) => !matches!(named, Runtime::Docker | Runtime::Containerd),
        }
    }

    fn oci_roots(&self, folders: &Folders, doubts: &mut Vec<String>) -> Vec<OciRoot> {
        let mut found = Vec::new();
        let named = self.layer.runtime_namespace.as_ref();
        let is = |runtime| self.may_be_of(runtime);
        if is(Runtime::Docker) {
            // daemon/runtime_unix.go
            let is_runtime = |name: FolderName<'_>| name.as_str().starts_with("runtime-");
            for runtime in self.reader.folders(&folders.docker_run, doubts, is_runtime) {
                let runtime = folders.docker_run.mountable(&runtime);
                for namespace in self.namespaces(named, &runtime, doubts) {
                    let folder = runtime.join(namespace);
                    found.push(OciRoot { folder, manager: Some(Runtime::Docker), namespace: None });
                }
            }
        }
        if is(Runtime::Containerd) || is(Runtime::Docker) {
            for namespace in self.namespaces(named, &folders.containerd_runc, doubts) {
                // The namespace that dockerd uses unless configured otherwise.
                let manager = if namespace == "moby" { Runtime::Docker } else { Runtime::Containerd };
                let folder = folders.containerd_runc.join(&namespace);
                found.push(OciRoot { folder, manager: Some(manager), namespace: Some(namespace) });
            }
        }
        for folder in [&folders.runc, &folders.crun] {
            found.push(OciRoot { folder: folder.clone(), manager: None, namespace: None });
        }
        found
    }

    /// The containerd namespaces to read in a directory: the one that the path of the cgroup names, or all.
    fn namespaces(&self, named: Option<&Name>, folder: &Folder, doubts: &mut Vec<String>) -> Vec<String> {
        match named.map(|name| FolderName::new(name.as_bytes())) {
            Some(Some(named)) => vec![named.as_str().to_owned()],
            Some(None) => Vec::new(),
            None => self.reader.folders(folder, doubts, |_| true),
        }
    }

    /// Uses the daemon's file, if it names the process. For containers without a state of runc or crun, as with Kata or
    /// gVisor.
    fn fill_without_oci(
        &self,
        folders: &Folders,
        id: FolderName<'_>,
        container: &mut Container,
    ) -> Option<Init> {
        let named = container.runtime;
        for runtime in [Runtime::Docker, Runtime::Containerd, Runtime::Podman] {
            let is_crio = named == Some(Runtime::Crio) && runtime == Runtime::Podman;
            if !is_crio && !self.may_be_of(runtime) {
                continue;
            }
            let mut claim = Container { runtime: Some(runtime), ..container.clone() };
            let record = self.daemon(folders, id, &mut claim);
            container.doubts = claim.doubts;
            let Some(record) = record else { continue };
            let init = record.init();
            let doubt = match init {
                Some(init) => init.doubt(self.process, &self.layer.path, self.proc),
                None => Some("it names no process".to_owned()),
            };
            if let Some(doubt) = doubt {
                container.doubts.push(format!(
                    "{}'s file about {}: {doubt}",
                    named.unwrap_or(runtime).name(),
                    id.as_str()
                ));
                continue;
            }
            container.runtime = named.or(Some(runtime));
            container.runtime_namespace = claim.runtime_namespace;
            add(container, record.names);
            return init;
        }
        None
    }

    /// Queries the daemons. Returns the first process if it is the same as in the files or, without files, if it is the
    /// one of this process's container.
    pub(super) fn ask(
        &self,
        api: &Api,
        id: FolderName<'_>,
        known: Option<Init>,
        container: &mut Container,
    ) -> Option<Init> {
        let (runtime, record) =
            api.ask(container.runtime, id.as_str(), self.in_pod(), &mut container.doubts)?;
        let doubt = match (record.init(), known) {
            (None, _) => Some("it is not running".to_owned()),
            (Some(init), Some(known)) if init.pid == known.pid => None,
            (Some(init), Some(known)) => {
                Some(format!("its first process is PID {}, not {}", init.pid, known.pid))
            }
            (Some(init), None) => init.doubt(self.process, &self.layer.path, self.proc),
        };
        if let Some(doubt) = doubt {
            container.doubts.push(format!("the answer of {} about {}: {doubt}", runtime.name(), id.as_str()));
            return None;
        }
        let init = record.init();
        container.runtime = container.runtime.or(Some(runtime));
        add(container, record.names);
        init.filter(|_| known.is_none())
    }

    /// Returns the record of the daemon that belongs to the container's runtime.
    fn daemon(
        &self,
        folders: &Folders,
        id: FolderName<'_>,
        container: &mut Container,
    ) -> Option<DaemonRecord> {
        let doubts = &mut container.doubts;
        match container.runtime? {
            Runtime::Docker => ok_or_doubt(daemons::docker(self.reader, folders, id, self.in_pod()), doubts),
            Runtime::Containerd => {
                let named = container.runtime_namespace.as_ref();
                let namespaces = self.namespaces(named, &folders.containerd_tasks, doubts);
                let (namespace, record) = namespaces.into_iter().find_map(|namespace| {
                    let folder = FolderName::new(namespace.as_bytes())?;
                    let record = daemons::containerd(self.reader, folders, (folder, id), self.in_pod());
                    let record = ok_or_doubt(record, doubts)?;
                    Some((namespace, record))
                })?;
                container.runtime_namespace = Some(Name::from(&*namespace));
                Some(record)
            }
            runtime @ (Runtime::Podman | Runtime::Crio) => {
                let managers = Managers { runtime: Some(runtime), in_pod: self.in_pod() };
                daemons::storage(self.reader, folders, id, managers, doubts)
            }
            _ => None,
        }
    }
}

fn ok_or_doubt(record: Result<DaemonRecord, ReadFailure>, doubts: &mut Vec<String>) -> Option<DaemonRecord> {
    match record {
        Ok(record) => Some(record),
        Err(ReadFailure::Absent(_)) => None,
        Err(error) => {
            doubts.push(error.to_string());
            None
        }
    }
}

/// Adds names that are still unknown.
fn add(container: &mut Container, names: Container) {
    let Container { name, image, pod, pod_namespace, pod_uid, runtime_namespace, role, .. } = names;
    container.role = container.role.or(role);
    let facts = [
        (&mut container.name, name),
        (&mut container.image, image),
        (&mut container.pod, pod),
        (&mut container.pod_namespace, pod_namespace),
        (&mut container.pod_uid, pod_uid),
        (&mut container.runtime_namespace, runtime_namespace),
    ];
    for (fact, found) in facts {
        if fact.is_none() {
            *fact = found;
        }
    }
}
