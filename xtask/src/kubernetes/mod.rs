//! `cargo xtask kubernetes`: makes the manifests in packaging/kubernetes and the chart in packaging/chart from one
//! source.
//!
//! Each manifest is described once, as a value. Where the chart offers a choice (`choice.rs`), the plain manifest has
//! the default, and the chart's template has an expression.

mod agent;
mod chart;
mod choice;
mod files;
mod metadata;
mod monitoring;
#[cfg(test)]
mod tests;
mod validate;
mod web;
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
    /// Fail if a file there is out of date with xtask/src/kubernetes, or if Kubernetes' schemas do not allow a
    /// manifest
    ///
    /// kubernetes-validate has the schemas. It is installed from PyPI into the target directory.
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
