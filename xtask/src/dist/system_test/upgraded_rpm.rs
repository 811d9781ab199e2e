//! Tests the .rpm with its scripts, in a Debian that systemd has booted: install, upgrade, remove.
//!
//! No registry that the tests reach has a Fedora. Debian's rpm runs the same scripts with the same arguments.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};

use super::{
    booted::{Booted, DropIn, UNIT},
    debian,
    root::Root,
    seen,
};

/// Distributions with RPM enable no service by default.
const PRESET: &str = "disable *\n";
/// The agent itself cannot work in the container's PID namespace.
const DROP_IN: &str = "[Unit]
ConditionVirtualization=
[Service]
Type=exec
WatchdogSec=0
ExecStart=
ExecStart=/usr/bin/sleep infinity
";
const DEFAULTS: &str = "etc/default/pidns-trace-agent";

pub(super) fn main(folder: &Path, rpm: &Path, newer: &Path) -> Result<()> {
    let base = debian::bootable_with_rpm(folder)?;
    let root = Root(folder.join("debian/test-rpm"));
    debian::copy(&base, &root.0)?;
    for (from, to) in [(rpm, "first.rpm"), (newer, "newer.rpm")] {
        fs::copy(from, root.0.join("opt").join(to))
            .with_context(|| format!("cannot copy {}", from.display()))?;
    }
    let presets = root.0.join("etc/systemd/system-preset");
    fs::create_dir_all(&presets).with_context(|| format!("cannot create {}", presets.display()))?;
    fs::write(presets.join("00-test.preset"), PRESET).context("cannot write a preset")?;

    let booted = Booted::start(folder, &root.0)?;
    // Debian's packages are not in rpm's database, so dependencies are not checked.
    booted.run(&["rpm", "--install", "--nodeps", "/opt/first.rpm"])?;
    expect(&booted, "after the installation", "disabled", "inactive")?;
    booted.run(&["systemctl", "enable", UNIT])?;
    let changed = DropIn::new(&booted, &root, DROP_IN)?;
    booted.run(&["systemctl", "start", UNIT])?;
    let before = main_pid(&booted)?;
    let defaults = root.0.join(DEFAULTS);
    let text =
        fs::read_to_string(&defaults).with_context(|| format!("cannot read {}", defaults.display()))?;
    let text = text + "# changed\n";
    fs::write(&defaults, &text).with_context(|| format!("cannot write {}", defaults.display()))?;

    booted.run(&["rpm", "--upgrade", "--nodeps", "/opt/newer.rpm"])?;
    expect(&booted, "after the upgrade", "enabled", "active")?;
    let release = booted.run(&["rpm", "--query", "--queryformat", "%{RELEASE}", "pidns-trace"])?;
    if release != "2" || main_pid(&booted)? == before {
        bail!("after the upgrade release {release} is installed, and PID {before} still runs");
    }
    if fs::read_to_string(&defaults).ok() != Some(text) {
        bail!("the upgrade has changed /{DEFAULTS}");
    }
    seen(
        "the RPM's scripts leave the service to the preset, restart it in the upgrade, and keep its defaults",
    );

    changed.remove()?;
    booted.run(&["rpm", "--erase", "--nodeps", "pidns-trace"])?;
    let units = booted.run(&["systemctl", "list-unit-files", "--no-pager", "--no-legend"])?;
    let processes = booted.run(&["sh", "-c", "cat /proc/[0-9]*/comm"])?;
    if units.contains("pidns-trace") || processes.lines().any(|name| name == "sleep") {
        bail!("the removed RPM leaves its service behind: {units}\n{processes}");
    }
    let link = root.0.join("etc/systemd/system/multi-user.target.wants").join(UNIT);
    if link.symlink_metadata().is_ok() || root.0.join("usr/bin/pidns-trace").exists() {
        bail!("the removed RPM leaves its program or the link of its service behind");
    }
    seen("after the RPM is removed, its service is stopped, disabled and gone");
    drop(booted);
    debian::remove(&root.0)
}

fn expect(booted: &Booted, when: &str, enabled: &str, active: &str) -> Result<()> {
    // The exit codes say the same as the text.
    for (query, expected) in [("is-enabled", enabled), ("is-active", active)] {
        let found = booted.run(&["sh", "-c", &format!("systemctl {query} {UNIT} || :")])?;
        if found.trim() != expected {
            bail!("{when} the service is {}, not {expected}", found.trim());
        }
    }
    Ok(())
}

fn main_pid(booted: &Booted) -> Result<String> {
    let pid = booted.run(&["systemctl", "show", "--property=MainPID", "--value", UNIT])?;
    if pid.trim() == "0" {
        bail!("the service has no process");
    }
    Ok(pid.trim().to_owned())
}
