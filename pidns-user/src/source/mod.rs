//! Sources of events: the running kernel, a recording, or a list. Also takes snapshots.

pub mod kinds;
#[cfg(any(test, feature = "test-tools"))]
pub mod list;
pub mod live;
pub mod observer;
pub mod recording;
mod refusals;
pub mod replay;
pub mod snapshots;
pub mod translate;

use std::io;

use crate::{
    event::{Body, Event, Process, identity::BootNs},
    kernel::error::LoadError,
};
use recording::Damage;

/// State of a source after a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More events are available now.
    More,
    /// No more events for now.
    Idle,
    /// No more events at all.
    End,
}

/// Why a source cannot be read further.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Waiting for the ring buffer failed.
    #[error("wait for the ring buffer: {0}")]
    Wait(io::Error),
    /// Reading the kernel side failed.
    #[error(transparent)]
    Kernel(#[from] LoadError),
    /// The rest of a recording cannot be read.
    #[error(transparent)]
    Recording(#[from] Damage),
}

/// A source of events in the order of their times.
pub trait Source {
    /// Passes on what has happened since the last call, oldest first. Events of one moment, such as a namespace and its
    /// init, are passed on together. If there is nothing, it waits a short while.
    fn read(&mut self, each: &mut dyn FnMut(&mut [Event])) -> Result<Progress, SourceError>;

    /// Takes over what has happened without passing it on; the next [`Source::read`] does that. The pipeline calls it
    /// while a snapshot is being taken and passed on, so that the kernel's ring buffer does not overflow. With `waits`,
    /// it waits a short while if there is nothing.
    fn hold(&mut self, _waits: bool) -> Result<(), SourceError> {
        Ok(())
    }

    /// Stops the source. Later reads pass on what is left, until [`Progress::End`].
    fn stop(&mut self);

    /// Whether it is the running kernel, which sends the events that are followed. A recording only has those that its
    /// `stream.start` lists.
    fn is_live(&self) -> bool {
        false
    }

    /// All events up to this time were passed on.
    fn now(&self) -> BootNs;

    /// Makes an event of the pipeline itself. Its time is `boot_ns`, or that of the last event if that is later.
    fn event_at(&mut self, boot_ns: BootNs, body: Body) -> Event;

    /// Tells the source about a zombie that a snapshot found. A source that reports reaps checks it from then on,
    /// because no hook may see it being reaped.
    fn found_zombie(&mut self, _process: &Process) {}

    /// The last event of the stream: a `stream.end` with the current time and the source's own counts. `None` if the
    /// source's events already contain their end.
    fn end(&mut self) -> Option<Event> {
        None
    }
}
