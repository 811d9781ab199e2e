//! Words about what is shown, for stderr: what is no error, and what `-q` silences.

use std::{
    fmt::Display,
    io::{self, Write as _},
};

/// Says them, or nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Notices {
    quiet: bool,
}

impl Notices {
    pub(crate) fn new(quiet: bool) -> Self {
        Self { quiet }
    }

    pub(crate) fn notify(self, words: impl Display) {
        if !self.quiet {
            // Whoever has closed stderr wants no words.
            let _ = writeln!(io::stderr(), "pidns-trace: {words}");
        }
    }
}
