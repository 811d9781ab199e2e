//! `pidns-trace [trace]`: the live stream.

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use clap::ColorChoice;
use jiff::tz::TimeZone;
use rustix::stdio::stdout;

use super::{
    eyes::Eyes,
    find,
    live::{self, Live},
    voice::Voice,
};
use crate::{
    cli::{Kernel, Output, TraceArgs, ViewArgs},
    failure::Failure,
    kernel::load,
    model::Forest,
    output::{Json, Style, Table, View},
    selection::{Asked, Selection},
    sink::Sink,
    target::Words,
};

/// Runs the live stream to its end.
pub fn run(args: &TraceArgs) -> Result<ExitCode, Failure> {
    let TraceArgs { filters, stop, view: how, kernel } = args;
    let mut asked = Asked::of(filters, kernel.no_syscall_hooks);
    asked.namespaces = without_names(&asked.namespaces, kernel)?;
    let selection = Selection::new(&asked)?;
    let is_followed = filters.snapshot || kernel.verify_interval.is_some();
    let existing = if is_followed {
        load::check_privileges()?;
        Some(live::existing(kernel)?)
    } else {
        None
    };
    let open = Box::new(|| Ok(Sink::new(stdout())));
    let live = Live { kernel, selection, stop, view: view(how), open, existing };
    live.run()
}

/// TARGETs of a stream's filter, with the names of containers turned into the numbers of their namespaces.
fn without_names(targets: &[String], kernel: &Kernel) -> Result<Vec<String>, Failure> {
    let is_name = |target: &str| matches!(Words::of(target), Ok(Words::Name(_)));
    if !targets.iter().any(|target| is_name(target)) {
        return Ok(targets.to_vec());
    }
    let mut eyes = Eyes::before_a_stream(kernel.runtime_api, Voice::new(kernel.quiet));
    let mut snapshot = eyes.snapshot(false)?;
    eyes.name_containers(&mut snapshot);
    // With them ends the thread that asks daemons: it has all privileges, and loading wants no other thread.
    drop(eyes);
    let forest = Forest::new(&snapshot);
    let number = |target: &String| match is_name(target) {
        true => match find::namespace(target, &snapshot, &forest) {
            // As a PID of nobody: there is nothing that the stream could be of.
            Err(Failure::NoMatch(words)) => Err(Failure::Usage(format!("--ns: {words}"))),
            found => found.map(|inum| inum.to_string()),
        },
        false => Ok(target.clone()),
    };
    targets.iter().map(number).collect()
}

/// The view that these options ask for.
pub(super) fn view(args: &ViewArgs) -> Box<dyn View + Send> {
    match args.output {
        Output::Json => Box::new(Json),
        Output::Table => {
            let colour = match args.color {
                ColorChoice::Always => true,
                ColorChoice::Never => false,
                ColorChoice::Auto => {
                    io::stdout().is_terminal()
                        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
                }
            };
            let style = if colour { Style::Colour } else { Style::Plain };
            Box::new(Table::new(TimeZone::system(), style, !args.no_headers))
        }
    }
}
