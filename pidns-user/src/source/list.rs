//! A source that reads events from a list. For tests of consumers.

use std::collections::VecDeque;

use super::{Progress, Source, SourceError};
use crate::event::identity::BootNs;
use crate::event::{Body, Event};

/// Passes its events on in batches.
#[derive(Debug)]
pub struct List {
    events: VecDeque<Event>,
    batch: usize,
    last: Option<Event>,
}

impl List {
    /// A source of these events, with this many in each read.
    pub fn new(events: impl IntoIterator<Item = Event>, batch: usize) -> Self {
        Self { events: events.into_iter().collect(), batch: batch.max(1), last: None }
    }
}

impl Source for List {
    fn read(&mut self, each: &mut dyn FnMut(&mut [Event])) -> Result<Progress, SourceError> {
        for _ in 0..self.batch {
            let Some(mut event) = self.events.pop_front() else { return Ok(Progress::End) };
            self.last = Some(event.clone());
            each(std::slice::from_mut(&mut event));
        }
        Ok(if self.events.is_empty() { Progress::End } else { Progress::More })
    }

    fn stop(&mut self) {
        self.events.clear();
    }

    fn now(&self) -> BootNs {
        self.last.as_ref().map(|last| last.boot_ns).unwrap_or_default()
    }

    fn event_at(&mut self, boot_ns: BootNs, body: Body) -> Event {
        let (seq, time, boot_ns) = match &self.last {
            Some(last) => (last.seq + 1, last.time, boot_ns.max(last.boot_ns)),
            None => (1, jiff::Timestamp::UNIX_EPOCH, boot_ns),
        };
        let event = Event { seq, time, boot_ns, exact: true, body };
        self.last = Some(event.clone());
        event
    }
}
