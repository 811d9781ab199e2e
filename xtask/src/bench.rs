//! `cargo xtask bench`: what the hooks cost on this machine.

use std::ffi::OsString;

use anyhow::Result;

use crate::{setup, shell, workspace};

/// Measure what the hooks cost on this machine, set-up included.
///
/// What comes after `--` is for the benchmark. It loads eBPF programs, so it runs through sudo unless you are root.
/// For numbers worth keeping, run it on an idle machine.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Arguments of the benchmark
    #[arg(last = true)]
    args: Vec<OsString>,
}

pub(crate) fn main(args: Args) -> Result<()> {
    let ready = setup::ready()?;
    let mut cargo = ready.cargo("bench");
    cargo.args(["--package", "pidns-user", "--bench", "hooks", "--"]).args(args.args);
    workspace::run_as_root(&mut cargo)?;
    shell::exec(&mut cargo)
}
