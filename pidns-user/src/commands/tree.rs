//! `pidns-trace tree`: the forest of namespaces.

use std::{io, process::ExitCode};

use super::{
    look::{self, ViewRequest},
    watch::Shown,
};
use crate::{
    cli::{TreeArgs, TreeOutput},
    commands::failure::Failure,
    event::snapshot::Snapshot,
    model::Forest,
    output::{JsonForm, dot, forest},
    target::scope::Scope,
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
    let asked = ViewRequest {
        past: &args.past,
        repeat: args.repeat,
        target: args.target.as_deref(),
        holders: true,
        containers: true,
        cgroups: false,
        shown: match args.output {
            TreeOutput::Table => Shown::Screen { headings: !args.no_headers },
            _ => Shown::Lines,
        },
        quiet: args.quiet,
    };
    look::show(&asked, |snapshot, model, from, to| write(args, snapshot, model, from, to))
}

fn write(
    args: &TreeArgs,
    snapshot: &Snapshot,
    model: &Forest<'_>,
    from: Option<&Scope>,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    let roots = from.map(|scope| scope.roots(model));
    let from = roots.as_deref();
    let TreeArgs { target: _, fields, output, no_headers, repeat, past: _, quiet: _ } = args;
    let form = if repeat.watch.is_some() { JsonForm::Line } else { JsonForm::Indented };
    match output {
        TreeOutput::Table => {
            let fields = fields.clone().unwrap_or_default();
            forest::table(snapshot, model, from, &fields, !no_headers, to)
        }
        TreeOutput::Json => forest::json(snapshot, model, from, fields.as_ref(), form, to),
        TreeOutput::Dot => dot::graph(snapshot, model, from, to),
    }
}
