//! `cargo xtask build`: the binary, and a look into the eBPF object inside it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{object_check, setup, setup::Ready, shell, workspace};

/// The names of the eBPF objects that ship, binaries of pidns-ebpf.
const OBJECTS: [&str; 2] = ["pidns-trace-ebpf", "pidns-snapshot-ebpf"];

/// Build pidns-trace, set-up included.
///
/// The result is target/release/pidns-trace: one file, with the eBPF object inside. The object is then searched for
/// panics, which the kernel's verifier refuses when the tool starts, and for loops laid out as those before Linux 6.4
/// refuse them; better to hear of them here, with the place.
///
/// Always a release build: the verifier judges the optimised code.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn main(args: &Args) -> Result<()> {
    let Args {} = args;
    let built = build()?;
    eprintln!("built {}", built.binary.display());
    Ok(())
}

/// What a build has made.
pub(crate) struct Built {
    pub(crate) ready: Ready,
    /// The program.
    pub(crate) binary: PathBuf,
}

/// Sets up, builds and checks.
pub(crate) fn build() -> Result<Built> {
    build_with(setup::ready()?)
}

/// Builds and checks.
pub(crate) fn build_with(ready: Ready) -> Result<Built> {
    let mut cargo = ready.cargo("build");
    shell::run(cargo.args(["--release", "--package", "pidns-user"]))?;

    let release = workspace::target_dir()?.join("release");
    for object in OBJECTS {
        object_check::check(&newest_object(&release.join("build"), object)?)?;
    }
    Ok(Built { ready, binary: release.join("pidns-trace") })
}

/// The object that was built last: each set of features has a folder of its own.
fn newest_object(build_dir: &Path, name: &str) -> Result<PathBuf> {
    let mut newest = None;
    let entries = fs::read_dir(build_dir).with_context(|| format!("cannot list {}", build_dir.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", build_dir.display()))?;
        if !entry.file_name().to_string_lossy().starts_with("pidns-user-") {
            continue;
        }
        let object = entry.path().join("out").join(name);
        // Build scripts themselves have a folder here too, without an object.
        if let Ok(written) = object.metadata().and_then(|metadata| metadata.modified()) {
            newest = newest.max(Some((written, object)));
        }
    }
    match newest {
        Some((_written, object)) => Ok(object),
        None => bail!(
            "the build left no {}/pidns-user-*/out/{name} to check: has the build script of pidns-user changed?",
            build_dir.display()
        ),
    }
}
