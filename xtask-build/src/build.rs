//! `cargo xtask build`: the binary, and a check of the eBPF objects inside it.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{panics, setup, setup::Ready, shell, workspace};

/// The names of the eBPF objects that ship, binaries of pidns-ebpf.
const OBJECTS: [&str; 2] = ["pidns-trace-ebpf", "pidns-snapshot-ebpf"];

/// Build pidns-trace, set-up included.
///
/// The result is target/release/pidns-trace: one file, with the eBPF objects inside. The objects are then searched for
/// panics. The kernel's verifier would refuse those when the tool starts, without the place.
///
/// Always a release build: the verifier judges the optimised code.
#[derive(clap::Args)]
pub struct Args {}

pub(crate) fn main(args: &Args) -> Result<()> {
    let Args {} = args;
    let built = build()?;
    eprintln!("built {}", built.binary.display());
    Ok(())
}

/// What a build has made.
pub struct Built {
    /// What it was built with.
    pub ready: Ready,
    /// The program.
    pub binary: PathBuf,
}

/// Sets up, builds and checks.
pub fn build() -> Result<Built> {
    build_with(setup::ready()?)
}

/// Builds and checks.
pub fn build_with(ready: Ready) -> Result<Built> {
    let mut cargo = ready.cargo("build");
    shell::run(cargo.args(["--release", "--package", "pidns-user"]))?;

    let target_dir = workspace::target_dir()?;
    check_objects(&target_dir)?;
    Ok(Built { ready, binary: target_dir.join("release/pidns-trace") })
}

/// Checks the eBPF objects that were built in this target folder.
pub fn check_objects(target_dir: &Path) -> Result<()> {
    // The build script of pidns-user has them built in this folder, for all profiles.
    let objects = target_dir.join("ebpf/bpfel-unknown-none/ebpf");
    for object in OBJECTS {
        panics::check(&objects.join(object))?;
    }
    Ok(())
}
