//! Runs cargo in this workspace, and finds its output.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::shell::{self, Privilege};

/// The target directory, which has one directory for each profile. It is found from the path of this program, so that
/// no setting of cargo (`CARGO_TARGET_DIR`, `build.target`, …) has to be read again.
pub fn target_dir() -> Result<PathBuf> {
    let exe = env::current_exe().context("cannot find out where xtask itself was built")?;
    let target = exe.parent().and_then(Path::parent);
    let target = target.with_context(|| format!("{} is in no target directory", exe.display()))?;
    Ok(target.to_owned())
}

/// Makes cargo run the built programs as root. The build itself runs as the user, because otherwise root would own
/// the target directory.
pub fn run_as_root(cargo: &mut Command) -> Result<()> {
    match Privilege::here() {
        Privilege::Root => {}
        Privilege::Sudo => {
            let verbose = shell::ask(shell::command("rustc").arg("-vV"));
            let host =
                verbose.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("host: ")));
            cargo.env(runner_variable(host.context("`rustc -vV` names no host")?), "sudo -E");
        }
        Privilege::None => {
            bail!("this loads eBPF programs, which needs root, and there is no sudo on PATH: run it as root")
        }
    }
    Ok(())
}

/// The variable that names cargo's runner for a target.
fn runner_variable(triple: &str) -> String {
    format!("CARGO_TARGET_{}_RUNNER", triple.to_uppercase().replace(['-', '.'], "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runner_variable_names_the_target() {
        assert_eq!(
            runner_variable("x86_64-unknown-linux-gnu"),
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER"
        );
    }
}
