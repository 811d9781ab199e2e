//! Messages on stderr that are no errors, and that `-q` silences.

use std::{
    fmt::Display,
    io::{self, Write as _},
};

use super::unread;
use crate::{
    pipeline::{Consumer, Update, Wants},
    source::observer::Notice,
};

/// Prints notices, or nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Notices {
    quiet: bool,
}

impl Notices {
    pub(crate) fn new(quiet: bool) -> Self {
        Self { quiet }
    }

    /// Prints one line.
    pub(crate) fn notify(self, message: impl Display) {
        if !self.quiet {
            // A closed stderr means that no notices are wanted.
            let _ = writeln!(io::stderr(), "pidns-trace: {message}");
        }
    }

    /// Prints the notices of a snapshot.
    pub(crate) fn notice(self, notice: &Notice) {
        messages(notice).into_iter().for_each(|message| self.notify(message));
    }
}

/// The lines of a notice.
pub(super) fn messages(notice: &Notice) -> Vec<String> {
    match notice {
        Notice::NoIterator(why) => vec![why.to_string()],
        Notice::LeftOut(error) => {
            vec![format!("cannot read /proc: {error}: what the task iterator left out is missing")]
        }
        Notice::Unread(unread) => {
            let privilege = unread::about(unread, rustix::process::geteuid().is_root());
            privilege.into_iter().chain(unread::about_servers(unread)).collect()
        }
        Notice::Unnamed(procs) => unread::about_procs(procs),
    }
}

impl Consumer for Notices {
    /// It wants no event: a stream does not go on for its sake.
    fn update(&mut self, _: &Update<'_>) -> Wants {
        Wants::NoMore
    }

    fn tick(&mut self, _: Option<&crate::model::World>) -> Wants {
        Wants::NoMore
    }

    fn notice(&mut self, notice: &Notice) {
        Self::notice(*self, notice);
    }
}
