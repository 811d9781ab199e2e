//! `cargo xtask scenarios`: makes what findings are about, for real, and checks what is found.

use std::{env, ffi::OsString};

use anyhow::{Result, bail};

use crate::{build, setup, shell, test::PROGRAM_VAR, workspace};

/// Make what goes wrong with PID namespaces, for real, and check that `pidns-trace findings` finds just that
///
/// This is the way to see what pidns-trace is for: each scenario makes one situation (an init that reaps nothing, an end that
/// hangs, a `docker stop` that PID 1 ignores, memory that runs out), waits for its finding, checks which processes it names, removes
/// the cause, and waits for the finding's end. Healthy containers are there too: about them nothing may be found.
///
/// `kernel` are situations of plain system calls (pidns-user/tests/kernel/findings.rs), `containers` those of runc, Podman,
/// containerd, Docker and LXC (pidns-user/tests/containers/findings/). Everything is in namespaces, cgroups and folders of its own,
/// and gone at the end: also what the containers leave, with their images and daemons. Nothing is on a network. What each prints is
/// shown: the finding, and after how long it was there.
///
/// It sets up what is missing and builds the program first. The scenarios load eBPF programs and run containers, so they run
/// through sudo unless you are root. The kernel's take two minutes, the containers' five. On a slow machine set
/// PIDNS_TEST_PATIENCE=5: each wait may then take five times as long.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask scenarios
  cargo xtask scenarios kernel              without containers
  cargo xtask scenarios containers
  cargo xtask scenarios -- --list           their names, each a sentence with the expected findings
  cargo xtask test -- --test kernel -- findings::a_deep_nest     one alone

What each finding means: docs/findings.md; what to do about it: docs/runbook.md")]
pub(crate) struct Args {
    /// Which; both without it
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
    /// The test program.
    fn target(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Containers => "containers",
        }
    }
}

/// Those of the program's tests that are scenarios.
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
        // The other suite is run all the same: one that fails does not affect it.
        if shell::run(&mut cargo).is_err() {
            failed.push(suite.target());
        }
    }
    if !failed.is_empty() {
        bail!("not all was as it must be: {} (see above)", failed.join(", "));
    }
    Ok(())
}
