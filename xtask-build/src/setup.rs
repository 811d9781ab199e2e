//! `cargo xtask setup`: inspects the machine, plans the missing parts, and installs them.

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
/// The result is a Rust toolchain that builds eBPF objects, bpf-linker, the programs that the tests run, and those
/// that guests need. Setup changes nothing that is installed already, and prints each command before it runs. The
/// packages of container runtimes and Prometheus start daemons: if setup installs them, it keeps their daemons from
/// starting, now and at boot.
///
/// The toolchain is rustup's `nightly` if that has the component rust-src, else Debian's packages, which rustup then
/// knows as `pidns-bpf`. Set PIDNS_BPF_TOOLCHAIN to use another toolchain of rustup. Setup never installs or updates
/// a toolchain through rustup: that choice is yours.
///
/// The commands build, run, test, scenarios, vm, bench and dist start with this set-up. Only vm and bench --vm install
/// what guests need, only test and scenarios install Prometheus, Node.js and npm, and only test, scenarios and dist
/// install container runtimes.
#[derive(clap::Args)]
pub struct Args {
    /// Only print the commands
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

/// Sets up the missing parts, and prints the toolchain in use.
pub fn ready() -> Result<Ready> {
    plan(&Machine::inspect(Purpose::Build)?)?.carry_out()
}

/// Like `ready`, and also sets up the container runtimes, Prometheus and Node.js for the tests.
pub fn ready_for_tests() -> Result<Ready> {
    plan(&Machine::inspect(Purpose::Tests)?)?.carry_out()
}

/// Like `ready`, and also sets up what guests need.
pub fn ready_for_guests() -> Result<Ready> {
    plan(&Machine::inspect(Purpose::Guests)?)?.carry_out()
}

/// Like `ready`, and also sets up the programs that check and try packages.
pub fn ready_for_packages() -> Result<Ready> {
    plan(&Machine::inspect(Purpose::Packages)?)?.carry_out()
}

/// The toolchain that builds the eBPF object.
pub struct Ready {
    toolchain: Toolchain,
    linker: Linker,
    /// Whether the build script of pidns-user needs the name of the toolchain.
    name_toolchain: bool,
}

impl Ready {
    /// `cargo SUBCOMMAND` for the user-space crates, and with them the eBPF object.
    pub fn cargo(&self, subcommand: &str) -> Command {
        let mut cargo = shell::command("cargo");
        cargo.arg(subcommand);
        // Set it only if needed: whenever the variable changes, the build script runs again and pidns-user compiles
        // again. It would change between this build and the user's own `cargo build`.
        if self.name_toolchain {
            cargo.env(toolchain::TOOLCHAIN_VAR, &self.toolchain.name);
        }
        // With this variable the build makes an empty object, which the next step would run or check.
        cargo.env_remove("AYA_BUILD_SKIP");
        cargo
    }
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "eBPF toolchain: {}, {}", self.toolchain, self.linker)
    }
}

/// Checks the result: a new installation must run, and older ones must not be found before it.
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
