//! `pidns-trace tree`: prints the forest of namespaces.

use std::{io, process::ExitCode};

use super::{
    terminal,
    view::{self, Seen, ViewRequest},
    watch::Shown,
};
use crate::{
    cli::{TreeArgs, TreeOutput},
    commands::failure::Failure,
    output::{JsonForm, dot, forest},
};

/// Takes a snapshot and prints the tree; with `--watch` repeatedly.
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
        targets: args.target.as_slice(),
        holders: true,
        containers: true,
        cgroups: false,
        findings: args.output != TreeOutput::Dot && forest::asks_for_findings(args.fields.as_ref()),
        shown: match args.output {
            TreeOutput::Table => Shown::Screen { headings: !args.no_headers },
            _ => Shown::Lines,
        },
        quiet: args.quiet,
    };
    view::show(&asked, |seen, to| write(args, seen, to))
}

fn write(args: &TreeArgs, seen: &Seen<'_>, to: &mut dyn io::Write) -> io::Result<()> {
    let Seen { snapshot, forest: model, scope: from, findings } = *seen;
    let roots = from.map(|scope| scope.roots(model));
    let from = roots.as_deref();
    let TreeArgs { target: _, fields, output, no_headers, repeat, screen, past: _, quiet: _ } = args;
    let shown = forest::Shown { snapshot, forest: model, findings, roots: from };
    let form = if repeat.watch.is_some() { JsonForm::Line } else { JsonForm::Indented };
    match output {
        TreeOutput::Table => {
            let fields = fields.clone().unwrap_or_default();
            forest::table(shown, &fields, !no_headers, terminal::screen(screen), to)
        }
        TreeOutput::Json => forest::json(shown, fields.as_ref(), form, to),
        TreeOutput::Dot => dot::graph(snapshot, model, from, to),
    }
}
