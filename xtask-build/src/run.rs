//! `cargo xtask run`: builds, then becomes pidns-trace.

use std::{ffi::OsString, process::Command};

use anyhow::Result;

use crate::{
    build,
    shell::{self, Privilege},
};

/// Build pidns-trace and run it, set-up included
///
/// It loads eBPF programs, so it runs through sudo unless you are root. Only pidns-trace writes to stdout.
#[derive(clap::Args)]
#[command(after_help = "Example: cargo xtask run -- --duration 5s -o json")]
pub struct Args {
    /// Arguments of pidns-trace; `-- --help` lists them
    #[arg(last = true)]
    args: Vec<OsString>,
}

pub(crate) fn main(args: Args) -> Result<()> {
    let built = build::build()?;
    let mut program = Command::new(&built.binary);
    program.args(args.args);
    let [mut program] = Privilege::here().root([program])?;
    shell::exec(&mut program)
}
