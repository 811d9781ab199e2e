//! `cargo xtask`: the chores of pidns-trace, from a bare machine to a tested binary.
//!
//! Messages of xtask, and the output of the commands that it runs, go to stderr: stdout belongs to the program that was asked
//! for, so `cargo xtask run -- -o json | jq` works. It needs no eBPF toolchain to build, since it installs it.

mod bench;
mod btf_extract;
mod build;
mod dashboards;
mod dist;
mod docs;
mod fuzz;
mod kubernetes;
mod layers;
mod linker;
mod lint;
mod packages;
mod panics;
mod python;
mod run;
mod scenarios;
mod setup;
mod shell;
mod test;
mod toolchain;
mod version;
mod vm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

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
    Setup(setup::Args),
    Build(build::Args),
    Run(run::Args),
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
        Task::Setup(args) => setup::main(&args),
        Task::Build(args) => build::main(&args),
        Task::Run(args) => run::main(args),
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
