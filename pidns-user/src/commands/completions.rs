//! `pidns-trace completions`: prints the script that completes this program's arguments in a shell.

use std::process::ExitCode;

use super::view::print;
use crate::{
    cli::{CompletionsArgs, completions},
    commands::failure::Failure,
};

/// Prints the script.
pub fn run(args: &CompletionsArgs) -> Result<ExitCode, Failure> {
    print(|to| to.write_all(&completions(args.shell)?))
}
