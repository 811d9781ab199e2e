//! `cargo xtask`: all chores of pidns-trace. Set-up, build and run are in xtask-build, which starts this program for the others.
//!
//! Messages of xtask, and the output of the commands that it runs, go to stderr: stdout belongs to the program that was asked
//! for, so `cargo xtask run -- -o json | jq` works. It needs no eBPF toolchain to build, since it installs it.

mod bench;
mod btf_extract;
mod dashboards;
mod dist;
mod docs;
mod fuzz;
mod kubernetes;
mod layers;
mod lint;
mod python;
mod scenarios;
mod test;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask_build::{build, setup, shell, version, workspace};

/// Set up, build, run and test pidns-trace.
///
/// New here? `cargo xtask run` sets up what is missing, builds, and starts the tool.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    #[command(flatten)]
    Build(xtask_build::Task),
    Test(test::Args),
    Scenarios(scenarios::Args),
    Vm(vm::Args),
    Bench(bench::Args),
    BtfExtract(btf_extract::Args),
    Dashboards(dashboards::Args),
    Dist(dist::Args),
    Docs(docs::Args),
    Fuzz(fuzz::Args),
    Kubernetes(kubernetes::Args),
    Lint(lint::Args),
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not by returning it from main: that prints a backtrace, and what is wrong here is the machine.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(task: Task) -> Result<()> {
    match task {
        Task::Build(task) => task.main(),
        Task::Test(args) => test::main(args),
        Task::Scenarios(args) => scenarios::main(&args),
        Task::Vm(args) => vm::main(args),
        Task::Bench(args) => bench::main(args),
        Task::BtfExtract(args) => btf_extract::main(&args),
        Task::Dashboards(args) => dashboards::main(&args),
        Task::Dist(args) => dist::main(&args),
        Task::Docs(args) => docs::main(&args),
        Task::Fuzz(args) => fuzz::main(&args),
        Task::Kubernetes(args) => kubernetes::main(&args),
        Task::Lint(args) => lint::main(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
