//! Words about what is shown, for stderr: what is no error, and what `-q` silences.

use std::{
    fmt::Display,
    io::{self, Write as _},
};

/// Says them, or nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Voice {
    quiet: bool,
}

impl Voice {
    pub(super) fn new(quiet: bool) -> Self {
        Self { quiet }
    }

    pub(super) fn say(self, words: impl Display) {
        if !self.quiet {
            // Whoever has closed stderr wants no words.
            let _ = writeln!(io::stderr(), "pidns-trace: {words}");
        }
    }
}
