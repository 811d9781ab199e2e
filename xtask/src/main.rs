//! `cargo xtask`: all development tasks of pidns-trace. xtask-build has set-up, build and run, and starts this
//! program for the others.
//!
//! Messages of xtask, and the output of the commands that it runs, go to stderr. Only the requested program writes to
//! stdout, so `cargo xtask run -- -o json | jq` works. xtask builds without the eBPF toolchain, because it installs
//! that.

mod bench;
mod btf_extract;
mod dashboards;
mod dist;
mod docs;
mod fuzz;
mod kubernetes;
mod layers;
mod lint;
mod program;
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
            // If main returned the error, RUST_BACKTRACE would add a backtrace. But the fault is in the machine, not in
            // this program.
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
