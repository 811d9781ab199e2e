//! Tests the .deb, and the archive, in a Debian that systemd has booted, in a Podman container.
//!
//! systemd must be PID 1 of its PID namespace, but the agent needs the host's PID namespace: its unit keeps it from
//! starting here. Instead `check` (which loads all programs) and the stream run under the unit's restrictions.
//! `installed` tests the agent with the unit's user and capabilities in the host's PID namespace.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{
    booted::{Booted, DropIn, UNIT},
    debian,
    root::Root,
    seen,
};
use crate::shell;

/// Replaces the agent with other commands under the same restrictions.
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

/// An agent that ends with this exit code, and what systemd must then do: nothing, or start it again.
const ENDINGS: [(u8, [&str; 2]); 3] = [
    (2, ["ActiveState=activating", "SubState=auto-restart"]),
    (3, ["ActiveState=failed", "SubState=failed"]),
    (4, ["ActiveState=failed", "SubState=failed"]),
];

pub(super) fn main(folder: &Path, archive: &Path, deb: &Path, newer: &Path) -> Result<()> {
    let base = debian::bootable(folder)?;
    let root = Root(folder.join("debian/test-service"));
    debian::copy(&base, &root.0)?;
    for (from, to) in [(deb, "first.deb"), (newer, "newer.deb")] {
        fs::copy(from, root.0.join("opt").join(to))
            .with_context(|| format!("cannot copy {}", from.display()))?;
    }
    let before = root.files()?;
    let booted = Booted::start(folder, &root.0)?;
    installed_and_not_started(&booted, &["dpkg", "--install", "/opt/first.deb"])?;
    confined(&booted, &root)?;
    restarted(&booted, &root)?;
    booted.run(&["dpkg", "--install", "/opt/newer.deb"])?;
    if booted.run(&["systemctl", "is-enabled", UNIT])?.trim() != "enabled" {
        bail!("the upgrade has disabled the service");
    }
    remove(&booted)?;
    drop(booted);
    left(&before, &root)?;
    by_hand(folder, archive, &root)?;
    debian::remove(&root.0)
}

/// The commands in docs/install.md must install the files of the archive, with a unit that starts its program.
fn by_hand(folder: &Path, archive: &Path, root: &Root) -> Result<()> {
    shell::run(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(root.0.join("opt")))?;
    let unpacked = archive.file_name().and_then(|name| name.to_str()?.strip_suffix(".tar.gz"));
    let unpacked = Path::new("/opt").join(unpacked.context("the archive has another name")?);
    let readme = root.0.join("opt").join(unpacked.strip_prefix("/opt")?).join("README.md");
    let readme = fs::read_to_string(&readme).with_context(|| format!("cannot read {}", readme.display()))?;
    let commands = readme.split("```\n").nth(1).context("the archive's README.md shows no commands")?;
    let commands = format!("cd {}\n{}", unpacked.display(), commands.replace("sudo ", ""));

    let booted = Booted::start(folder, &root.0)?;
    let installed = installed_and_not_started(&booted, &["sh", "-exc", &commands]);
    installed.with_context(|| format!("by the commands in docs/install.md:\n{commands}"))?;
    // This Debian is minimal: the unit may start only the installed program and what every Debian has.
    let verify = format!("systemd-analyze verify --man=no /etc/systemd/system/{UNIT} 2>&1");
    let faults = booted.run(&["sh", "-c", &verify])?;
    if faults.contains(UNIT) {
        bail!("systemd-analyze finds faults in the archive's unit: {faults}");
    }
    let version = booted.run(&["pidns-trace", "--version"])?;
    let path = booted.run(&["sh", "-c", "command -v pidns-trace"])?;
    seen(&format!(
        "the archive's files install as docs/install.md says: {} in {}",
        version.trim(),
        path.trim()
    ));
    Ok(())
}

/// The service must be enabled by this command, not started where it cannot work, and not failed.
fn installed_and_not_started(booted: &Booted, command: &[&str]) -> Result<()> {
    booted.run(command)?;
    let enabled = booted.run(&["systemctl", "is-enabled", UNIT])?;
    let state = booted.run(&["systemctl", "show", "--property=ActiveState,ConditionResult,Result", UNIT])?;
    let expected = ["ActiveState=inactive", "ConditionResult=no", "Result=success"];
    if enabled.trim() != "enabled" || !expected.iter().all(|line| state.lines().any(|found| found == *line)) {
        bail!("after the installation the service is {}, {state}", enabled.trim());
    }
    seen("after the installation the service is enabled, and not started in a container");
    Ok(())
}

/// The program must work under all restrictions of the unit.
fn confined(booted: &Booted, root: &Root) -> Result<()> {
    let changed = DropIn::new(booted, root, DROP_IN)?;
    let started = booted.run(&["systemctl", "start", UNIT]);
    let log = booted.run(&["journalctl", "--unit", UNIT, "--no-pager", "--output=cat"])?;
    started.with_context(|| format!("under the unit's restrictions it fails:\n{log}"))?;
    for hook in
        ["sched_process_fork", "sched_process_exec", "sched_process_exit", "signal_generate", "snapshots"]
    {
        let is_ok = |line: &&str| {
            let mut words = line.split_whitespace();
            words.next() == Some(hook) && words.next() == Some("ok")
        };
        if !log.lines().any(|line| is_ok(&line)) {
            bail!("under the unit's restrictions {hook} does not work:\n{log}");
        }
    }
    // As in /proc/self/status: BPF, PERFMON, SYS_PTRACE, DAC_READ_SEARCH.
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
    changed.remove()?;
    seen("under the unit's restrictions the program loads its hooks, takes snapshots and streams");
    Ok(())
}

/// An agent that lacks a privilege or a kernel feature must not be started again and again.
fn restarted(booted: &Booted, root: &Root) -> Result<()> {
    for (code, expected) in ENDINGS {
        let text = format!(
            "[Unit]\nConditionVirtualization=\n[Service]\nExecStart=\nExecStart=/usr/bin/sh -c 'exit {code}'\n"
        );
        let changed = DropIn::new(booted, root, &text)?;
        if booted.run(&["systemctl", "start", UNIT]).is_ok() {
            bail!("systemd reports that an agent has started which has ended with {code}");
        }
        let state = booted.run(&["systemctl", "show", "--property=ActiveState,SubState", UNIT])?;
        if !expected.iter().all(|line| state.lines().any(|found| found == *line)) {
            bail!("after exit code {code} the service is {state}");
        }
        booted.run(&["systemctl", "stop", UNIT])?;
        // A unit that has not failed cannot be reset.
        let _not_failed = booted.run(&["systemctl", "reset-failed", UNIT]);
        changed.remove()?;
    }
    seen("systemd starts the agent again after exit code 2, and not after 3 or 4");
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

/// Fails if files of the package are left. Files that systemd itself writes while it runs do not count.
fn left(before: &std::collections::BTreeMap<PathBuf, u64>, root: &Root) -> Result<()> {
    let after = root.files()?;
    let ours = |file: &&PathBuf| !before.contains_key(*file) && file.to_string_lossy().contains("pidns");
    let left: Vec<_> = after.keys().filter(ours).collect();
    if !left.is_empty() {
        bail!("the purged package leaves {left:?} behind");
    }
    seen("after the purge no unit and no file is left");
    Ok(())
}
