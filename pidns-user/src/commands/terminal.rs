//! The terminal on standard output.

use std::io::{self, IsTerminal as _};

use rustix::{
    stdio::{stderr, stdout},
    termios::tcgetwinsize,
};

use crate::{
    cli::ScreenArgs,
    output::{Screen, Style},
};

/// Layout for standard output, as the terminal is now. A pipe or a file gets full lines, regardless of COLUMNS.
pub(super) fn screen(args: &ScreenArgs) -> Screen {
    let is_terminal = io::stdout().is_terminal();
    let width = (is_terminal && !args.wide).then(width).flatten();
    let style = if args.has_colour(is_terminal) { Style::Colour } else { Style::Plain };
    Screen { width, style }
}

/// Columns of the terminal, or COLUMNS if the terminal reports none (a serial console).
fn width() -> Option<usize> {
    let columns = || std::env::var("COLUMNS").ok()?.parse::<u16>().ok().filter(|columns| *columns > 0);
    let columns = || columns().map(usize::from);
    size().map(|(_, columns)| columns).or_else(columns)
}

/// Columns of the terminal on stderr; `None` if it is no terminal, or reports none.
pub(super) fn stderr_width() -> Option<usize> {
    let size = io::stderr().is_terminal().then(|| tcgetwinsize(stderr()).ok()).flatten()?;
    (size.ws_col > 1).then_some(size.ws_col.into())
}

/// Rows and columns of the terminal on standard output.
pub(super) fn size() -> Option<(usize, usize)> {
    let size = tcgetwinsize(stdout()).ok()?;
    (size.ws_row > 1 && size.ws_col > 1).then_some((size.ws_row.into(), size.ws_col.into()))
}
