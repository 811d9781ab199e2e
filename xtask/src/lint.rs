//! `cargo xtask lint`: formatting, clippy, the order of the modules, and files that are made from the sources.

use std::path::Path;

use anyhow::Result;

use crate::{dashboards, layers, shell, workspace};

/// Check the formatting, that no module imports one above it, and that dashboards/ is what its source makes, and run clippy
/// with warnings as errors.
///
/// Needs no set-up: the eBPF object is not built. `cargo fmt` fixes what the first check finds.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn main(args: &Args) -> Result<()> {
    let Args {} = args;
    shell::run(shell::command("cargo").args(["fmt", "--all", "--check"]))?;
    layers::check(&Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("pidns-user").join("src"))?;
    dashboards::check_files()?;

    // The kernel side gets no clippy: it compiles for the BPF target alone, with the eBPF toolchain, and Debian's has
    // no clippy. Its ABI is linted here as the library it is to user space; the rest has rustc's warnings, which the
    // build script prints.
    let mut clippy = shell::command("cargo");
    clippy.env("AYA_BUILD_SKIP", "1").args(["clippy", "--workspace", "--all-targets", "--target-dir"]);
    // A folder of its own: pidns-user is built around an empty object here, and cargo would build it anew each time
    // that one follows the other.
    clippy.arg(workspace::target_dir()?.join("lint")).args(["--", "-D", "warnings"]);
    shell::run(&mut clippy)
}
