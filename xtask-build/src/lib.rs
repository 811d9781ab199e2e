//! The commands `setup`, `build` and `run` of `cargo xtask`: they lead from a bare machine to the program.
//!
//! They have their own crate so that a first build has little to compile before it begins. The other commands are in
//! xtask.

pub mod build;
mod linker;
mod packages;
mod panics;
mod run;
pub mod setup;
pub mod shell;
mod toolchain;
pub mod version;
pub mod workspace;

use anyhow::Result;

/// The commands.
#[derive(clap::Subcommand)]
#[expect(missing_docs, reason = "the arguments of each command have the text, which clap prints as help")]
pub enum Task {
    Setup(setup::Args),
    Build(build::Args),
    Run(run::Args),
}

impl Task {
    /// Runs the command.
    pub fn main(self) -> Result<()> {
        match self {
            Self::Setup(args) => setup::main(&args),
            Self::Build(args) => build::main(&args),
            Self::Run(args) => run::main(args),
        }
    }
}
