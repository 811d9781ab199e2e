//! The terminal that the standard output may be.

use std::io::{self, IsTerminal as _};

use rustix::{stdio::stdout, termios::tcgetwinsize};

use crate::{
    cli::ScreenArgs,
    output::{Screen, Style},
};

/// What a view on standard output is laid out for, as the terminal is now. A pipe or a file gets everything, regardless of COLUMNS.
pub(super) fn screen(args: &ScreenArgs) -> Screen {
    let is_terminal = io::stdout().is_terminal();
    let width = (is_terminal && !args.wide).then(width).flatten();
    let style = if args.has_colour(is_terminal) { Style::Colour } else { Style::Plain };
    Screen { width, style }
}

/// Columns of the terminal: where it has none (a serial console), those of COLUMNS.
fn width() -> Option<usize> {
    let columns = || std::env::var("COLUMNS").ok()?.parse::<u16>().ok().filter(|columns| *columns > 0);
    let columns = || columns().map(usize::from);
    size().map(|(_, columns)| columns).or_else(columns)
}

/// Rows and columns of the terminal that is the standard output.
pub(super) fn size() -> Option<(usize, usize)> {
    let size = tcgetwinsize(stdout()).ok()?;
    (size.ws_row > 1 && size.ws_col > 1).then_some((size.ws_row.into(), size.ws_col.into()))
}
