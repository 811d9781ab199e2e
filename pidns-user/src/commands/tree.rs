//! `pidns-trace tree`: the forest of namespaces.

use std::process::ExitCode;

use super::look;
use crate::{
    cli::{TreeArgs, TreeOutput},
    failure::Failure,
    model::Forest,
    output::{dot, forest},
};

/// Takes a snapshot and prints the tree.
pub fn run(args: &TreeArgs) -> Result<ExitCode, Failure> {
    let TreeArgs { target, output, no_headers } = args;
    let snapshot = look::snapshot(true)?;
    let model = Forest::new(&snapshot);
    let from = target.as_deref().map(|target| look::target(target, &model)).transpose()?;
    look::print(|to| match output {
        TreeOutput::Table => forest::table(&snapshot, &model, from, !no_headers, to),
        TreeOutput::Json => forest::json(&snapshot, &model, from, to),
        TreeOutput::Dot => dot::graph(&snapshot, &model, from, to),
    })
}
