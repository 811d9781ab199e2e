//! `cargo xtask docs`: holds the documents true. Links and anchors lead somewhere; commands print the output that is shown.

mod cast;
mod examples;
mod links;
mod mentions;
mod page;

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::Result;
use clap::Subcommand;

use crate::{test, workspace};

pub(crate) use links::check as check_links;

/// Check or write the output of commands that the documents show, and the moving picture of README.md
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
    /// Fail if a command prints something else than a document shows, or a link leads nowhere
    Check,
    /// Put the output of each command into the documents, and draw the moving picture
    Write,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let program = match env::var_os(test::PROGRAM_VAR) {
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

/// All that can be checked of the documents with a program that is built.
pub(crate) fn check(program: &Path) -> Result<()> {
    check_links(&root())?;
    let runner = examples::Runner::new(&root(), program)?;
    examples::check(&root(), &runner)?;
    cast::check(&root(), &runner)
}

/// The folder of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("")
}
