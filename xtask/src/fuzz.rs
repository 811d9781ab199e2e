//! `cargo xtask fuzz`: gives damaged input to the readers of foreign data.

use anyhow::Result;

use crate::{shell, workspace};

/// Give damaged input to the readers of records, BTF, cgroup paths, runtimes' state and recordings
///
/// A generator makes the input from the seeds in pidns-user/tests. It starts with the same number each time, so a
/// fault can be reproduced. If a reader panics or takes 2 s, the input is kept. Needs no set-up: the eBPF object is
/// not built.
#[derive(clap::Args)]
#[command(after_help = "Example: cargo xtask fuzz --seconds 600 recordings")]
pub(crate) struct Args {
    /// Duration for each reader
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Fuzz only this reader: records, btf, cgroups, state or recordings
    target: Option<String>,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let Args { seconds, target } = args;
    // Like the lints, it builds around an empty object. The checks of a debug build stay on.
    let mut cargo = shell::command("cargo");
    cargo.env("AYA_BUILD_SKIP", "1").args(["run", "--quiet", "--package", "pidns-user"]);
    cargo.args(["--example", "fuzz", "--target-dir"]).arg(workspace::target_dir()?.join("lint"));
    shell::run(cargo.arg("--").arg(seconds.to_string()).args(target))
}
