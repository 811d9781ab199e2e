//! Reads what Docker, containerd, Podman and CRI-O keep about a container: names that OCI runtimes do not know.

use std::path::Path;

use serde::Deserialize;

use super::{
    super::roots::Folders,
    annotations::{self, Annotations, Managers, name},
    oci::Config,
    process::Init,
    read::{FolderName, ReadFailure, Reader},
};
use crate::event::container::{Container, Runtime};
use crate::event::identity::HostPid;

/// The facts of a file, and the process that they are about.
#[derive(Debug, Default)]
pub(super) struct DaemonRecord {
    /// Its first process, if the files name it.
    pub(super) pid: Option<HostPid>,
    pub(super) names: Container,
}

impl DaemonRecord {
    pub(super) fn init(&self) -> Option<Init> {
        self.pid.map(|pid| Init { pid, start_ticks: None })
    }
}

/// Docker's config.v2.json: Container, daemon/container/container.go.
#[derive(Deserialize)]
pub(super) struct Docker {
    #[serde(rename = "Name", default)]
    name: String,
    #[serde(rename = "State", default)]
    state: DockerState,
    #[serde(rename = "Config", default)]
    config: DockerConfig,
}

#[derive(Default, Deserialize)]
struct DockerState {
    /// 0 while it does not run.
    #[serde(rename = "Pid", default)]
    pid: u32,
}

#[derive(Default, Deserialize)]
struct DockerConfig {
    #[serde(rename = "Image", default)]
    image: String,
    #[serde(rename = "Labels", default)]
    labels: Option<Annotations>,
}

/// Reads Docker's file about a container.
pub(super) fn docker(
    reader: &Reader,
    folders: &Folders,
    id: FolderName<'_>,
    in_pod: bool,
) -> Result<DaemonRecord, ReadFailure> {
    let file = Path::new("containers").join(id.as_str()).join("config.v2.json");
    Ok(of_docker(reader.json(&folders.docker_data, &file)?, in_pod))
}

/// Converts the daemon's answer, which has the same form (docs.docker.com, Engine API, ContainerInspect).
pub(super) fn of_docker(docker: Docker, in_pod: bool) -> DaemonRecord {
    let mut names = Container::default();
    let managers = Managers { runtime: Some(Runtime::Docker), in_pod };
    annotations::fill(&mut names, &docker.config.labels.unwrap_or_default(), managers);
    names.name = names.name.or_else(|| name(docker.name.strip_prefix('/').unwrap_or(&docker.name)));
    names.image = names.image.or_else(|| name(&docker.config.image));
    DaemonRecord { pid: HostPid::known(docker.state.pid), names }
}

/// Reads containerd's bundle of a container: its configuration, and the PID that the shim wrote
/// (cmd/containerd-shim-runc-v2/process/utils.go).
pub(super) fn containerd(
    reader: &Reader,
    folders: &Folders,
    (namespace, id): (FolderName<'_>, FolderName<'_>),
    in_pod: bool,
) -> Result<DaemonRecord, ReadFailure> {
    let bundle = Path::new(namespace.as_str()).join(id.as_str());
    let config: Config = reader.json(&folders.containerd_tasks, &bundle.join("config.json"))?;
    let mut names = Container::default();
    let managers = Managers { runtime: Some(Runtime::Containerd), in_pod };
    annotations::fill(&mut names, &config.annotations.unwrap_or_default(), managers);
    Ok(DaemonRecord { pid: reader.pid(&folders.containerd_tasks, &bundle.join("init.pid")).ok(), names })
}

/// An entry of containers.json: Container, containers.go of containers/storage.
#[derive(Deserialize)]
struct Stored {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    /// JSON inside a string.
    #[serde(default)]
    metadata: String,
}

/// The content of that string for Podman and CRI-O: RuntimeContainerMetadata, libpod/storage.go and
/// internal/storage/runtime.go.
#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(rename = "image-name", default)]
    image_name: String,
    /// Only CRI-O's: the container's name in its pod, without the pod's name.
    #[serde(rename = "metadata-name", default)]
    metadata_name: String,
}

/// Reads what Podman and CRI-O keep through containers/storage: a list with the names of all containers, and the
/// configuration of each. Adds unreadable files to `doubts`.
pub(super) fn storage(
    reader: &Reader,
    folders: &Folders,
    id: FolderName<'_>,
    managers: Managers,
    doubts: &mut Vec<String>,
) -> Option<DaemonRecord> {
    let mut record: Option<DaemonRecord> = None;
    for root in &folders.storage {
        for driver in reader.folders(root, doubts, |name| name.as_str().ends_with("-containers")) {
            if let Err(error) = reader.enter() {
                doubts.push(error.to_string());
                return record;
            }
            let driver = root.join(driver);
            let userdata = Path::new(id.as_str()).join("userdata");
            match reader.json::<Config>(&driver, &userdata.join("config.json")) {
                Ok(config) => {
                    let record = record.get_or_insert_default();
                    annotations::fill(&mut record.names, &config.annotations.unwrap_or_default(), managers);
                }
                Err(ReadFailure::Absent(_)) => {}
                Err(error) => doubts.push(error.to_string()),
            }
            if let Ok(pid) = reader.pid(&driver, &userdata.join("pidfile")) {
                record.get_or_insert_default().pid = Some(pid);
            }
            for list in ["volatile-containers.json", "containers.json"] {
                match reader.json::<Vec<Stored>>(&driver, Path::new(list)) {
                    Ok(list) => {
                        if let Some(stored) = list.into_iter().find(|stored| stored.id == id.as_str()) {
                            add_stored(&mut record.get_or_insert_default().names, &stored);
                        }
                    }
                    Err(ReadFailure::Absent(_)) => {}
                    Err(error) => doubts.push(error.to_string()),
                }
            }
        }
    }
    record
}

fn add_stored(names: &mut Container, stored: &Stored) {
    let metadata: Metadata = serde_json::from_str(&stored.metadata).unwrap_or_default();
    let first = stored.names.iter().flatten().find_map(|text| name(text));
    names.name = names.name.take().or_else(|| name(&metadata.metadata_name)).or(first);
    names.image = names.image.take().or_else(|| name(&metadata.image_name));
}
