//! `cargo xtask test`: builds, then becomes cargo test.

use std::ffi::OsString;

use anyhow::Result;

use crate::{build, setup, shell, workspace};

/// Build pidns-trace and run all tests, set-up included
///
/// Some tests load eBPF programs into this machine's kernel, and some run containers, so they run through sudo unless you
/// are root.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask test
  cargo xtask test -- some_test         only the tests with this in their names
  cargo xtask test -- -- --nocapture    show what the tests print")]
pub(crate) struct Args {
    /// Arguments of cargo test, such as a test's name
    #[arg(last = true)]
    args: Vec<OsString>,
}

pub(crate) fn main(args: Args) -> Result<()> {
    let built = build::build_with(setup::ready_for_tests()?)?;
    let mut cargo = built.ready.cargo("test");
    // In release: what is tested is what ships, and the eBPF object is the one just built.
    cargo.args(["--workspace", "--release"]).args(args.args);
    workspace::run_as_root(&mut cargo)?;
    shell::exec(&mut cargo)
}
