//! What others' tools find of the packages.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{debian, root::Root, seen};
use crate::shell;

/// The most that a service may be exposed to, by systemd-analyze: it calls up to 4 OK.
const LARGEST_EXPOSURE: f64 = 3.0;
/// Of distributions with RPM, and of Debian's rpm.
const RPM_DATABASES: [&str; 2] = ["var/lib/rpm", "root/.rpmdb"];
const UNIT: &str = "systemd/pidns-trace-agent.service";

pub(super) fn lintian(deb: &Path) -> Result<()> {
    let mut lintian = shell::command("lintian");
    // lintian does not want to be run by root, for whom it changes nothing here.
    shell::run(lintian.args(["--allow-root", "--fail-on", "error", "--show-overrides"]).arg(deb))?;
    seen("lintian finds no error");
    Ok(())
}

/// The unit is understood, and its service confined.
pub(super) fn service(work: &Path) -> Result<()> {
    let unit = fs::read_to_string(work.join(UNIT)).context("the unit was copied there")?;
    // The unit names the installed program, which has to be there.
    let program = work.join("stage/pidns-trace");
    let text = unit.replace("/usr/bin/pidns-trace", &program.to_string_lossy());
    let copy = work.join("verify/pidns-trace-agent.service");
    fs::create_dir_all(work.join("verify")).context("cannot make a folder")?;
    fs::write(&copy, text).with_context(|| format!("cannot write {}", copy.display()))?;
    let analyze = |args: &[&str]| {
        let mut analyze = shell::command("systemd-analyze");
        analyze.args(args).arg(&copy).env("LC_ALL", "C");
        let output = analyze.output().context("cannot start systemd-analyze")?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        anyhow::Ok((output.status.success(), text))
    };
    // Man pages are not installed here.
    let (passes, text) = analyze(&["verify", "--man=no"])?;
    let about_it: Vec<&str> = text.lines().filter(|line| line.contains("pidns-trace")).collect();
    if !passes || !about_it.is_empty() {
        bail!("systemd-analyze verify: {text}");
    }
    let (_, text) = analyze(&["security", "--offline=true", "--no-pager"])?;
    let exposure = exposure(&text).with_context(|| format!("systemd-analyze names no exposure:\n{text}"))?;
    if exposure > LARGEST_EXPOSURE {
        bail!("exposure {exposure}, above {LARGEST_EXPOSURE}:\n{text}");
    }
    seen(&format!("systemd-analyze verify finds nothing; the exposure is {exposure}"));
    Ok(())
}

/// Of `→ Overall exposure level for pidns-trace-agent.service: 1.9 OK 🙂`.
fn exposure(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.contains("Overall exposure level"))?;
    line.rsplit_once(": ")?.1.split_whitespace().next()?.parse().ok()
}

/// The RPM is installed into a folder, and leaves nothing there when it is removed.
pub(super) fn rpm(package: &Path, folder: &Path) -> Result<()> {
    let root = folder.join("rpm-root");
    debian::remove(&root)?;
    fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
    let rpm = |args: &[&str]| {
        let mut rpm = shell::command("rpm");
        rpm.arg("--root").arg(&root).args(args);
        rpm
    };
    // Its scripts take a shell, which this folder has not; they are tried as a shell reads them.
    let name = package.to_string_lossy();
    shell::run(&mut rpm(&["--install", "--nodeps", "--noscripts", &name]))?;
    let program = root.join("usr/bin/pidns-trace");
    let version =
        shell::ask(Command::new(&program).arg("--version")).context("the installed program runs")?;
    let scripts =
        shell::ask(&mut rpm(&["--query", "--scripts", "pidns-trace"])).context("it is installed")?;
    for script in ["postinstall", "preuninstall", "postuninstall"] {
        if !scripts.contains(script) {
            bail!("the RPM has no {script} script");
        }
    }
    shell::run(&mut rpm(&["--erase", "--nodeps", "--noscripts", "pidns-trace"]))?;
    // Folders that no package owns stay, as their package (filesystem) is not there; so does rpm's own database.
    let files = Root(root.clone()).files()?;
    let is_left = |path: &&PathBuf| {
        !root.join(path).is_dir() && !RPM_DATABASES.iter().any(|folder| path.starts_with(folder))
    };
    let left: Vec<_> = files.keys().filter(is_left).collect();
    if !left.is_empty() {
        bail!("the RPM leaves {left:?}");
    }
    seen(&format!("the RPM installs ({}), and leaves nothing", version.trim()));
    debian::remove(&root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exposure_is_read_from_what_systemd_prints() {
        let text =
            "  NAME DESCRIPTION\n\n→ Overall exposure level for pidns-trace-agent.service: 1.9 OK 🙂\n";
        assert_eq!(exposure(text), Some(1.9));
        assert_eq!(exposure(""), None);
    }
}
