//! Packages: .deb by cargo-deb, .rpm by cargo-generate-rpm, from the same folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{Source, tools::Tools};
use crate::shell;

/// The package's own version, behind that of the program.
pub(super) const FIRST: u32 = 1;

/// How well a package is packed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// As it is published.
    Small,
    /// For a test.
    Fast,
}

/// Makes the .deb with this revision.
pub(super) fn deb(
    source: &Source,
    tools: &Tools,
    work: &Path,
    folder: &Path,
    revision: u32,
    packing: Packing,
) -> Result<PathBuf> {
    let version = format!("{}-{revision}", source.version);
    let path = folder.join(format!("pidns-trace_{version}_{}.deb", debian_arch()));
    let mut cargo = tools.cargo_deb();
    cargo.args(["--no-build", "--no-strip", "--deb-version", &version, "--output"]).arg(&path);
    if packing == Packing::Fast {
        cargo.arg("--fast");
    }
    shell::run(source.dated(cargo.current_dir(work)))?;
    Ok(path)
}

/// Makes the .rpm.
pub(super) fn rpm(source: &Source, tools: &Tools, work: &Path, folder: &Path) -> Result<PathBuf> {
    let arch = std::env::consts::ARCH;
    let path = folder.join(format!("pidns-trace-{}-{FIRST}.{arch}.rpm", source.version));
    // cargo-deb has an option for the version; here it is the manifest's.
    let manifest = work.join("Cargo.toml");
    let text =
        fs::read_to_string(&manifest).with_context(|| format!("cannot read {}", manifest.display()))?;
    fs::write(&manifest, text.replace("version = \"0.0.0\"", &format!("version = \"{}\"", source.version)))
        .with_context(|| format!("cannot write {}", manifest.display()))?;
    let mut cargo = tools.cargo_generate_rpm();
    cargo.args(["--arch", arch, "--source-date", &source.epoch.to_string(), "--output"]).arg(&path);
    shell::run(source.dated(cargo.current_dir(work)))?;
    Ok(path)
}

/// Debian's name for this machine's architecture.
pub(super) fn debian_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
