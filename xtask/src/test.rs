//! `cargo xtask test`: builds the program that ships, then becomes cargo test.

use std::{env, ffi::OsString};

use anyhow::Result;

use crate::{build, dashboards, docs, setup, shell, workspace};

/// Names the program under test to the tests and the benches.
pub(crate) const PROGRAM_VAR: &str = "PIDNS_TRACE_BIN";

/// Build pidns-trace and run all tests, set-up included
///
/// Before that, dashboards/ and the documents are checked, as `cargo xtask dashboards check` and `cargo xtask docs check` do.
///
/// Tests run target/release/pidns-trace; PIDNS_TRACE_BIN names another one. The test programs themselves are debug builds,
/// which compile fast.
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
    // What no test program does: it takes npm.
    dashboards::check()?;
    docs::check(&built.binary)?;
    let mut cargo = built.ready.cargo("test");
    cargo.arg("--workspace").args(args.args);
    if env::var_os(PROGRAM_VAR).is_none() {
        cargo.env(PROGRAM_VAR, &built.binary);
    }
    workspace::run_as_root(&mut cargo)?;
    shell::exec(&mut cargo)
}
