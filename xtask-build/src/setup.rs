//! `cargo xtask setup`: inspects the machine, plans what it lacks, and installs that.

mod machine;
mod plan;

use std::{fmt, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{
    linker::Linker,
    packages, shell,
    toolchain::{self, Toolchain},
};
use machine::{Machine, Purpose};
use plan::plan;

/// Install what is missing to build and test pidns-trace.
///
/// Wanted are a Rust toolchain that builds eBPF objects, bpf-linker, what the tests run, and what guests take. Whatever is
/// there already stays as it is; each command is printed before it runs. Of container runtimes and Prometheus, whose packages
/// start daemons, it keeps those that it installs itself from being started, now and at boot.
///
/// The toolchain is rustup's `nightly` if that has the component rust-src, else Debian's packages, which rustup then
/// knows as `pidns-bpf`. Set PIDNS_BPF_TOOLCHAIN to use another of rustup's toolchains. Setup never installs or
/// updates a toolchain through rustup: which ones you have is up to you.
///
/// build, run, test, vm, bench and dist start with this by themselves; all but vm do without what guests take, all but test
/// without Prometheus, Node.js and npm, and all but test and dist without container runtimes.
#[derive(clap::Args)]
pub struct Args {
    /// Only print what would be run
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let plan = plan(&Machine::inspect(Purpose::Everything)?)?;
    if args.dry_run {
        eprint!("{plan}");
    } else {
        plan.carry_out()?;
    }
    Ok(())
}

/// Sets up what is missing, and prints what is in use.
pub fn ready() -> Result<Ready> {
    plan(&Machine::inspect(Purpose::Build)?)?.carry_out()
}

/// As `ready`, and the container runtimes, Prometheus and Node.js that the tests use too.
pub fn ready_for_tests() -> Result<Ready> {
    plan(&Machine::inspect(Purpose::Tests)?)?.carry_out()
}

/// As `ready`, and what guests take too.
pub fn ready_for_guests() -> Result<Ready> {
    plan(&Machine::inspect(Purpose::Guests)?)?.carry_out()
}

/// As `ready`, and what packages are checked and tried with.
pub fn ready_for_packages() -> Result<Ready> {
    plan(&Machine::inspect(Purpose::Packages)?)?.carry_out()
}

/// What the object is built with.
pub struct Ready {
    toolchain: Toolchain,
    linker: Linker,
    /// Whether the build script of pidns-user has to be given that toolchain.
    name_toolchain: bool,
}

impl Ready {
    /// `cargo SUBCOMMAND`, for the user-space crates and with them the eBPF object.
    pub fn cargo(&self, subcommand: &str) -> Command {
        let mut cargo = shell::command("cargo");
        cargo.arg(subcommand);
        // Not always: the script runs again, and pidns-user compiles again, whenever the variable changes, as it
        // would between this and the user's own `cargo build`.
        if self.name_toolchain {
            cargo.env(toolchain::TOOLCHAIN_VAR, &self.toolchain.name);
        }
        // An object that was skipped is an empty stub, and what comes next would run it or check it.
        cargo.env_remove("AYA_BUILD_SKIP");
        cargo
    }
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "eBPF toolchain: {}, {}", self.toolchain, self.linker)
    }
}

/// Checks again: what was installed must answer, and what was there before must not stand in its way.
fn verify(name: &str) -> Result<Ready> {
    let toolchain = toolchain::probe(name).with_context(|| {
        format!("`rustup run {name} rustc -vV` still fails: run it by hand to see why, then run this command again")
    })?;
    if name == toolchain::DEBIAN_TOOLCHAIN && toolchain.rustc.version < toolchain::DEBIAN_MINIMUM {
        bail!(
            "{toolchain} is older than rustc {}. Is another rustc than that of rustc-web in {}/bin?\nOr {}",
            toolchain::DEBIAN_MINIMUM,
            toolchain::DEBIAN_SYSROOT,
            packages::OTHER_WAY
        );
    }
    if !toolchain.has_sources {
        bail!("{toolchain} has no sources of core: lib/rustlib/src/rust/library/core is not in its sysroot");
    }
    let linker = Linker::find().context(
        "bpf-linker is not on PATH or does not run: `bpf-linker --version` by hand shows why, and \
         `cargo install --force` installs it anew",
    )?;
    if !linker.reads(toolchain.rustc.llvm) {
        bail!(
            "{linker} (LLVM {}) cannot link what {toolchain} writes. If it is not the one that `cargo install` \
             installed, take it off PATH.",
            linker.llvm.map_or_else(|| "unknown".to_owned(), |llvm| llvm.to_string())
        );
    }
    let name_toolchain = toolchain::asked_for()?.is_none() && !toolchain::is_default(name, toolchain::probe);
    Ok(Ready { toolchain, linker, name_toolchain })
}
