//! `pidns-trace ps`: processes with their PID at every level.

use std::{io, process::ExitCode};

use super::{
    look::{self, Seen, ViewRequest},
    terminal,
    watch::Shown,
};
use crate::{
    cli::{PsArgs, SnapshotOutput},
    commands::failure::Failure,
    output::{JsonForm, processes},
};

/// Takes a snapshot and prints the processes; with `--watch` again and again.
pub fn run(args: &PsArgs) -> Result<ExitCode, Failure> {
    let asked = ViewRequest {
        past: &args.past,
        repeat: args.repeat,
        target: args.target.as_deref(),
        holders: false,
        containers: processes::asks_for_containers(args.fields.as_ref()),
        cgroups: match args.output {
            SnapshotOutput::Table => processes::asks_for_cgroups(args.fields.as_ref()),
            _ => args.fields.is_none() || processes::asks_for_cgroups(args.fields.as_ref()),
        },
        findings: false,
        shown: match args.output {
            SnapshotOutput::Table => Shown::Screen { headings: !args.no_headers },
            _ => Shown::Lines,
        },
        quiet: args.quiet,
    };
    look::show(&asked, |seen, to| write(args, seen, to))
}

fn write(args: &PsArgs, seen: &Seen<'_>, to: &mut dyn io::Write) -> io::Result<()> {
    let Seen { snapshot, forest: model, scope: from, findings: _ } = *seen;
    let PsArgs { target: _, fields, output, no_headers, repeat, screen, past: _, quiet: _ } = args;
    let wanted: Vec<_> = match from {
        Some(scope) => scope.processes(snapshot, model),
        None => snapshot.processes.iter().collect(),
    };
    let form = if repeat.watch.is_some() { JsonForm::Line } else { JsonForm::Indented };
    match output {
        SnapshotOutput::Table => {
            let fields = fields.clone().unwrap_or_default();
            processes::table(snapshot, model, &wanted, &fields, !no_headers, terminal::screen(screen), to)
        }
        SnapshotOutput::Json => processes::json(snapshot, model, &wanted, fields.as_ref(), form, to),
    }
}
