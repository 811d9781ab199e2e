//! Consumers of events: the printer, a recorder, metrics.

use std::{io, sync::Arc};

use crate::{
    event::{Body, Event, container::Container, identity::BootNs},
    model::{Change, World},
    source::observer::Notice,
};

/// An event with its context. It is made once and lent to every consumer.
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    /// The event. Its number counts all events of the source.
    pub event: &'a Event,
    /// The container of the namespace that it belongs to.
    pub container: Option<&'a Arc<Container>>,
    /// Changes that it made in the model. Empty in [`Consumer::prepare`].
    pub changes: &'a [Change],
    /// The model after the events so far; `None` if nothing is followed.
    pub world: Option<&'a World>,
}

/// The events that a consumer still wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// More events.
    More,
    /// More events, as long as another consumer wants some. The stream does not continue only for this consumer.
    Along,
    /// No more events.
    NoMore,
    /// The consumer has failed. It only counts further events, and [`Consumer::finish`] reports how many were lost.
    Count,
}

/// Why a consumer has failed.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// Events could not be written.
    #[error("write the output: {error}")]
    Output {
        /// The error.
        error: io::Error,
        /// Number of events that were not written completely.
        unwritten: u64,
    },
    /// The consumer was slower than the events, and must not delay others.
    #[error("{name} did not keep up: {dropped} events did not reach it")]
    Slow {
        /// Name of the consumer.
        name: &'static str,
        /// Number of events that did not reach it.
        dropped: u64,
    },
}

/// Receives the updates of a pipeline. A consumer that fails, or wants no more, does not affect the others.
pub trait Consumer {
    /// Called when the stream begins.
    fn begin(&mut self) {}

    /// Called before an event changes the model. Filters need the state before, because an exiting process is gone
    /// afterwards.
    fn prepare(&mut self, _update: &Update<'_>) {}

    /// Called after an event has changed the model.
    fn update(&mut self, update: &Update<'_>) -> Wants;

    /// Called after a batch of events, or when nothing has happened for a short while.
    fn tick(&mut self, _world: Option<&World>) -> Wants {
        Wants::More
    }

    /// Events of the consumer itself, with their times. They go to all consumers, like the source's. Called after
    /// `tick`; all events up to `now` have been passed on.
    fn own_events(&mut self, _world: Option<&World>, _now: BootNs) -> Vec<(BootNs, Body)> {
        Vec::new()
    }

    /// Whether it needs a new snapshot of the processes, because no events report them. Called after `own_events`.
    fn needs_snapshot(&self) -> bool {
        false
    }

    /// Called for a message that is not an event.
    fn notice(&mut self, _notice: &Notice) {}

    /// Called after the last event.
    fn finish(&mut self) -> Result<(), ConsumerError> {
        Ok(())
    }
}
