//! Shows the progress of a recording in one terminal line that is overwritten.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use super::terminal::stderr_width;
use crate::{
    event::Body,
    model::World,
    output::{Cut, shorten},
    pipeline::{Consumer, ConsumerError, Update, Wants},
    text::Count,
};

/// Interval of updates.
const INTERVAL: Duration = Duration::from_secs(1);

/// Counts recorded events and shows the counts.
pub(super) struct Progress {
    began: Instant,
    printed: Instant,
    counts: Counts,
}

/// Counts so far.
#[derive(Debug, Default)]
struct Counts {
    events: u64,
    processes: u64,
    namespaces: u64,
    findings: u64,
    lost: u64,
}

impl Progress {
    /// Writes to stderr. `None` if stderr is no terminal or `-q` was given.
    pub(super) fn on_terminal(quiet: bool) -> Option<Self> {
        let now = Instant::now();
        let shows = !quiet && io::stderr().is_terminal();
        shows.then(|| Self { began: now, printed: now, counts: Counts::default() })
    }
}

impl Consumer for Progress {
    fn update(&mut self, update: &Update<'_>) -> Wants {
        self.counts.follow(&update.event.body);
        Wants::Along
    }

    fn tick(&mut self, _: Option<&World>) -> Wants {
        if self.printed.elapsed() >= INTERVAL {
            self.printed = Instant::now();
            let line = self.counts.line(self.began.elapsed());
            // Cut the line: a wrapped line could not be overwritten. A closed stderr is no failure.
            let _ = write!(io::stderr(), "\r\x1b[K{}", shorten(&line, columns() - 1, Cut::End));
        }
        Wants::Along
    }

    fn finish(&mut self) -> Result<(), ConsumerError> {
        // Clear the line: the summary follows.
        let _ = write!(io::stderr(), "\r\x1b[K");
        Ok(())
    }
}

/// Number of columns of the terminal on stderr.
fn columns() -> usize {
    /// Used if the terminal does not report its width.
    const USUAL: usize = 80;
    stderr_width().unwrap_or(USUAL)
}

impl Counts {
    fn follow(&mut self, body: &Body) {
        match body {
            Body::StreamLost { count, .. } => self.lost = self.lost.saturating_add(*count),
            Body::StreamStart { .. }
            | Body::StreamEnd { .. }
            | Body::StreamResync { .. }
            | Body::SnapshotNamespace { .. }
            | Body::SnapshotProcess { .. } => {}
            body => {
                self.events += 1;
                self.namespaces += u64::from(matches!(body, Body::NamespaceCreate { .. }));
                self.processes += u64::from(matches!(body, Body::ProcessFork { .. }));
                self.findings += u64::from(matches!(body, Body::Finding { .. }));
            }
        }
    }

    fn line(&self, elapsed: Duration) -> String {
        let Self { events, processes, namespaces, findings, lost } = *self;
        let mut line = format!(
            "{} s: {}, {} created, {} forked",
            elapsed.as_secs(),
            Count(events, "event", "events"),
            Count(namespaces, "namespace", "namespaces"),
            Count(processes, "process", "processes")
        );
        if findings > 0 {
            let _ = write!(line, ", {}", Count(findings, "finding", "findings"));
        }
        if lost > 0 {
            let _ = write!(line, ", {lost} LOST");
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_counts_events_and_losses() {
        let mut counts = Counts::default();
        assert_eq!(counts.line(Duration::ZERO), "0 s: 0 events, 0 namespaces created, 0 processes forked");
        counts.follow(&Body::StreamLost { stage: "ring".into(), count: 5 });
        counts.follow(&Body::StreamResync { added: 1, removed: 0, changed: 0 });
        assert_eq!((counts.events, counts.lost), (0, 5), "frame events do not count");
        counts.events = 1;
        assert!(counts.line(Duration::from_millis(2_500)).starts_with("2 s: 1 event, "));
        assert!(counts.line(Duration::ZERO).ends_with(", 5 LOST"));
    }
}
