//! `cargo xtask`: runs the commands that a first build needs, and passes all others on to xtask.

use std::{env, os::unix::process::CommandExt as _, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand as _};
use xtask_build::{Task, shell};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

fn main() -> ExitCode {
    let command = env::args_os().nth(1).unwrap_or_default();
    let is_own = command.to_str().is_some_and(Task::has_subcommand);
    match if is_own { Cli::parse().task.main() } else { pass_on() } {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If main returned the error, RUST_BACKTRACE would add a backtrace. But the fault is in the machine, not in
            // this program.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Replaces this process with xtask, which knows all commands. Returns only if cargo cannot be started.
fn pass_on() -> Result<()> {
    let mut cargo = shell::command("cargo");
    cargo.args(["run", "--quiet", "--package", "xtask", "--"]).args(env::args_os().skip(1));
    Err(cargo.exec()).context("cannot start cargo")
}
