//! `cargo xtask docs`: keeps the documents correct. Links and anchors must exist, and commands must print the output
//! that the pages show.

mod cast;
mod examples;
mod links;
mod mentions;
mod page;
mod pages;

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::Result;
use clap::Subcommand;

use crate::{program, workspace};

pub(crate) use links::check as check_links;

/// Check or write the output of commands in the documents, and the animation in README.md
///
/// The commands read recordings of pidns-user/tests/recordings, so no privilege is needed. The program is
/// target/release/pidns-trace (`cargo xtask build`), or the one that PIDNS_TRACE_BIN names.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Fail if a command prints something else than a document shows, or if a link is broken
    Check,
    /// Write the output of each command into the documents, and draw the animation
    Write,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let program = match env::var_os(program::PROGRAM_VAR) {
        Some(program) => PathBuf::from(program),
        None => workspace::target_dir()?.join("release/pidns-trace"),
    };
    match args.action {
        Action::Check => check(&program),
        Action::Write => {
            let runner = examples::Runner::new(&root(), &program)?;
            examples::write(&root(), &runner)?;
            cast::write(&root(), &runner)
        }
    }
}

/// Runs all checks of the documents. The examples need a built program.
pub(crate) fn check(program: &Path) -> Result<()> {
    check_links(&root())?;
    let runner = examples::Runner::new(&root(), program)?;
    examples::check(&root(), &runner)?;
    cast::check(&root(), &runner)
}

/// The root directory of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("")
}
