//! `pidns-trace ps`: processes with their PID at every level.

use std::process::ExitCode;

use super::look;
use crate::{
    cli::{PsArgs, SnapshotOutput},
    failure::Failure,
    model::Forest,
    output::processes,
};

/// Takes a snapshot and prints the processes.
pub fn run(args: &PsArgs) -> Result<ExitCode, Failure> {
    let PsArgs { target, fields, output, no_headers } = args;
    if fields.is_some() && *output == SnapshotOutput::Json {
        return Err(Failure::Usage("--fields chooses columns of the table: JSON has all facts".to_owned()));
    }
    let snapshot = look::snapshot(false)?;
    let model = Forest::new(&snapshot);
    let below = match target {
        Some(target) => Some(model.below(look::target(target, &model)?)),
        None => None,
    };
    let wanted = snapshot.processes.iter().filter(|process| match (&below, process.ns) {
        (None, _) => true,
        (Some(below), Some(ns)) => below.contains(&ns),
        (Some(_), None) => false,
    });
    let wanted: Vec<_> = wanted.collect();
    let fields = fields.clone().unwrap_or_default();
    look::print(|to| match output {
        SnapshotOutput::Table => processes::table(&snapshot, &model, &wanted, &fields, !no_headers, to),
        SnapshotOutput::Json => processes::json(&snapshot, &model, &wanted, to),
    })
}
