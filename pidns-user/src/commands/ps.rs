//! `pidns-trace ps`: lists processes with their PID at every level.

use std::{io, process::ExitCode};

use super::{
    terminal,
    view::{self, Seen, ViewRequest},
    watch::Shown,
};
use crate::{
    cli::{PsArgs, SnapshotOutput},
    commands::failure::Failure,
    event::snapshot::{Snapshot, SnapshotProcess, SnapshotSource},
    output::{
        JsonForm,
        processes::{self, ArgsOf, Field, Listing},
    },
    procfs::Procfs,
};

/// Takes a snapshot and prints the processes; with `--watch` repeatedly.
pub fn run(args: &PsArgs) -> Result<ExitCode, Failure> {
    let sorts_by = |field| args.sort.is_some_and(|sort| sort.is_by(field));
    let asked = ViewRequest {
        past: &args.past,
        repeat: args.repeat,
        targets: &args.targets,
        holders: false,
        containers: processes::asks_for_containers(args.fields.as_ref()) || sorts_by(Field::Container),
        cgroups: match args.output {
            SnapshotOutput::Table => {
                processes::asks_for_cgroups(args.fields.as_ref()) || sorts_by(Field::Cgroup)
            }
            _ => args.fields.is_none() || processes::asks_for_cgroups(args.fields.as_ref()),
        },
        findings: false,
        shown: match args.output {
            SnapshotOutput::Table => Shown::Screen { headings: !args.no_headers },
            _ => Shown::Lines,
        },
        quiet: args.quiet,
    };
    view::show(&asked, |seen, to| write(args, seen, to))
}

/// The command-line arguments of each process. Empty for a recording, which does not contain them.
fn args_of(processes: &[&SnapshotProcess], snapshot: &Snapshot) -> ArgsOf {
    if snapshot.source == SnapshotSource::Recording {
        return ArgsOf::new();
    }
    let procfs = Procfs::default();
    let known = processes.iter().filter_map(|process| Some((process.pid, procfs.arguments(process.key()?)?)));
    known.collect()
}

fn write(args: &PsArgs, seen: &Seen<'_>, to: &mut dyn io::Write) -> io::Result<()> {
    let Seen { snapshot, forest: model, scope: from, findings: _ } = *seen;
    let PsArgs { targets: _, sort, fields, output, no_headers, repeat, screen, past: _, quiet: _ } = args;
    let processes: Vec<_> = match from {
        Some(scope) => scope.processes(snapshot, model),
        None => snapshot.processes.iter().collect(),
    };
    let has_args = fields.as_ref().is_some_and(|fields| fields.has(Field::Args));
    let args = match has_args || sort.is_some_and(|sort| sort.is_by(Field::Args)) {
        true => args_of(&processes, snapshot),
        false => ArgsOf::new(),
    };
    let mut listing = Listing { snapshot, forest: model, processes, args };
    if let Some(sort) = sort {
        listing.sort(*sort);
    }
    let form = if repeat.watch.is_some() { JsonForm::Line } else { JsonForm::Indented };
    match output {
        SnapshotOutput::Table => {
            let fields = fields.clone().unwrap_or_default();
            processes::table(&listing, &fields, !no_headers, terminal::screen(screen), to)
        }
        SnapshotOutput::Json => processes::json(&listing, fields.as_ref(), form, to),
    }
}
