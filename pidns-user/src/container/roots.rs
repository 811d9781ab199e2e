//! Directories in which the runtimes keep their state.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The directories that are read. Each is the owner's default. If a daemon uses another one, set its field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// The proc file system.
    pub proc: PathBuf,
    /// runc's root (`--root`): `ID/state.json`.
    pub runc: PathBuf,
    /// crun's root (`--root`): `ID/status`.
    pub crun: PathBuf,
    /// runc's root under containerd's shim: `NAMESPACE/ID/state.json`.
    pub containerd_runc: PathBuf,
    /// containerd's tasks, in its `state` directory: `NAMESPACE/ID/config.json`.
    pub containerd_tasks: PathBuf,
    /// dockerd's `--exec-root`: `runtime-RUNTIME/NAMESPACE/ID/state.json`.
    pub docker_run: PathBuf,
    /// dockerd's `--data-root`: `containers/ID/config.v2.json`.
    pub docker_data: PathBuf,
    /// The run root of Podman and CRI-O (`--runroot`): `DRIVER-containers/ID/userdata`.
    pub storage_run: PathBuf,
    /// Graph root of Podman and CRI-O (`--root`): `DRIVER-containers/containers.json`.
    pub storage_data: PathBuf,
    /// dockerd's socket, queried only if the user requests it.
    pub docker_socket: PathBuf,
    /// Podman's socket, queried only if the user requests it.
    pub podman_socket: PathBuf,
    /// Run directories of users, by user id, for rootless runtimes.
    pub user_run: PathBuf,
}

impl Roots {
    /// The defaults of this machine.
    pub fn host() -> Self {
        Self::below(Path::new("/"))
    }

    /// The same directories below `base` instead of `/`.
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

    /// Directories that exist but cannot be read, without those of users.
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

    /// The machine's directories.
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

    /// The directory with the users' run directories.
    pub(super) fn user_run_folder(&self) -> Folder {
        Folder { base: self.user_run.clone(), below: PathBuf::new() }
    }

    /// The directories of a user's rootless runtimes, below the user's run directory (XDG_RUNTIME_DIR). The system owns
    /// that one, and the user owns everything below. State in the user's home directory is not read.
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

/// The directories of the machine, or of a user.
#[derive(Debug)]
pub(super) struct Folders {
    pub(super) runc: Folder,
    pub(super) crun: Folder,
    pub(super) containerd_runc: Folder,
    pub(super) containerd_tasks: Folder,
    pub(super) docker_run: Folder,
    pub(super) docker_data: Folder,
    /// Run root and graph root, without duplicates.
    pub(super) storage: Vec<Folder>,
}

/// A directory in which a runtime keeps its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Folder {
    /// Start of the path. It may contain symbolic links or mounts, because an administrator may have moved it.
    pub(super) base: PathBuf,
    /// Rest of the path. It may contain neither: a rootless user could point them anywhere.
    pub(super) below: PathBuf,
}

impl Folder {
    pub(super) fn join(&self, further: impl AsRef<Path>) -> Self {
        Self { base: self.base.clone(), below: self.below.join(further) }
    }

    /// The same as [`Self::join`], but if this directory is the machine's, `name` may be a mount. A container of this
    /// program has only some directories of a runtime, each as a mount. In a user's directory a mount stays forbidden.
    pub(super) fn mountable(&self, name: &str) -> Self {
        if self.is_the_machines() {
            Self { base: self.base.join(name), below: PathBuf::new() }
        } else {
            self.join(name)
        }
    }

    /// Whether root owns all of it.
    pub(super) fn is_the_machines(&self) -> bool {
        self.below.as_os_str().is_empty()
    }

    /// The whole path, for messages.
    pub(super) fn path(&self) -> PathBuf {
        self.base.join(&self.below)
    }
}
