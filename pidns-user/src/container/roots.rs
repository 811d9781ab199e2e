//! Where the runtimes keep their state.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The folders that are read. Each is where its owner puts it by default; a daemon that was given
/// another is found once its field here has it.
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
    /// dockerd's socket, queried only if the user requests it.
    pub docker_socket: PathBuf,
    /// Podman's socket, queried only if the user requests it.
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

    /// Those of the machine's folders that are there and may not be read.
    pub fn unreadable(&self) -> Vec<&Path> {
        let all = [
            &self.runc,
            &self.crun,
            &self.containerd_runc,
            &self.containerd_tasks,
            &self.docker_run,
            &self.docker_data,
            &self.storage_run,
            &self.storage_data,
        ];
        let is_denied = |path: &&PathBuf| {
            fs::read_dir(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
        };
        all.into_iter().filter(is_denied).map(PathBuf::as_path).collect()
    }

    /// The machine's own.
    pub(super) fn folders(&self) -> Folders {
        let at = |path: &Path| Folder { base: path.to_owned(), below: PathBuf::new() };
        let mut storage = vec![at(&self.storage_run), at(&self.storage_data)];
        storage.dedup();
        Folders {
            runc: at(&self.runc),
            crun: at(&self.crun),
            containerd_runc: at(&self.containerd_runc),
            containerd_tasks: at(&self.containerd_tasks),
            docker_run: at(&self.docker_run),
            docker_data: at(&self.docker_data),
            storage,
        }
    }

    /// The same of a user's rootless runtimes, which are below the user's run folder (XDG_RUNTIME_DIR): that
    /// is the system's, and all below it the user's. What they keep in the user's home is not searched for.
    pub(super) fn folders_of(&self, uid: u32) -> Folders {
        let run = self.user_run.join(uid.to_string());
        let at = |below: &str| Folder { base: run.clone(), below: PathBuf::from(below) };
        Folders {
            runc: at("runc"),
            crun: at("crun"),
            containerd_runc: at("containerd/runc"),
            containerd_tasks: at("containerd/io.containerd.runtime.v2.task"),
            docker_run: at("docker"),
            docker_data: at("docker/data"),
            storage: vec![at("containers")],
        }
    }
}

/// The folders of the machine, or of a user.
#[derive(Debug)]
pub(super) struct Folders {
    pub(super) runc: Folder,
    pub(super) crun: Folder,
    pub(super) containerd_runc: Folder,
    pub(super) containerd_tasks: Folder,
    pub(super) docker_run: Folder,
    pub(super) docker_data: Folder,
    /// Run root and graph root, each once.
    pub(super) storage: Vec<Folder>,
}

/// A folder that a runtime keeps its state in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Folder {
    /// Where it begins. This may be reached through links and be a mount, as an administrator may have moved
    /// it.
    pub(super) base: PathBuf,
    /// The way on from there. On this there may be neither: a rootless user could make them of anything.
    pub(super) below: PathBuf,
}

impl Folder {
    pub(super) fn join(&self, further: impl AsRef<Path>) -> Self {
        Self { base: self.base.clone(), below: self.below.join(further) }
    }

    /// All of the way, for people.
    pub(super) fn path(&self) -> PathBuf {
        self.base.join(&self.below)
    }
}
