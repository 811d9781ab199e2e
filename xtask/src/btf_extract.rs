//! `cargo xtask btf-extract`: extracts the part of a kernel's BTF that the tests need.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::{shell, workspace};

/// Cut a kernel's BTF down to the types that pidns-trace reads, for pidns-user/tests/btf.rs.
///
/// The input is a copy of a kernel's /sys/kernel/btf/vmlinux. Before it writes the extract, it checks that the
/// extract gives the same answers as the input. Needs no set-up: the eBPF object is not built.
#[derive(clap::Args)]
#[command(after_help = "Example: cargo xtask btf-extract /sys/kernel/btf/vmlinux 6.18.15")]
pub(crate) struct Args {
    /// The kernel's BTF
    file: PathBuf,
    /// The kernel's release, which becomes the name of the extract
    release: String,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let Args { file, release } = args;
    if release.is_empty() || !release.chars().all(|c| c.is_ascii_alphanumeric() || ".-+_".contains(c)) {
        bail!("{release:?} is not a release: give it as `uname -r` prints it, like 6.18.15");
    }
    // xtask itself cannot read BTF: the reader is in pidns-user, which needs the eBPF toolchain that xtask installs.
    // So the extractor is an example of pidns-user, built around an empty object as for the lints.
    let mut cargo = shell::command("cargo");
    cargo.env("AYA_BUILD_SKIP", "1").args(["run", "--quiet", "--package", "pidns-user"]);
    cargo.args(["--example", "btf-extract", "--target-dir"]).arg(workspace::target_dir()?.join("lint"));
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("pidns-user").join("tests/btf");
    shell::run(cargo.arg("--").arg(file).arg(out.join(format!("{release}.btf"))))
}
