//! `pidns-trace [trace]`: the live stream.

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use clap::ColorChoice;
use jiff::tz::TimeZone;
use rustix::stdio::stdout;

use super::{
    live::{self, Live},
    look,
};
use crate::{
    cli::{Output, TraceArgs, ViewArgs},
    failure::Failure,
    kernel::load,
    output::{Json, Style, Table, View},
    selection::{Asked, Selection},
    sink::Sink,
};

/// Runs the live stream to its end.
pub fn run(args: &TraceArgs) -> Result<ExitCode, Failure> {
    let TraceArgs { filters, stop, view: how, kernel } = args;
    let mut asked = Asked::of(filters, kernel.no_syscall_hooks);
    asked.namespaces = look::without_names(&asked.namespaces, kernel.runtime_api)?;
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
    live.run().map(|(_, code)| code)
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
