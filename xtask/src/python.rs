//! Installs tools from PyPI in separate environments in the target directory.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{shell, workspace};

/// The program `name` of this package (`name==version`). Installed if it is missing.
pub(crate) fn tool(package: &str, name: &str) -> Result<PathBuf> {
    let environment = workspace::target_dir()?.join("python").join(package.replace("==", "-"));
    let program = environment.join("bin").join(name);
    if !program.exists() {
        fs::create_dir_all(&environment)
            .with_context(|| format!("cannot create {}", environment.display()))?;
        let mut python = shell::command("python3");
        shell::run(python.args(["-m", "venv"]).arg(&environment))
            .context("cannot create a Python environment (Debian's package python3-venv is needed)")?;
        let mut pip = Command::new(environment.join("bin/pip"));
        shell::run(pip.args(["install", "--quiet", "--disable-pip-version-check", package]))?;
    }
    Ok(program)
}
