//! `cargo xtask lint`: checks formatting, clippy, rustdoc, the order of the modules, links, and files made from the
//! sources.

use anyhow::Result;

use crate::{dashboards, docs, kubernetes, layers, shell, workspace};

/// Check the formatting, that no module imports one above it, that the links of the documents work, and that
/// dashboards/ and packaging/ are up to date with their sources; run clippy and rustdoc with warnings as errors.
///
/// Needs no set-up: the eBPF object is not built. `cargo fmt` corrects the formatting.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn main(args: &Args) -> Result<()> {
    let Args {} = args;
    shell::run(shell::command("cargo").args(["fmt", "--all", "--check"]))?;
    let root = docs::root();
    layers::check(&root.join("pidns-user/src"))?;
    docs::check_links(&root)?;
    dashboards::check_files()?;
    kubernetes::check_files()?;

    // clippy does not check the eBPF programs: they compile only for the BPF target with the eBPF toolchain, and
    // Debian's has no clippy. Their ABI is checked here, because user space uses it as a library. For the rest the
    // build script prints rustc's warnings.
    let mut clippy = shell::command("cargo");
    clippy.env("AYA_BUILD_SKIP", "1").args(["clippy", "--workspace", "--all-targets", "--target-dir"]);
    // Use a separate directory: here pidns-user is built around an empty object. In a shared directory, each switch
    // between this and a normal build would make cargo build it again.
    let target = workspace::target_dir()?.join("lint");
    clippy.arg(&target).args(["--", "-D", "warnings"]);
    shell::run(&mut clippy)?;

    let mut rustdoc = shell::command("cargo");
    rustdoc.env("AYA_BUILD_SKIP", "1").env("RUSTDOCFLAGS", "-D warnings");
    shell::run(rustdoc.args(["doc", "--workspace", "--no-deps", "--target-dir"]).arg(target))
}
