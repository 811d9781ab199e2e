//! Tools of PyPI, in an environment of their own in the target folder.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{shell, workspace};

/// The program `name` of this package (`name==version`), installed where it is missing.
pub(crate) fn tool(package: &str, name: &str) -> Result<PathBuf> {
    let environment = workspace::target_dir()?.join("python").join(package.replace("==", "-"));
    let program = environment.join("bin").join(name);
    if !program.exists() {
        fs::create_dir_all(&environment).with_context(|| format!("cannot make {}", environment.display()))?;
        let mut python = shell::command("python3");
        shell::run(python.args(["-m", "venv"]).arg(&environment))
            .context("Debian's package python3-venv has what this takes")?;
        let mut pip = Command::new(environment.join("bin/pip"));
        shell::run(pip.args(["install", "--quiet", "--disable-pip-version-check", package]))?;
    }
    Ok(program)
}
