//! From where a process is to the whole of what its runtime keeps on disk about that container.
//!
//! Nothing here is fatal: what cannot be read, or is about another process, becomes a doubt of the container.

mod annotations;
mod api;
mod daemons;
mod first_processes;
mod oci;
mod process;
mod read;
mod watchers;

use std::{collections::HashSet, path::Path};

use super::{
    Roots,
    cgroup::{Candidate, Layer, Place, Pod},
    roots::{Folder, Folders},
};
use crate::{
    event::container::{Container, Runtime, is_long_id},
    event::identity::ProcessKey,
    text::Name,
};
use annotations::Whose;
pub use api::Api;
use daemons::DaemonRecord;
pub(super) use first_processes::{FirstProcesses, StateOf};
use process::Init;
pub(super) use process::{is_there, parent_of};
use read::{FolderName, ReadFailure, Reader};
pub(super) use watchers::nspawn_machine;

/// What was found out of a place.
#[derive(Debug)]
pub(super) struct Found {
    /// None where the process is in no container, and no unit.
    pub(super) container: Option<Container>,
    /// Whether that is all: false while a later read could find more, as a runtime writes its files only
    /// after the first process exists.
    pub(super) settled: bool,
    /// The first process that the files name.
    pub(super) witness: Option<Witness>,
}

/// The first process of a container: while it lives, what was found is true of the others too.
#[derive(Debug)]
pub(super) struct Witness {
    init: Init,
    /// The container's own cgroup.
    path: Vec<u8>,
}

impl Witness {
    /// Whether what was found is about the container of this process too.
    pub(super) fn speaks_for(&self, process: ProcessKey, roots: &Roots) -> bool {
        self.init.doubt(process, &self.path, &roots.proc).is_none()
    }
}

/// Most doubts of a container that are kept, and the longest, bytes: who wrote the files chooses how many there are.
const MOST_DOUBTS: usize = 16;
const LONGEST_DOUBT: usize = 512;

/// The container that `process` is in, from its place and the files, and then the daemons.
pub(super) fn find(roots: &Roots, api: Option<&Api>, process: ProcessKey, place: &Place) -> Found {
    let reader = Reader::new();
    let count = place.containers.len();
    let mut found = match count {
        0 => find_candidate(&reader, roots, process, &place.candidates, place),
        _ => find_record(&reader, roots, api, process, place, count),
    };
    if found.witness.is_none() && count > 0 {
        // A process that is root in a container may make cgroups there and name them after any other, and move into one.
        let outer = (1..count).rev().map(|count| find_record(&reader, roots, None, process, place, count));
        let outer = outer
            .chain(std::iter::once_with(|| find_candidate(&reader, roots, process, &place.around, place)));
        let is_its_first =
            |found: &Found| found.witness.as_ref().is_some_and(|of| of.init.pid == process.pid);
        let claim = found.container.as_ref().map(Container::label);
        if let Some(outer) = outer.into_iter().find(is_its_first) {
            found = outer;
            let claim = claim.unwrap_or_default();
            let container = found.container.get_or_insert_default();
            container
                .doubts
                .push(format!("its cgroup is named like another one's: {}", claim.for_terminal()));
        }
    }
    if let Some(container) = &mut found.container {
        container.by_cgroup_alone = found.witness.is_none();
        bound(&mut container.doubts);
    }
    found
}

/// The container of this state, whose first process `process` is, though its cgroup does not name it.
pub(super) fn find_by_first_process(
    roots: &Roots,
    process: ProcessKey,
    place: &Place,
    state: StateOf,
) -> Option<Found> {
    let StateOf { id, runtime_namespace } = state;
    // What is in the innermost folder that may be a container's is in this one. Where there is none it has no cgroup of its own,
    // and the state is about the first process alone.
    let path = place.candidates.first().map(|candidate| candidate.path.clone()).unwrap_or_default();
    let parent = runtime_namespace.as_deref().map(Name::from);
    let candidate = Candidate { id: Name::from(&*id), parent, path };
    let mut found = find_candidate(&Reader::new(), roots, process, &[candidate], place);
    found.witness.as_ref()?;
    bound(&mut found.container.as_mut()?.doubts);
    Some(found)
}

/// Each doubt once, and a bounded number of them.
fn bound(doubts: &mut Vec<String>) {
    let mut seen = HashSet::new();
    doubts.retain(|doubt| seen.insert(doubt.clone()));
    let more = doubts.len().saturating_sub(MOST_DOUBTS);
    doubts.truncate(MOST_DOUBTS);
    for doubt in doubts.iter_mut().filter(|doubt| doubt.len() > LONGEST_DOUBT) {
        doubt.truncate(doubt.floor_char_boundary(LONGEST_DOUBT));
        doubt.push('…');
    }
    if more > 0 {
        doubts.push(format!("and {more} more doubts"));
    }
}

/// The innermost of the outermost `count` containers of a place, of which there must be so many.
fn find_record(
    reader: &Reader,
    roots: &Roots,
    api: Option<&Api>,
    process: ProcessKey,
    place: &Place,
    count: usize,
) -> Found {
    let innermost = &place.containers[count - 1];
    let mut container = of_layer(innermost);
    if count == place.containers.len() {
        container.unit = place.unit.clone();
    }
    container.outer = outer(place, count);
    if innermost.runtime == Some(Runtime::Lxc)
        && let Some(name) = watchers::lxc_name(process, &roots.proc, innermost)
    {
        container.name = Some(name);
    }
    if matches!(innermost.runtime, Some(Runtime::Lxc | Runtime::Nspawn)) {
        // Its name is its id, and its files have no more.
        return Found { container: Some(container), settled: true, witness: None };
    }
    let sought = Sought { layer: innermost, process, proc: &roots.proc, reader };
    let Some(id) = FolderName::new(innermost.id.as_bytes()) else {
        container.doubts.push(format!("its id is no file name: {}", innermost.id.for_terminal()));
        return Found { container: Some(container), settled: true, witness: None };
    };
    let own = innermost.user.map(|uid| roots.folders_of(uid));
    let everywhere = own.into_iter().chain([roots.folders()]);
    let mut init = everywhere.into_iter().find_map(|folders| sought.fill(&folders, id, &mut container));
    if container.name.is_none()
        && let Some(api) = api
    {
        init = sought.ask(api, id, init, &mut container).or(init);
    }
    if init.is_none() && container.doubts.is_empty() {
        container.doubts.push(format!("no runtime's files have {}", id.as_str()));
    }
    if container.name.is_none()
        && matches!(container.runtime, None | Some(Runtime::Podman))
        && let Some(claim) = watchers::claim(process, &roots.proc, &innermost.path)
        && claim.runtime == Runtime::Podman
        && claim.id.as_ref() == Some(&innermost.id)
    {
        container
            .doubts
            .push("its name is what conmon was started with: no file of Podman's has it".to_owned());
        container.name = Some(claim.name);
    }
    let witness = init.map(|init| Witness { init, path: innermost.path.clone() });
    Found { container: Some(container), settled: witness.is_some(), witness }
}

/// A folder that is named as a container may be one: if a runtime has a file about it, and about this process.
fn find_candidate(
    reader: &Reader,
    roots: &Roots,
    process: ProcessKey,
    candidates: &[Candidate],
    place: &Place,
) -> Found {
    for candidate in candidates {
        let Some(id) = FolderName::new(candidate.id.as_bytes()) else { continue };
        let layer = Layer {
            runtime: None,
            id: candidate.id.clone(),
            runtime_namespace: candidate.parent.clone(),
            pod: None,
            // Of the folders around containers, the user is theirs.
            user: place.containers.front().map_or(place.user, |outermost| outermost.user),
            path: candidate.path.clone(),
        };
        let mut container = Container { runtime_namespace: None, ..of_layer(&layer) };
        let sought = Sought { layer: &layer, process, proc: &roots.proc, reader };
        if let Some(init) = sought.fill(&roots.folders(), id, &mut container) {
            let witness = Some(Witness { init, path: layer.path });
            return Found { container: Some(container), settled: true, witness };
        }
    }
    let unit = place.unit.as_ref().map(|unit| Container {
        runtime: Some(Runtime::Systemd),
        name: Some(unit.clone()),
        unit: Some(unit.clone()),
        user: place.user,
        ..Container::default()
    });
    Found { container: unit, settled: candidates.is_empty(), witness: None }
}

/// What the path alone has.
fn of_layer(layer: &Layer) -> Container {
    let is_named = matches!(layer.runtime, Some(Runtime::Lxc | Runtime::Nspawn));
    Container {
        runtime: layer.runtime,
        id: Some(layer.id.clone()),
        name: is_named.then(|| layer.id.clone()),
        pod_uid: layer.pod.as_ref().map(|pod| pod.uid.clone()),
        qos: layer.pod.as_ref().and_then(|pod| pod.qos),
        runtime_namespace: layer.runtime_namespace.clone(),
        user: layer.user,
        ..Container::default()
    }
}

/// The containers around the innermost of the outermost `count`, each in the next.
fn outer(place: &Place, count: usize) -> Option<Box<Container>> {
    let around = place.containers.iter().take(count.saturating_sub(1));
    around.fold(None, |outer, layer| {
        Some(Box::new(Container { outer, by_cgroup_alone: true, ..of_layer(layer) }))
    })
}

/// A container that is searched for in the files.
struct Sought<'a> {
    layer: &'a Layer,
    process: ProcessKey,
    proc: &'a Path,
    reader: &'a Reader,
}

/// A folder of an OCI runtime's state, and whose it is.
struct OciRoot {
    folder: Folder,
    /// Who runs containers there, and in which namespace.
    manager: Option<Runtime>,
    namespace: Option<String>,
}

impl Sought<'_> {
    /// Adds the facts of the files; returns the first process of the container, where one of them is about this
    /// process's.
    fn fill(&self, folders: &Folders, id: FolderName<'_>, container: &mut Container) -> Option<Init> {
        let doubts_before = container.doubts.len();
        let Some((root, state)) = self.oci_state(folders, id, &mut container.doubts) else {
            // Where there is such a state but not of this process, or one may not be read, a daemon's file, which
            // has no start, proves nothing.
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
        let whose = Whose { runtime: Some(runtime), in_pod: self.in_pod() };
        annotations::fill(container, &state.annotations, whose);
        // Of the daemon's file, the name is right even before it has written down the PID.
        let record = self.daemon(folders, id, container).filter(|record| {
            let other = record.pid.filter(|&pid| pid != state.init.pid);
            if let Some(pid) = other {
                let (first, daemon) = (state.init.pid, runtime.name());
                container
                    .doubts
                    .push(format!("{daemon} takes PID {pid} for its first process, and not {first}"));
            }
            other.is_none()
        });
        if let Some(record) = record {
            add(container, record.names);
        }
        Some(state.init)
    }

    /// The state of the OCI runtime that runs it.
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
        self.layer.pod.as_ref().is_some_and(Pod::is_kubelets)
    }

    /// Whether the path names this runtime, or names none and has an id such as it gives: those of Docker,
    /// Podman and CRI-O are always made up, and most folders that are named like a container are none.
    fn may_be_of(&self, runtime: Runtime) -> bool {
        match self.layer.runtime {
            Some(named) => named == runtime,
            None => runtime == Runtime::Containerd || is_long_id(self.layer.id.as_bytes()),
        }
    }

    /// Whether the path names this manager, or none; Docker and containerd keep the state in folders of their
    /// own.
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
                let runtime = folders.docker_run.join(runtime);
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

    /// The containerd namespaces to read in a folder: the one that the path of the cgroup names, else all.
    fn namespaces(&self, named: Option<&Name>, folder: &Folder, doubts: &mut Vec<String>) -> Vec<String> {
        match named.map(|name| FolderName::new(name.as_bytes())) {
            Some(Some(named)) => vec![named.as_str().to_owned()],
            Some(None) => Vec::new(),
            None => self.reader.folders(folder, doubts, |_| true),
        }
    }

    /// Where neither runc nor crun has the state, as with Kata or gVisor: the daemon's file, if it names the process.
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

    /// Asks the daemons; gives back the first process, where one names the same as the files, or that of this
    /// process's container.
    fn ask(
        &self,
        api: &Api,
        id: FolderName<'_>,
        known: Option<Init>,
        container: &mut Container,
    ) -> Option<Init> {
        let (runtime, record) =
            api.ask(container.runtime, id.as_str(), self.in_pod(), &mut container.doubts)?;
        let doubt = match (record.init(), known) {
            (None, _) => Some("it does not run".to_owned()),
            (Some(init), Some(known)) if init.pid == known.pid => None,
            (Some(init), Some(known)) => {
                Some(format!("PID {} is its first process, and not {}", init.pid, known.pid))
            }
            (Some(init), None) => init.doubt(self.process, &self.layer.path, self.proc),
        };
        if let Some(doubt) = doubt {
            container.doubts.push(format!("what {} answers about {}: {doubt}", runtime.name(), id.as_str()));
            return None;
        }
        let init = record.init();
        container.runtime = container.runtime.or(Some(runtime));
        add(container, record.names);
        init.filter(|_| known.is_none())
    }

    /// What the daemon of the container's runtime has of it.
    fn daemon(
        &self,
        folders: &Folders,
        id: FolderName<'_>,
        container: &mut Container,
    ) -> Option<DaemonRecord> {
        let doubts = &mut container.doubts;
        match container.runtime? {
            Runtime::Docker => believe(daemons::docker(self.reader, folders, id, self.in_pod()), doubts),
            Runtime::Containerd => {
                let named = container.runtime_namespace.as_ref();
                let namespaces = self.namespaces(named, &folders.containerd_tasks, doubts);
                let (namespace, record) = namespaces.into_iter().find_map(|namespace| {
                    let folder = FolderName::new(namespace.as_bytes())?;
                    let record = daemons::containerd(self.reader, folders, (folder, id), self.in_pod());
                    let record = believe(record, doubts)?;
                    Some((namespace, record))
                })?;
                container.runtime_namespace = Some(Name::from(&*namespace));
                Some(record)
            }
            runtime @ (Runtime::Podman | Runtime::Crio) => {
                let whose = Whose { runtime: Some(runtime), in_pod: self.in_pod() };
                daemons::storage(self.reader, folders, id, whose, doubts)
            }
            _ => None,
        }
    }
}

fn believe(record: Result<DaemonRecord, ReadFailure>, doubts: &mut Vec<String>) -> Option<DaemonRecord> {
    match record {
        Ok(record) => Some(record),
        Err(ReadFailure::Absent(_)) => None,
        Err(error) => {
            doubts.push(error.to_string());
            None
        }
    }
}

/// Adds the names that are not known yet.
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
