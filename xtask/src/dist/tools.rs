//! The two tools from crates.io that make packages.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{shell, workspace};

struct Tool {
    name: &'static str,
    version: &'static str,
}

const CARGO_DEB: Tool = Tool { name: "cargo-deb", version: "3.8.0" };
const CARGO_GENERATE_RPM: Tool = Tool { name: "cargo-generate-rpm", version: "0.21.1" };

/// The directory of the tools.
pub(super) struct Tools {
    bin: PathBuf,
}

/// Installs missing tools in the target directory. The user's own versions stay, but are not used, because they could
/// pack other bytes.
pub(super) fn ready() -> Result<Tools> {
    let root = workspace::target_dir()?.join("tools");
    let bin = root.join("bin");
    for Tool { name, version } in [CARGO_DEB, CARGO_GENERATE_RPM] {
        let installed = shell::ask(Command::new(bin.join(name)).arg("--version"));
        if installed.is_some_and(|text| text.split_whitespace().any(|word| word == version)) {
            continue;
        }
        let mut cargo = shell::command("cargo");
        // A debug build: it compiles in half the time, and the tools run only for seconds.
        cargo.args(["install", name, "--version", version, "--locked", "--debug", "--root"]).arg(&root);
        cargo.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1").env("CARGO_PROFILE_DEV_DEBUG", "0");
        shell::run(&mut cargo).with_context(|| format!("cannot install {name}, which makes packages"))?;
    }
    Ok(Tools { bin })
}

impl Tools {
    pub(super) fn cargo_deb(&self) -> Command {
        self.subcommand(CARGO_DEB, "deb")
    }

    pub(super) fn cargo_generate_rpm(&self) -> Command {
        self.subcommand(CARGO_GENERATE_RPM, "generate-rpm")
    }

    /// Runs the tool without cargo, which would take the first one on PATH.
    fn subcommand(&self, tool: Tool, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(tool.name));
        command.arg(name);
        command
    }
}
