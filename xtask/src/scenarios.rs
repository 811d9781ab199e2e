//! `cargo xtask scenarios`: creates the situations that findings describe, and checks what is found.

use std::{env, ffi::OsString};

use anyhow::{Result, bail};

use crate::{build, program::PROGRAM_VAR, setup, shell, workspace};

/// Create real faults of PID namespaces, and check that `pidns-trace findings` finds exactly those
///
/// This shows what pidns-trace is for. Each scenario creates one situation (an init that reaps nothing, a teardown
/// that hangs, a `docker stop` that PID 1 ignores, memory that runs out), waits for its finding, checks which
/// processes it names, removes the cause, and waits for the finding to end. Healthy containers run too: they must
/// cause no findings.
///
/// `kernel` runs situations made with plain system calls (pidns-user/tests/kernel/findings.rs), `containers` those of
/// runc, Podman, containerd, Docker and LXC (pidns-user/tests/containers/findings/). All of them use separate
/// namespaces, cgroups and directories, and remove them at the end, with the containers' images and daemons. None
/// uses the network. Each scenario prints the finding, and the time until it appeared.
///
/// It sets up what is missing and builds the program first. The scenarios load eBPF programs and run containers, so
/// they run through sudo unless you are root. `kernel` takes two minutes, `containers` five. On a slow machine set
/// PIDNS_TEST_PATIENCE=5: each wait may then take five times as long.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask scenarios
  cargo xtask scenarios kernel              without containers
  cargo xtask scenarios containers
  cargo xtask scenarios -- --list           list the scenarios; each name is a sentence with the finding
  cargo xtask test -- --test kernel -- findings::a_deep_nest     only one scenario

docs/findings.md explains each finding, docs/runbook.md says what to do about it")]
pub(crate) struct Args {
    /// The suite to run; both by default
    suite: Option<Suite>,

    /// Arguments of the test programs
    #[arg(last = true)]
    args: Vec<OsString>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Suite {
    Kernel,
    Containers,
}

impl Suite {
    /// The name of the test program.
    fn target(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Containers => "containers",
        }
    }
}

/// Selects the scenarios among the tests.
const FILTER: &str = "findings::";

pub(crate) fn main(args: &Args) -> Result<()> {
    let built = build::build_with(setup::ready_for_tests()?)?;
    let mut failed = Vec::new();
    for suite in [Suite::Kernel, Suite::Containers] {
        if args.suite.is_some_and(|only| only != suite) {
            continue;
        }
        let mut cargo = built.ready.cargo("test");
        cargo.args(["--package", "pidns-user", "--test", suite.target(), "--", FILTER, "--nocapture"]);
        cargo.args(&args.args);
        if env::var_os(PROGRAM_VAR).is_none() {
            cargo.env(PROGRAM_VAR, &built.binary);
        }
        workspace::run_as_root(&mut cargo)?;
        // Run the other suite too: it does not depend on this one.
        if shell::run(&mut cargo).is_err() {
            failed.push(suite.target());
        }
    }
    if !failed.is_empty() {
        bail!("scenarios failed: {} (see above)", failed.join(", "));
    }
    Ok(())
}
