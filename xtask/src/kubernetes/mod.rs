//! `cargo xtask kubernetes`: the manifests of packaging/kubernetes and the chart of packaging/chart, from one source.
//!
//! A manifest is described once, as a value. Where the chart lets its user choose, the value has a choice (`choice.rs`): the plain
//! manifest has its default there, the chart's template an expression.

mod agent;
mod chart;
mod choice;
mod files;
mod monitoring;
#[cfg(test)]
mod tests;
mod validate;
mod yaml;

use anyhow::Result;
use clap::Subcommand;

pub(crate) use files::check as check_files;

/// Make or check the Kubernetes manifests and the Helm chart
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Write packaging/kubernetes and packaging/chart from xtask/src/kubernetes
    Write,
    /// Fail if a file there is not what xtask/src/kubernetes makes, or if Kubernetes' schemas do not allow a manifest
    ///
    /// The schemas are those of kubernetes-validate, which is installed from PyPI into the target folder.
    Check,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    match args.action {
        Action::Write => files::write(),
        Action::Check => {
            files::check()?;
            validate::check()
        }
    }
}
