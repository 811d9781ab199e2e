//! Views of events: one a file, each writes to any [`std::io::Write`].

mod json;
mod table;

use std::io;

use crate::event::Event;

pub use json::Json;
pub use table::{Style, Table};

/// A view of a stream.
pub trait View {
    /// Writes what stands before the first event.
    fn begin(&mut self, to: &mut dyn io::Write) -> io::Result<()>;
    /// Writes one event, if this view shows it (a table has no line for the frame of a stream).
    fn event(&mut self, event: &Event, to: &mut dyn io::Write) -> io::Result<()>;
}
