//! `cargo xtask fuzz`: damaged input for the readers of what others wrote.

use anyhow::Result;

use crate::{shell, workspace};

/// Give the readers of records, BTF, cgroup paths, runtimes' state and recordings damaged input
///
/// Input is made from the seeds in pidns-user/tests by a generator that begins with the same number each time, so that what is found
/// comes again; where a reader panics or takes 2 s, the input is kept. Needs no set-up: the eBPF object is not built.
#[derive(clap::Args)]
#[command(after_help = "Example: cargo xtask fuzz --seconds 600 recordings")]
pub(crate) struct Args {
    /// How long for each
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// One reader alone: records, btf, cgroups, state or recordings
    target: Option<String>,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let Args { seconds, target } = args;
    // As the lints, around an empty object; and with the checks of a debug build.
    let mut cargo = shell::command("cargo");
    cargo.env("AYA_BUILD_SKIP", "1").args(["run", "--quiet", "--package", "pidns-user"]);
    cargo.args(["--example", "fuzz", "--target-dir"]).arg(workspace::target_dir()?.join("lint"));
    shell::run(cargo.arg("--").arg(seconds.to_string()).args(target))
}
