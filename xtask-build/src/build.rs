//! `cargo xtask build`: builds the program and checks the eBPF objects inside it.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{panics, setup, setup::Ready, shell, workspace};

/// The eBPF objects that ship. Each is a binary of pidns-ebpf.
const OBJECTS: [&str; 2] = ["pidns-trace-ebpf", "pidns-snapshot-ebpf"];

/// Build pidns-trace, set-up included.
///
/// The result is target/release/pidns-trace: one file that contains the eBPF objects. Then the objects are searched
/// for panics. The kernel's verifier would refuse an object with a panic when the tool starts, without naming the
/// place.
///
/// The build is always a release build, because the verifier checks the optimised code.
#[derive(clap::Args)]
pub struct Args {}

pub(crate) fn main(args: &Args) -> Result<()> {
    let Args {} = args;
    let built = build()?;
    eprintln!("built {}", built.binary.display());
    Ok(())
}

/// The result of a build.
pub struct Built {
    /// The toolchain that built it.
    pub ready: Ready,
    /// The program.
    pub binary: PathBuf,
}

/// Sets up, builds and checks.
pub fn build() -> Result<Built> {
    build_with(setup::ready()?)
}

/// Builds and checks, without the set-up.
pub fn build_with(ready: Ready) -> Result<Built> {
    let mut cargo = ready.cargo("build");
    shell::run(cargo.args(["--release", "--package", "pidns-user"]))?;

    let target_dir = workspace::target_dir()?;
    check_objects(&target_dir)?;
    Ok(Built { ready, binary: target_dir.join("release/pidns-trace") })
}

/// Checks the eBPF objects in this target directory.
pub fn check_objects(target_dir: &Path) -> Result<()> {
    // The build script of pidns-user builds them in this directory, for all profiles.
    let objects = target_dir.join("ebpf/bpfel-unknown-none/ebpf");
    for object in OBJECTS {
        panics::check(&objects.join(object))?;
    }
    Ok(())
}
