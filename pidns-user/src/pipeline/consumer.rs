//! What a consumer of events is: the printer, a recorder, metrics.

use std::{io, sync::Arc};

use crate::{
    event::{Body, Event, container::Container, identity::BootNs},
    model::{Change, World},
    source::observer::Notice,
};

/// An event with what belongs to it. It is made once and lent to every consumer.
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    /// The event. Its number is its place among all events of the source.
    pub event: &'a Event,
    /// The container of the namespace that it belongs to.
    pub container: Option<&'a Arc<Container>>,
    /// What it changed in the model; nothing in [`Consumer::prepare`].
    pub changes: &'a [Change],
    /// What exists by the events so far; `None` where nothing is followed.
    pub world: Option<&'a World>,
}

/// What a consumer wants from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// More events.
    More,
    /// What others want: the stream does not go on for its sake.
    Along,
    /// No more events.
    NoMore,
    /// It has failed. It counts the events that follow, for [`Consumer::finish`] to report how many were lost by that.
    Count,
}

/// Why a consumer has failed.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// Events could not be written.
    #[error("write the output: {error}")]
    Output {
        /// What came back.
        error: io::Error,
        /// How many events are not, or not wholly, written.
        unwritten: u64,
    },
    /// It did not keep up with the events, and was not to hold up others.
    #[error("{name} did not keep up: {dropped} events did not reach it")]
    Slow {
        /// Which consumer.
        name: &'static str,
        /// How many.
        dropped: u64,
    },
}

/// Takes what the pipeline makes of a source's events. One that fails, or wants no more, changes nothing for the others.
pub trait Consumer {
    /// The stream begins.
    fn begin(&mut self) {}

    /// An event is about to change the model: a filter reads the state before, as a process that exits is gone
    /// afterwards.
    fn prepare(&mut self, _update: &Update<'_>) {}

    /// An event, after it has changed the model.
    fn update(&mut self, update: &Update<'_>) -> Wants;

    /// A batch of events is over, or nothing has happened for a short while.
    fn tick(&mut self, _world: Option<&World>) -> Wants {
        Wants::More
    }

    /// Events of its own, with their times: they go the way of the source's, to all consumers. Comes behind `tick`; all events up
    /// to `now` have been handed over.
    fn own_events(&mut self, _world: Option<&World>, _now: BootNs) -> Vec<(BootNs, Body)> {
        Vec::new()
    }

    /// Something was found out that is no event.
    fn notice(&mut self, _notice: &Notice) {}

    /// There are no more events.
    fn finish(&mut self) -> Result<(), ConsumerError> {
        Ok(())
    }
}
