//! `pidns-trace tree`: the forest of namespaces.

use std::{io, process::ExitCode};

use super::{
    find,
    look::{self, Eyes, Target},
    recorded::{self, Recorded},
    watch,
};
use crate::{
    cli::{TreeArgs, TreeOutput},
    failure::Failure,
    model::Forest,
    output::{Form, dot, forest},
    snapshot::Snapshot,
};

/// Takes a snapshot and prints the tree; with `--watch` again and again.
pub fn run(args: &TreeArgs) -> Result<ExitCode, Failure> {
    if args.output == TreeOutput::Dot && args.fields.is_some() {
        return Err(Failure::Usage(
            "--fields chooses columns or members of JSON: a graph has neither".to_owned(),
        ));
    }
    if args.output == TreeOutput::Dot && args.repeat.watch.is_some() {
        return Err(Failure::Usage("--watch shows a table or JSON: a graph is drawn once".to_owned()));
    }
    if let Some(Recorded { snapshot, damage, .. }) = recorded::look(&args.past)? {
        let model = Forest::new(&snapshot);
        let from =
            args.target.as_deref().map(|target| find::namespace(target, &snapshot, &model)).transpose();
        let told = from.and_then(|from| look::print(|to| write(args, &snapshot, &model, from, to)));
        return recorded::with_damage(told, damage);
    }
    let mut eyes = Eyes::new(args.past.runtime_api)?;
    let Some(interval) = args.repeat.watch else {
        let mut snapshot = eyes.snapshot(true)?;
        eyes.name_containers(&mut snapshot);
        let model = Forest::new(&snapshot);
        let from =
            args.target.as_deref().map(|target| find::namespace(target, &snapshot, &model)).transpose()?;
        return look::print(|to| write(args, &snapshot, &model, from, to));
    };
    let mut target = Target::new(args.target.as_deref());
    watch::repeat(interval, args.output == TreeOutput::Table && !args.no_headers, || {
        let mut snapshot = eyes.snapshot(true)?;
        eyes.name_containers(&mut snapshot);
        let model = Forest::new(&snapshot);
        target.look(&snapshot, &model, |from, to| write(args, &snapshot, &model, from, to))
    })
}

fn write(
    args: &TreeArgs,
    snapshot: &Snapshot,
    model: &Forest<'_>,
    from: Option<u32>,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    let TreeArgs { target: _, fields, output, no_headers, repeat, past: _ } = args;
    let form = if repeat.watch.is_some() { Form::Line } else { Form::Indented };
    match output {
        TreeOutput::Table => {
            let fields = fields.clone().unwrap_or_default();
            forest::table(snapshot, model, from, &fields, !no_headers, to)
        }
        TreeOutput::Json => forest::json(snapshot, model, from, fields.as_ref(), form, to),
        TreeOutput::Dot => dot::graph(snapshot, model, from, to),
    }
}
