//! systemd in a Podman container, to install packages and start their service.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::root::{Root, output};

pub(super) const UNIT: &str = "pidns-trace-agent.service";
const NAME: &str = "pidns-trace-service-test";

/// systemd in a container. Removed on drop.
pub(super) struct Booted {
    podman: Podman,
}

/// Podman with separate storage for the test.
struct Podman {
    folder: PathBuf,
}

/// A file that changes the unit.
pub(super) struct DropIn<'a> {
    booted: &'a Booted,
    folder: PathBuf,
}

impl<'a> DropIn<'a> {
    pub(super) fn new(booted: &'a Booted, root: &Root, text: &str) -> Result<Self> {
        let folder = root.0.join("etc/systemd/system").join(format!("{UNIT}.d"));
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        fs::write(folder.join("test.conf"), text).context("cannot write a drop-in")?;
        booted.run(&["systemctl", "daemon-reload"])?;
        Ok(Self { booted, folder })
    }

    pub(super) fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.folder).context("cannot remove the drop-in")?;
        self.booted.run(&["systemctl", "daemon-reload"])?;
        Ok(())
    }
}

impl Booted {
    /// Boots the Debian in `root`. Podman keeps its own files in `folder`.
    pub(super) fn start(folder: &Path, root: &Path) -> Result<Self> {
        let podman = Podman::new(folder)?;
        podman.remove();
        let mut run =
            podman.command(&["run", "--detach", "--name", NAME, "--privileged", "--network", "none"]);
        // Raising a limit needs a capability that not every machine grants.
        run.args([
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1000:1000",
            "--systemd=always",
            "--rootfs",
        ]);
        output(run.arg(root).arg("/sbin/init")).context("cannot boot systemd in a container")?;
        let booted = Self { podman };
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let mut state = booted.podman.command(&["exec", NAME, "systemctl", "is-system-running"]);
            let state = state.output().context("cannot start podman")?;
            let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
            if ["running", "degraded"].contains(&state.as_str()) {
                return Ok(booted);
            }
            if Instant::now() > end {
                bail!("systemd does not start in a container: `{state}`");
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Runs a command in it. Returns its stdout, or an error if it fails.
    pub(super) fn run(&self, args: &[&str]) -> Result<String> {
        let mut command =
            self.podman.command(&["exec", NAME, "env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"]);
        output(command.args(args))
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        self.podman.remove();
    }
}

impl Podman {
    fn new(folder: &Path) -> Result<Self> {
        let folder = folder.join("podman");
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        // Otherwise Podman's locks would be those of the machine's own containers.
        fs::write(folder.join("containers.conf"), "[engine]\nlock_type = \"file\"\n")
            .context("cannot write")?;
        let [data, run] = ["data", "run"].map(|name| folder.join(name).display().to_string());
        let storage = format!("[storage]\ndriver = \"vfs\"\nrunroot = \"{run}\"\ngraphroot = \"{data}\"\n");
        fs::write(folder.join("storage.conf"), storage).context("cannot write")?;
        Ok(Self { folder })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut podman = Command::new("podman");
        podman
            .env("CONTAINERS_CONF", self.folder.join("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", self.folder.join("storage.conf"));
        for (option, name) in [("--root", "data"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            podman.arg(option).arg(self.folder.join(name));
        }
        podman
            .args(["--storage-driver", "vfs", "--runtime", "runc", "--cgroup-manager", "cgroupfs"])
            .args(args);
        podman
    }

    /// Removes the container. Does nothing if there is none.
    fn remove(&self) {
        let _none_there = self.command(&["rm", "--force", "--time", "0", NAME]).output();
    }
}
