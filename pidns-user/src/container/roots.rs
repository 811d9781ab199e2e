//! Where the runtimes keep their state.

use std::path::{Path, PathBuf};

/// The folders that are looked into. Each is where its owner puts it by default; a daemon that was told
/// another is found once its field here says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// The proc file system.
    pub proc: PathBuf,
    /// runc's own (`--root`): `ID/state.json`.
    pub runc: PathBuf,
    /// crun's own (`--root`): `ID/status`.
    pub crun: PathBuf,
    /// runc's where containerd's shim runs it: `NAMESPACE/ID/state.json`.
    pub containerd_runc: PathBuf,
    /// containerd's tasks, below its `state`: `NAMESPACE/ID/config.json`.
    pub containerd_tasks: PathBuf,
    /// dockerd's `--exec-root`: `runtime-RUNTIME/NAMESPACE/ID/state.json`.
    pub docker_run: PathBuf,
    /// dockerd's `--data-root`: `containers/ID/config.v2.json`.
    pub docker_data: PathBuf,
    /// The run root of Podman and CRI-O (`--runroot`): `DRIVER-containers/ID/userdata`.
    pub storage_run: PathBuf,
    /// Their graph root (`--root`): `DRIVER-containers/containers.json`.
    pub storage_data: PathBuf,
    /// dockerd's socket, which is asked only where the user wants it.
    pub docker_socket: PathBuf,
    /// Podman's socket, likewise.
    pub podman_socket: PathBuf,
    /// Users' own run folders, each by its user id: those of rootless runtimes.
    pub user_run: PathBuf,
}

impl Roots {
    /// As on this machine.
    pub fn host() -> Self {
        Self::below(Path::new("/"))
    }

    /// All of them below this folder, as they are below `/` on a machine.
    pub fn below(base: &Path) -> Self {
        let at = |path: &str| base.join(path);
        Self {
            proc: at("proc"),
            runc: at("run/runc"),
            crun: at("run/crun"),
            containerd_runc: at("run/containerd/runc"),
            containerd_tasks: at("run/containerd/io.containerd.runtime.v2.task"),
            docker_run: at("run/docker"),
            docker_data: at("var/lib/docker"),
            storage_run: at("run/containers/storage"),
            storage_data: at("var/lib/containers/storage"),
            docker_socket: at("run/docker.sock"),
            podman_socket: at("run/podman/podman.sock"),
            user_run: at("run/user"),
        }
    }

    /// The same of a user's rootless runtimes, which are below the user's run folder (XDG_RUNTIME_DIR). What
    /// they keep in the user's home is not looked for.
    pub(super) fn of_user(&self, uid: u32) -> Self {
        let run = self.user_run.join(uid.to_string());
        Self {
            runc: run.join("runc"),
            crun: run.join("crun"),
            containerd_runc: run.join("containerd/runc"),
            containerd_tasks: run.join("containerd/io.containerd.runtime.v2.task"),
            docker_run: run.join("docker"),
            docker_data: run.join("docker/data"),
            storage_run: run.join("containers"),
            storage_data: run.join("containers"),
            ..self.clone()
        }
    }
}
