//! `pidns-trace ps`: processes with their PID at every level.

use std::{io, process::ExitCode};

use super::{
    find,
    look::{self, Eyes, Target},
    recorded::{self, Recorded},
    watch,
};
use crate::{
    cli::{PsArgs, SnapshotOutput},
    failure::Failure,
    model::Forest,
    output::{Form, processes},
    snapshot::Snapshot,
};

/// Takes a snapshot and prints the processes; with `--watch` again and again.
pub fn run(args: &PsArgs) -> Result<ExitCode, Failure> {
    if let Some(Recorded { snapshot, damage, .. }) = recorded::look(&args.past)? {
        let model = Forest::new(&snapshot);
        let from =
            args.target.as_deref().map(|target| find::namespace(target, &snapshot, &model)).transpose();
        let told = from.and_then(|from| look::print(|to| write(args, &snapshot, &model, from, to)));
        return recorded::with_damage(told, damage);
    }
    let mut eyes = Eyes::new(args.past.runtime_api)?;
    let Some(interval) = args.repeat.watch else {
        let mut snapshot = eyes.snapshot(false)?;
        name_containers(args, &mut eyes, &mut snapshot);
        let model = Forest::new(&snapshot);
        let from =
            args.target.as_deref().map(|target| find::namespace(target, &snapshot, &model)).transpose()?;
        return look::print(|to| write(args, &snapshot, &model, from, to));
    };
    let mut target = Target::new(args.target.as_deref());
    watch::repeat(interval, args.output == SnapshotOutput::Table && !args.no_headers, || {
        let mut snapshot = eyes.snapshot(false)?;
        name_containers(args, &mut eyes, &mut snapshot);
        let model = Forest::new(&snapshot);
        target.look(&snapshot, &model, |from, to| write(args, &snapshot, &model, from, to))
    })
}

/// Where they are asked for, or where the TARGET may be the name of one.
fn name_containers(args: &PsArgs, eyes: &mut Eyes, snapshot: &mut Snapshot) {
    if processes::asks_for_containers(args.fields.as_ref()) {
        eyes.name_containers(snapshot);
    } else {
        eyes.name_containers_for(args.target.as_deref(), snapshot);
    }
}

fn write(
    args: &PsArgs,
    snapshot: &Snapshot,
    model: &Forest<'_>,
    from: Option<u32>,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    let PsArgs { target: _, fields, output, no_headers, repeat, past: _ } = args;
    let below = from.map(|from| model.below(from));
    let wanted = snapshot.processes.iter().filter(|process| match (&below, process.ns) {
        (None, _) => true,
        (Some(below), Some(ns)) => below.contains(&ns),
        (Some(_), None) => false,
    });
    let wanted: Vec<_> = wanted.collect();
    let form = if repeat.watch.is_some() { Form::Line } else { Form::Indented };
    match output {
        SnapshotOutput::Table => {
            let fields = fields.clone().unwrap_or_default();
            processes::table(snapshot, model, &wanted, &fields, !no_headers, to)
        }
        SnapshotOutput::Json => processes::json(snapshot, model, &wanted, fields.as_ref(), form, to),
    }
}
