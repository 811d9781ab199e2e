//! `cargo xtask lint`: formatting, clippy, rustdoc, the order of the modules, links, and files that are made from the sources.

use anyhow::Result;

use crate::{dashboards, docs, kubernetes, layers, shell, workspace};

/// Check the formatting, that no module imports one above it, that the links of the documents lead somewhere, and that
/// dashboards/ and packaging/ are what their sources make; run clippy and rustdoc with warnings as errors.
///
/// Needs no set-up: the eBPF object is not built. `cargo fmt` fixes what the first check finds.
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

    // The kernel side gets no clippy: it compiles for the BPF target alone, with the eBPF toolchain, and Debian's has
    // no clippy. Its ABI is linted here as the library it is to user space; the rest has rustc's warnings, which the
    // build script prints.
    let mut clippy = shell::command("cargo");
    clippy.env("AYA_BUILD_SKIP", "1").args(["clippy", "--workspace", "--all-targets", "--target-dir"]);
    // A folder of its own: pidns-user is built around an empty object here, and cargo would build it anew each time
    // that one follows the other.
    let target = workspace::target_dir()?.join("lint");
    clippy.arg(&target).args(["--", "-D", "warnings"]);
    shell::run(&mut clippy)?;

    let mut rustdoc = shell::command("cargo");
    rustdoc.env("AYA_BUILD_SKIP", "1").env("RUSTDOCFLAGS", "-D warnings");
    shell::run(rustdoc.args(["doc", "--workspace", "--no-deps", "--target-dir"]).arg(target))
}
