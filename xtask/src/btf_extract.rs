//! `cargo xtask btf-extract`: the little of a kernel's BTF that the tests need.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::{shell, workspace};

/// Cut a kernel's BTF down to what pidns-trace asks of it, for pidns-user/tests/btf.rs.
///
/// It makes sure that the extract gives the same answers before it writes it. A copy of a kernel's /sys/kernel/btf/vmlinux
/// is what it takes. Needs no set-up: the eBPF object is not built.
#[derive(clap::Args)]
#[command(after_help = "Example: cargo xtask btf-extract /sys/kernel/btf/vmlinux 6.18.15")]
pub(crate) struct Args {
    /// The kernel's BTF
    file: PathBuf,
    /// The kernel's release: what the extract is called
    release: String,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let Args { file, release } = args;
    if release.is_empty() || !release.chars().all(|c| c.is_ascii_alphanumeric() || ".-+_".contains(c)) {
        bail!("{release:?} is no release: give it as `uname -r` does, like 6.18.15");
    }
    // xtask itself cannot read BTF: the reader is in pidns-user, which takes the eBPF toolchain to build, and that is
    // what xtask is there to set up. So it is an example of that crate, built as for the lints, around an empty object.
    let mut cargo = shell::command("cargo");
    cargo.env("AYA_BUILD_SKIP", "1").args(["run", "--quiet", "--package", "pidns-user"]);
    cargo.args(["--example", "btf-extract", "--target-dir"]).arg(workspace::target_dir()?.join("lint"));
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("pidns-user").join("tests/btf");
    shell::run(cargo.arg("--").arg(file).arg(out.join(format!("{release}.btf"))))
}
