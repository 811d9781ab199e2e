//! `--watch`: the same view again and again, until Ctrl-C or until its reader is gone.

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
    /// This is to be shown.
    Seen(Vec<u8>),
    /// Its TARGET is gone: the message for that.
    Gone(String),
}

/// How snapshots follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// On a terminal each takes the place of the one before, with a heading or not.
    Screen {
        /// Whether it shows the time of the snapshot.
        headings: bool,
    },
    /// One after the other, whole: they are for programs.
    Lines,
}

/// Takes a snapshot, shows it, waits; and again. The first snapshot comes before any thread is started: loading BPF programs wants none.
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

/// On a terminal in the place of what was shown before, as much as fits; else as it is.
fn laid_out(text: Vec<u8>, interval: Duration, shown: Shown) -> Vec<u8> {
    let Shown::Screen { headings } = shown else { return text };
    let Some((rows, columns)) = terminal::size().filter(|_| io::stdout().is_terminal()) else { return text };
    let heading =
        headings.then(|| format!("every {interval:?}, at {}\n\n", ZonedDateTime::now().strftime("%H:%M:%S")));
    let text = heading.unwrap_or_default() + &String::from_utf8_lossy(&text);
    screen(&text, rows, columns).into_bytes()
}

/// What makes a terminal show this from its upper left on, and nothing else: lines are cut off at its edge, and what has
/// no room below is counted. The last line is left without its end, which would scroll.
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

/// As much of a line as has room in so many columns: some characters take two, some none, and so do those that set colours.
fn cut(line: &str, columns: usize) -> Cow<'_, str> {
    let (mut taken, mut is_colour) = (0, false);
    let end = line.char_indices().find_map(|(end, c)| {
        let was_colour = is_colour;
        is_colour = c == '\x1b' || (is_colour && c != 'm');
        taken += if is_colour || was_colour { 0 } else { c.width().unwrap_or(0) };
        (taken > columns).then_some(end)
    });
    match end.map(|end| &line[..end]) {
        // The colour that is cut off from its end would go on below.
        Some(shown) if shown.contains('\x1b') => Cow::Owned(format!("{shown}\x1b[0m")),
        Some(shown) => Cow::Borrowed(shown),
        None => Cow::Borrowed(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_is_filled_and_never_scrolled() {
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
