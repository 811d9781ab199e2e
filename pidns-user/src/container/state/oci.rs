//! Reads the state of the OCI runtimes: the first process, and the annotations of the configuration.

use std::path::Path;

use serde::Deserialize;

use super::{
    super::roots::Folder,
    annotations::Annotations,
    process::Init,
    read::{FolderName, ReadFailure, Reader},
};
use crate::event::container::Runtime;
use crate::event::identity::HostPid;

/// The state of a container, as runc or crun wrote it.
#[derive(Debug)]
pub(super) struct StateFile {
    /// runc or crun.
    pub(super) runtime: Runtime,
    pub(super) init: Init,
    pub(super) annotations: Annotations,
}

/// runc's state.json: BaseState, libcontainer/container.go.
#[derive(Deserialize)]
struct Runc {
    init_process_pid: HostPid,
    init_process_start: u64,
    #[serde(default)]
    config: RuncConfig,
}

#[derive(Default, Deserialize)]
struct RuncConfig {
    /// The annotations as `key=value`, and the path of the bundle (libcontainer/specconv/spec_linux.go).
    #[serde(default)]
    labels: Option<Vec<String>>,
}

/// crun's status: libcrun_write_container_status, src/libcrun/status.c.
#[derive(Deserialize)]
struct Crun {
    pid: HostPid,
    /// Absent in the files of early versions.
    #[serde(rename = "process-start-time", default)]
    start: Option<u64>,
}

/// An OCI configuration: config.json of the runtime-spec.
#[derive(Deserialize)]
pub(super) struct Config {
    #[serde(default)]
    pub(super) annotations: Option<Annotations>,
}

/// Reads the state that runc or crun keeps about a container below this root: a daemon may use either.
pub(super) fn read(reader: &Reader, root: &Folder, id: FolderName<'_>) -> Result<StateFile, ReadFailure> {
    reader.enter()?;
    match runc(reader, root, id) {
        Err(ReadFailure::Absent(_)) => crun(reader, root, id),
        read => read,
    }
}

/// Reads `ID/state.json`.
fn runc(reader: &Reader, root: &Folder, id: FolderName<'_>) -> Result<StateFile, ReadFailure> {
    let state: Runc = reader.json(root, &Path::new(id.as_str()).join("state.json"))?;
    let labels = state.config.labels.unwrap_or_default();
    let pair = |label: String| label.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    Ok(StateFile {
        runtime: Runtime::Runc,
        init: Init { pid: state.init_process_pid, start_ticks: Some(state.init_process_start) },
        annotations: labels.into_iter().filter_map(pair).collect(),
    })
}

/// Reads `ID/status`, and the configuration that crun keeps next to it (libcrun_copy_config_file,
/// src/libcrun/container.c).
fn crun(reader: &Reader, root: &Folder, id: FolderName<'_>) -> Result<StateFile, ReadFailure> {
    let folder = Path::new(id.as_str());
    let status: Crun = reader.json(root, &folder.join("status"))?;
    let config = match reader.json::<Config>(root, &folder.join("config.json")) {
        Ok(config) => config,
        Err(ReadFailure::Absent(_)) => Config { annotations: None },
        Err(error) => return Err(error),
    };
    Ok(StateFile {
        runtime: Runtime::Crun,
        // crun itself uses 0 for an unknown start.
        init: Init { pid: status.pid, start_ticks: status.start.filter(|&ticks| ticks != 0) },
        annotations: config.annotations.unwrap_or_default(),
    })
}
