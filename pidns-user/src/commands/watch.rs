//! `--watch`: repeats a view until Ctrl-C or until its reader is gone.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, IsTerminal as _},
    process::ExitCode,
    time::Duration,
};

use jiff::ZonedDateTime;
use rustix::stdio::stdout;
use unicode_width::UnicodeWidthChar as _;

use super::{ending::Ending, notices::Notices, terminal};
use crate::{
    commands::failure::Failure,
    output::sink::{Sink, Written},
};

/// The result of one snapshot.
pub(super) enum Frame {
    /// The output to show.
    Seen(Vec<u8>),
    /// The TARGET is gone; this is the message.
    Gone(String),
}

/// Layout of repeated snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// On a terminal: each snapshot overwrites the previous one.
    Screen {
        /// Whether to show the time of the snapshot.
        headings: bool,
    },
    /// All output, one snapshot after the other, for programs.
    Lines,
}

/// Takes a snapshot, shows it, waits, and repeats. The first snapshot comes before any thread is started, because
/// loading BPF programs needs a process with a single thread.
pub(super) fn repeat(
    interval: Duration,
    shown: Shown,
    notices: Notices,
    mut next_frame: impl FnMut() -> Result<Frame, Failure>,
) -> Result<ExitCode, Failure> {
    let mut seen = next_frame()?;
    let mut sink = Sink::new(stdout());
    let ending = Ending::listen(sink.progress())?;
    loop {
        match seen {
            Frame::Gone(text) => {
                notices.notify(text);
                return Ok(ExitCode::SUCCESS);
            }
            Frame::Seen(text) => sink.buffer().extend(laid_out(text, interval, shown)),
        }
        match sink.flush() {
            Written::All => {}
            Written::Closed => return Ok(ExitCode::SUCCESS),
            Written::Failed { error, .. } => {
                return Err(Failure::Io { what: "write to standard output", error });
            }
        }
        if ending.comes_within(interval) {
            return Ok(ExitCode::SUCCESS);
        }
        seen = next_frame()?;
    }
}

/// On a terminal: overwrites the previous output with as much as fits. Otherwise returns the text unchanged.
fn laid_out(text: Vec<u8>, interval: Duration, shown: Shown) -> Vec<u8> {
    let Shown::Screen { headings } = shown else { return text };
    let Some((rows, columns)) = terminal::size().filter(|_| io::stdout().is_terminal()) else { return text };
    let heading =
        headings.then(|| format!("every {interval:?}, at {}\n\n", ZonedDateTime::now().strftime("%H:%M:%S")));
    let text = heading.unwrap_or_default() + &String::from_utf8_lossy(&text);
    screen(&text, rows, columns).into_bytes()
}

/// Terminal output that fills the screen from its upper left corner. Lines are cut at the right edge, and lines that do
/// not fit are counted. The last line has no line feed, which would scroll the screen.
fn screen(text: &str, rows: usize, columns: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let shown = if lines.len() > rows { rows - 1 } else { lines.len() };
    let mut out = String::from("\x1b[H");
    for (index, line) in lines[..shown].iter().enumerate() {
        let _ = write!(out, "{}{}\x1b[K", if index > 0 { "\r\n" } else { "" }, cut(line, columns));
    }
    if shown < lines.len() {
        let _ = write!(out, "\r\n({} more lines)\x1b[K", lines.len() - shown);
    }
    out + "\x1b[J"
}

/// The part of a line that fits into `columns`. Some characters take two columns; some, and colour codes, take none.
fn cut(line: &str, columns: usize) -> Cow<'_, str> {
    let (mut taken, mut is_colour) = (0, false);
    let end = line.char_indices().find_map(|(end, c)| {
        let was_colour = is_colour;
        is_colour = c == '\x1b' || (is_colour && c != 'm');
        taken += if is_colour || was_colour { 0 } else { c.width().unwrap_or(0) };
        (taken > columns).then_some(end)
    });
    match end.map(|end| &line[..end]) {
        // Reset the colour, because its end is cut off.
        Some(shown) if shown.contains('\x1b') => Cow::Owned(format!("{shown}\x1b[0m")),
        Some(shown) => Cow::Borrowed(shown),
        None => Cow::Borrowed(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn screen_is_filled_and_never_scrolled() {
        assert_eq!(screen("a\nb\n", 3, 80), "\x1b[Ha\x1b[K\r\nb\x1b[K\x1b[J");
        assert_eq!(screen("→→→→\n", 3, 3), "\x1b[H→→→\x1b[K\x1b[J", "characters, not bytes");
        assert_eq!(screen("名前x\n", 3, 4), "\x1b[H名前\x1b[K\x1b[J", "columns, not characters");
        assert_eq!(screen("名前x\n", 3, 3), "\x1b[H名\x1b[K\x1b[J", "no half of one");
        assert_eq!(screen("e\u{301}e\n", 3, 2), "\x1b[He\u{301}e\x1b[K\x1b[J", "an accent takes none");
        assert_eq!(cut("\x1b[31mred\x1b[0m", 3), "\x1b[31mred\x1b[0m", "colours take none");
        assert_eq!(cut("\x1b[31mredder\x1b[0m", 3), "\x1b[31mred\x1b[0m", "and end where they are cut");
        let full = screen("a\nb\nc\nd\n", 3, 80);
        assert_eq!(full, "\x1b[Ha\x1b[K\r\nb\x1b[K\r\n(2 more lines)\x1b[K\x1b[J");
        assert_eq!(full.matches('\n').count(), 2);
        assert_eq!(screen("", 3, 80), "\x1b[H\x1b[J");
    }
}
