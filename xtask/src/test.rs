//! `cargo xtask test`: builds the program that ships, then becomes cargo test.

use std::{env, ffi::OsString, process::Command};

use anyhow::Result;

use crate::{build, dashboards, docs, program::PROGRAM_VAR, setup, shell, workspace};

/// Asks the kernel tests to run on a busy machine, where each wait may take longer.
const BUSY_VAR: &str = "PIDNS_TEST_BUSY";
const PATIENCE_VAR: &str = "PIDNS_TEST_PATIENCE";

/// Build pidns-trace and run all tests, set-up included
///
/// First it checks dashboards/ and the documents, as `cargo xtask dashboards check` and `cargo xtask docs check` do.
///
/// At the end, some kernel tests run again on a busy machine: beside 20 containers, and a process that forks without
/// end. If you give arguments, this step is left out; `--busy` runs only this step.
///
/// The tests run target/release/pidns-trace, or the program that PIDNS_TRACE_BIN names. The test programs themselves
/// are debug builds, which compile fast.
///
/// Some tests load eBPF programs or run containers, so they run through sudo unless you are root.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask test
  cargo xtask test -- some_test         only the tests with this in their names
  cargo xtask test --busy               only kernel tests on a busy machine
  cargo xtask test -- -- --nocapture    show the output of the tests")]
pub(crate) struct Args {
    /// Run only the kernel tests on a busy machine
    #[arg(long)]
    busy: bool,

    /// Arguments of cargo test, such as a test's name
    #[arg(last = true)]
    args: Vec<OsString>,
}

pub(crate) fn main(args: Args) -> Result<()> {
    let built = build::build_with(setup::ready_for_tests()?)?;
    // No test program checks this, because it needs npm.
    dashboards::check()?;
    docs::check(&built.binary)?;
    let test = |selection: &[&str]| -> Result<Command> {
        let mut cargo = built.ready.cargo("test");
        cargo.args(selection);
        if env::var_os(PROGRAM_VAR).is_none() {
            cargo.env(PROGRAM_VAR, &built.binary);
        }
        workspace::run_as_root(&mut cargo)?;
        Ok(cargo)
    };
    if !args.busy {
        let mut all = test(&["--workspace"])?;
        all.args(&args.args);
        if !args.args.is_empty() {
            return shell::exec(&mut all);
        }
        shell::run(&mut all)?;
    }
    let mut busy = test(&["--package", "pidns-user", "--test", "kernel"])?;
    busy.args(&args.args).env(BUSY_VAR, "1").env(PATIENCE_VAR, "5");
    shell::exec(&mut busy)
}
