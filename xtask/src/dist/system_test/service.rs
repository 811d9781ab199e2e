//! The .deb in a Debian that systemd has booted, in a container of Podman's.
//!
//! systemd has to be PID 1, which is in the host's PID namespace somebody else: the agent does not start there, as its unit says.
//! What runs under the unit's restrictions instead is `check`, which loads all programs, and the stream. The agent with the unit's
//! user and capabilities, in the host's PID namespace, is in `installed`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{
    debian,
    root::{Root, output},
    seen,
};

const UNIT: &str = "pidns-trace-agent.service";
const NAME: &str = "pidns-trace-service-test";

/// What runs in place of the agent, confined as it is.
const DROP_IN: &str = "[Unit]
ConditionVirtualization=
[Service]
Type=oneshot
Restart=no
WatchdogSec=0
ExecStart=
ExecStart=/usr/bin/pidns-trace check
ExecStart=/usr/bin/pidns-trace --duration 1s -e process.fork
ExecStart=/usr/bin/cat /proc/self/status
";

/// systemd in a container, which ends with this.
struct Booted {
    podman: Podman,
}

/// Podman with storage of the test's own.
struct Podman {
    folder: PathBuf,
}

pub(super) fn main(folder: &Path, deb: &Path, newer: &Path) -> Result<()> {
    let base = debian::bootable(folder)?;
    let root = Root(folder.join("debian/test-service"));
    debian::copy(&base, &root.0)?;
    for (from, to) in [(deb, "first.deb"), (newer, "newer.deb")] {
        fs::copy(from, root.0.join("opt").join(to))
            .with_context(|| format!("cannot copy {}", from.display()))?;
    }
    let before = root.files()?;
    let booted = Booted::start(Podman::new(folder)?, &root.0)?;
    install(&booted)?;
    confined(&booted, &root)?;
    booted.run(&["dpkg", "--install", "/opt/newer.deb"])?;
    if booted.run(&["systemctl", "is-enabled", UNIT])?.trim() != "enabled" {
        bail!("the upgrade has disabled the service");
    }
    remove(&booted)?;
    drop(booted);
    left(&before, &root)?;
    debian::remove(&root.0)
}

/// The service is enabled, and not started where it cannot work; nothing has failed.
fn install(booted: &Booted) -> Result<()> {
    booted.run(&["dpkg", "--install", "/opt/first.deb"])?;
    let enabled = booted.run(&["systemctl", "is-enabled", UNIT])?;
    let state = booted.run(&["systemctl", "show", "--property=ActiveState,ConditionResult,Result", UNIT])?;
    let expected = ["ActiveState=inactive", "ConditionResult=no", "Result=success"];
    if enabled.trim() != "enabled" || !expected.iter().all(|line| state.lines().any(|found| found == *line)) {
        bail!("after the installation the service is {}, {state}", enabled.trim());
    }
    seen("installed, the service is enabled, and left alone in a container");
    Ok(())
}

/// All that the unit forbids is no hindrance to what the program does.
fn confined(booted: &Booted, root: &Root) -> Result<()> {
    let folder = root.0.join("etc/systemd/system").join(format!("{UNIT}.d"));
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::write(folder.join("test.conf"), DROP_IN).context("cannot write a drop-in")?;
    booted.run(&["systemctl", "daemon-reload"])?;
    let started = booted.run(&["systemctl", "start", UNIT]);
    let log = booted.run(&["journalctl", "--unit", UNIT, "--no-pager", "--output=cat"])?;
    started.with_context(|| format!("confined as the unit wants it, it fails:\n{log}"))?;
    for hook in
        ["sched_process_fork", "sched_process_exec", "sched_process_exit", "signal_generate", "snapshots"]
    {
        let is_ok = |line: &&str| {
            let mut words = line.split_whitespace();
            words.next() == Some(hook) && words.next() == Some("ok")
        };
        if !log.lines().any(|line| is_ok(&line)) {
            bail!("confined as the unit wants it, {hook} does not work:\n{log}");
        }
    }
    // As of /proc/self/status: BPF, PERFMON, SYS_PTRACE, DAC_READ_SEARCH.
    let capabilities = (1_u64 << 39) | (1 << 38) | (1 << 19) | (1 << 2);
    for (field, value) in [
        ("CapEff", format!("{capabilities:016x}")),
        ("NoNewPrivs", "1".to_owned()),
        ("Seccomp", "2".to_owned()),
    ] {
        if !log.lines().any(|line| {
            line.strip_prefix(field).is_some_and(|rest| rest.trim_start_matches(':').trim() == value)
        }) {
            bail!("the unit does not set {field} to {value}:\n{log}");
        }
    }
    fs::remove_dir_all(&folder).context("cannot remove the drop-in")?;
    booted.run(&["systemctl", "daemon-reload"])?;
    seen("confined as the unit wants it, the program loads its hooks, takes snapshots and streams");
    Ok(())
}

fn remove(booted: &Booted) -> Result<()> {
    booted.run(&["dpkg", "--purge", "pidns-trace"])?;
    let units = booted.run(&["systemctl", "list-unit-files", "--no-pager", "--no-legend"])?;
    if units.contains("pidns-trace") {
        bail!("systemd still knows the service of the purged package");
    }
    let failed = booted.run(&["systemctl", "list-units", "--failed", "--no-pager", "--no-legend"])?;
    if !failed.trim().is_empty() {
        bail!("units have failed: {failed}");
    }
    Ok(())
}

/// Nothing of the package is left: what systemd itself writes while it runs is not of it.
fn left(before: &std::collections::BTreeMap<PathBuf, u64>, root: &Root) -> Result<()> {
    let after = root.files()?;
    let ours = |file: &&PathBuf| !before.contains_key(*file) && file.to_string_lossy().contains("pidns");
    let left: Vec<_> = after.keys().filter(ours).collect();
    if !left.is_empty() {
        bail!("the purged package leaves {left:?}");
    }
    seen("purged, it leaves no unit and no file");
    Ok(())
}

impl Booted {
    fn start(podman: Podman, root: &Path) -> Result<Self> {
        podman.remove();
        let mut run =
            podman.command(&["run", "--detach", "--name", NAME, "--privileged", "--network", "none"]);
        // Raising a limit takes a capability that not every machine gives.
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
                bail!("systemd does not get up in a container: `{state}`");
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn run(&self, args: &[&str]) -> Result<String> {
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
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        // Its locks would else be those of the machine's own containers.
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

    /// Nothing to be said where there is none.
    fn remove(&self) {
        let _none_there = self.command(&["rm", "--force", "--time", "0", NAME]).output();
    }
}
