//! Messages on stderr that are not errors. `-q` silences them.

use std::{
    fmt::Display,
    io::{self, Write as _},
};

use super::{terminal, unread};
use crate::{
    output::wrap,
    pipeline::{Consumer, Update, Wants},
    source::observer::Notice,
};

/// Prints notices unless it is quiet.
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
            write(message);
        }
    }

    /// Prints the notices of a snapshot.
    pub(crate) fn notice(self, notice: &Notice) {
        messages(notice).into_iter().for_each(|message| self.notify(message));
    }
}

/// Writes a notice or an error to stderr. On a terminal its lines are broken at blanks.
pub fn write(message: impl Display) {
    const START: &str = "pidns-trace: ";
    const INDENT: usize = 2;
    let mut text = Vec::new();
    // Writing to memory cannot fail.
    let _ =
        wrap::write((START, START.len()), &message.to_string(), INDENT, terminal::stderr_width(), &mut text);
    // A closed stderr means that no notices are wanted; after an error, the exit code remains.
    let _ = io::stderr().write_all(&text);
}

/// The lines of a notice.
pub(super) fn messages(notice: &Notice) -> Vec<String> {
    match notice {
        Notice::NoIterator(why) => vec![why.to_string()],
        Notice::LeftOut(error) => {
            vec![format!("cannot read /proc: {error}: processes that the task iterator omitted are missing")]
        }
        Notice::Unread(unread) => {
            let privilege = unread::about(unread, rustix::process::geteuid().is_root());
            privilege.into_iter().chain(unread::about_servers(unread)).collect()
        }
        Notice::Unnamed(procs) => unread::about_procs(procs),
    }
}

impl Consumer for Notices {
    /// Needs no events: a stream does not continue only for notices.
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
