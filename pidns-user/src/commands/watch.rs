//! `--watch`: the same look again and again, until Ctrl-C or until nobody reads it any more.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    process::{self, ExitCode},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use jiff::ZonedDateTime;

use crate::{failure::Failure, interrupts::Interrupts};

/// A second signal ended it while the output stood still.
const CUT_OFF: i32 = 130;

/// What a look has come to.
pub(super) enum Look {
    /// This is to be shown.
    Seen(Vec<u8>),
    /// What it was to look at is gone: these words say so.
    Gone(String),
}

/// Looks, shows, waits; and again. The first look comes before any thread is started: loading BPF programs wants none.
pub(super) fn repeat(
    interval: Duration,
    headings: bool,
    mut look: impl FnMut() -> Result<Look, Failure>,
) -> Result<ExitCode, Failure> {
    let mut seen = look()?;
    let end = await_signals()?;
    loop {
        match seen {
            Look::Gone(words) => {
                eprintln!("pidns-trace: {words}");
                return Ok(ExitCode::SUCCESS);
            }
            Look::Seen(text) => match show(&text, interval, headings) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
                Err(error) => return Err(Failure::Io { what: "write to standard output", error }),
                Ok(()) => {}
            },
        }
        match end.recv_timeout(interval) {
            Err(RecvTimeoutError::Timeout) => seen = look()?,
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// Says when a signal has asked for the end. A second one ends the program at once, whatever keeps it.
fn await_signals() -> Result<Receiver<()>, Failure> {
    let io = |error| Failure::Io { what: "wait for signals", error };
    let (ask, asked) = mpsc::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(io)?;
    let mut interrupts = runtime.block_on(async { Interrupts::new() }).map_err(io)?;
    let wait = move || {
        runtime.block_on(async {
            interrupts.next().await;
            // Who is not there to be told has ended.
            let _ = ask.send(());
            interrupts.next().await;
            process::exit(CUT_OFF)
        })
    };
    thread::Builder::new().name("signals".to_owned()).spawn(wait).map_err(io)?;
    Ok(asked)
}

/// On a terminal in the place of what was shown before, as much as fits; else one after the other.
fn show(text: &[u8], interval: Duration, headings: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if out.is_terminal()
        && let Some((rows, columns)) = terminal_size()
    {
        let heading = headings
            .then(|| format!("every {interval:?}, at {}\n\n", ZonedDateTime::now().strftime("%H:%M:%S")));
        let text = heading.unwrap_or_default() + &String::from_utf8_lossy(text);
        out.write_all(screen(&text, rows, columns).as_bytes())?;
    } else {
        out.write_all(text)?;
    }
    out.flush()
}

/// Rows and columns of the terminal that is the standard output.
fn terminal_size() -> Option<(usize, usize)> {
    // SAFETY: winsize is integers, for which zero is a value.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: size is live, and of the type that the request writes.
    let told = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) } == 0;
    (told && size.ws_row > 1 && size.ws_col > 1).then_some((size.ws_row.into(), size.ws_col.into()))
}

/// What makes a terminal show this from its upper left on, and nothing else: lines are cut off at its edge, and what has
/// no room below is counted. The last line is left without its end, which would scroll.
fn screen(text: &str, rows: usize, columns: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let shown = if lines.len() > rows { rows - 1 } else { lines.len() };
    let mut out = String::from("\x1b[H");
    for (index, line) in lines[..shown].iter().enumerate() {
        let end = line.char_indices().nth(columns).map_or(line.len(), |(end, _)| end);
        let _ = write!(out, "{}{}\x1b[K", if index > 0 { "\r\n" } else { "" }, &line[..end]);
    }
    if shown < lines.len() {
        let _ = write!(out, "\r\n({} more lines)\x1b[K", lines.len() - shown);
    }
    out + "\x1b[J"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_is_filled_and_never_scrolled() {
        assert_eq!(screen("a\nb\n", 3, 80), "\x1b[Ha\x1b[K\r\nb\x1b[K\x1b[J");
        assert_eq!(screen("→→→→\n", 3, 3), "\x1b[H→→→\x1b[K\x1b[J", "characters, not bytes");
        let full = screen("a\nb\nc\nd\n", 3, 80);
        assert_eq!(full, "\x1b[Ha\x1b[K\r\nb\x1b[K\r\n(2 more lines)\x1b[K\x1b[J");
        assert_eq!(full.matches('\n').count(), 2);
        assert_eq!(screen("", 3, 80), "\x1b[H\x1b[J");
    }
}
