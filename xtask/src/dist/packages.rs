//! Makes the packages: .deb with cargo-deb, .rpm with cargo-generate-rpm, from the same directory.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{Source, tools::Tools};
use crate::shell;

/// The revision of the package, which follows the program's version.
pub(super) const FIRST: u32 = 1;

/// The compression of a package.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// The compression of published packages.
    Small,
    /// A fast one for tests.
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

/// Makes the .rpm with this release.
pub(super) fn rpm(
    source: &Source,
    tools: &Tools,
    work: &Path,
    folder: &Path,
    release: u32,
    packing: Packing,
) -> Result<PathBuf> {
    let arch = std::env::consts::ARCH;
    let path = folder.join(format!("pidns-trace-{}-{release}.{arch}.rpm", source.version));
    // cargo-deb has an option for the version, but cargo-generate-rpm takes it from the manifest.
    let manifest = work.join("Cargo.toml");
    let text =
        fs::read_to_string(&manifest).with_context(|| format!("cannot read {}", manifest.display()))?;
    fs::write(&manifest, text.replace("version = \"0.0.0\"", &format!("version = \"{}\"", source.version)))
        .with_context(|| format!("cannot write {}", manifest.display()))?;
    let mut cargo = tools.cargo_generate_rpm();
    cargo.args(["--arch", arch, "--source-date", &source.epoch.to_string(), "--output"]).arg(&path);
    cargo.args(["--set-metadata", &format!("release = \"{release}\"")]);
    if packing == Packing::Fast {
        cargo.args(["--payload-compress", "none"]);
    }
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
