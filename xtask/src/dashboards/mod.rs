//! `cargo xtask dashboards`: makes the Grafana dashboards, recording rules and alerts in dashboards/ from one source.
//!
//! The dashboards are described here as panels, and written as the JSON that Grafana reads. `tests` checks the
//! conventions, the names of metrics, and each query and alert against a real Prometheus.

mod agent;
mod alerts;
mod board;
mod catalogue;
mod common;
mod files;
mod fleet;
mod live;
mod namespace;
mod node;
mod panel;
mod pictures;
mod promql;
mod promtool;
mod reasons;
mod rules;
mod sample;
#[cfg(test)]
mod tests;
mod types;
mod workload;
mod yaml;

use anyhow::Result;
use clap::Subcommand;

pub(crate) use files::{board_texts, check as check_files, rule_groups};

/// Show the agent's metrics at work, or make, check and draw the dashboards
///
/// Without a subcommand it starts `pidns-trace agent` (as root), a Prometheus that scrapes it and evaluates the
/// rules, and namespaces that live, die, leave zombies and leak. The servers listen on free ports of the loopback
/// interface. It prints their addresses, and stops all of them on Ctrl-C.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    live: live::LiveArgs,
}

#[derive(Subcommand)]
enum Action {
    /// Write the files of dashboards/ from xtask/src/dashboards
    Write,
    /// Fail if a file of dashboards/ is out of date with xtask/src/dashboards, if promtool finds an error in the
    /// rules, or if Grafana's types do not allow a dashboard
    Check,
    Draw(pictures::Args),
}

/// Runs all checks that need no running Prometheus.
pub(crate) fn check() -> Result<()> {
    files::check()?;
    promtool::check()?;
    types::check()
}

pub(crate) fn main(args: &Args) -> Result<()> {
    match &args.action {
        None => live::main(&args.live),
        Some(Action::Write) => files::write(),
        Some(Action::Check) => check(),
        Some(Action::Draw(args)) => pictures::main(args),
    }
}
