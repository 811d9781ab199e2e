//! Checks the rule files with Prometheus's promtool.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::files;
use crate::shell;

/// Fails with the errors of `promtool check rules` and `promtool test rules` in dashboards/.
pub(crate) fn check() -> Result<()> {
    run(&["check", "rules", "rules.yml", "alerts.yml"])?;
    run(&["test", "rules", "tests/rules.yml", "tests/alerts.yml"])
}

fn run(arguments: &[&str]) -> Result<()> {
    if shell::find("promtool").is_none() {
        bail!(
            "promtool is not on PATH, and dashboards/rules.yml and alerts.yml cannot be checked without it. It is in Debian's \
             package prometheus: `cargo xtask setup` installs it."
        );
    }
    let mut promtool: Command = shell::command("promtool");
    let output =
        promtool.args(arguments).current_dir(files::folder()).output().context("cannot start promtool")?;
    if !output.status.success() {
        bail!(
            "in dashboards/, `{}` ended with {}:\n{}{}",
            shell::describe(&promtool),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
