//! Views of events and of snapshots, one per file. Each writes to any [`std::io::Write`].

mod columns;
pub mod dot;
pub mod explain;
pub mod fields;
pub mod findings;
mod fit;
pub mod forest;
mod json;
pub mod levels;
mod phrases;
pub mod printer;
pub mod processes;
mod refusals;
mod rows;
mod screen;
pub mod sink;
pub mod table;
mod teardown;
pub mod wrap;

use std::io;

use serde::Serialize;

use crate::{event::Event, event::container::Container, text::JsonText};

pub use fit::{Cut, shorten};
pub use json::Json;
pub use screen::{Paint, Screen, Style};
pub use table::Table;

/// A view of a stream.
pub trait View {
    /// Writes the heading, if the view has one.
    fn begin(&mut self, to: &mut dyn io::Write) -> io::Result<()>;
    /// Writes one event, if this view shows it (a table has no lines for `stream.start` and `stream.end`). `seq` is its
    /// number in this output, `container` the container of its namespace.
    fn event(
        &mut self,
        seq: u64,
        event: &Event,
        container: Option<&Container>,
        to: &mut dyn io::Write,
    ) -> io::Result<()>;
}

/// Layout of a JSON document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonForm {
    /// One member per line, for a single document.
    Indented,
    /// All in one line, for several documents.
    Line,
}

/// Writes one JSON document.
fn document(document: &impl Serialize, form: JsonForm, to: &mut dyn io::Write) -> io::Result<()> {
    let written = match form {
        JsonForm::Indented => serde_json::to_writer_pretty(JsonText(&mut *to), document),
        JsonForm::Line => serde_json::to_writer(JsonText(&mut *to), document),
    };
    written.map_err(io::Error::from)?;
    to.write_all(b"\n")
}
