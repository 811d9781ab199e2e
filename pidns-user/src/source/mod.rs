//! Where events come from: the running kernel, a recording, or a list; and how snapshots are taken.

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

/// How far a source has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More is there already.
    More,
    /// This is all for now.
    Idle,
    /// This was all.
    End,
}

/// Why a source cannot be read any further.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The ring buffer cannot be waited for.
    #[error("wait for the ring buffer: {0}")]
    Wait(io::Error),
    /// The kernel side cannot be read.
    #[error(transparent)]
    Kernel(#[from] LoadError),
    /// The rest of a recording cannot be read.
    #[error(transparent)]
    Recording(#[from] Damage),
}

/// Gives events, in the order of their times.
pub trait Source {
    /// Hands over what has happened since the last call, oldest first: together what came to be at once, as a namespace and
    /// its init do. Waits a short while where there is nothing.
    fn read(&mut self, each: &mut dyn FnMut(&mut [Event])) -> Result<Progress, SourceError>;

    /// Takes over what has happened and hands over nothing: the next [`Source::read`] does. The pipeline calls it while a
    /// snapshot is taken, and while it is handed on, so that the kernel's ring buffer does not run over meanwhile. With `waits` it
    /// waits a short while where there is nothing.
    fn hold(&mut self, _waits: bool) -> Result<(), SourceError> {
        Ok(())
    }

    /// No more is to happen: the reads that follow hand over what is left, up to [`Progress::End`].
    fn stop(&mut self);

    /// Whether it is the running kernel, which sends what is followed. A recording has what its `stream.start` lists.
    fn is_live(&self) -> bool {
        false
    }

    /// The moment up to which all events were handed over.
    fn now(&self) -> BootNs;

    /// An event of the pipeline's own, at this time, or at that of the last event where that is later.
    fn event_at(&mut self, boot_ns: BootNs, body: Body) -> Event;

    /// A snapshot has found this zombie. A source that reports reapings asks after it: no hook may ever see this one go.
    fn found_zombie(&mut self, _process: &Process) {}

    /// What a stream of this source ends with, behind all else: `stream.end` of this moment, with the source's own counts.
    /// `None` where its events have their end among them.
    fn end(&mut self) -> Option<Event> {
        None
    }
}
