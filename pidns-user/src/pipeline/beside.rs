//! A consumer in a thread of its own, behind a queue: one that is slow then holds up nobody.

use std::{
    sync::{
        Arc,
        mpsc::{self, SyncSender, TrySendError},
    },
    thread::{self, JoinHandle},
};

use super::{Consumer, ConsumerError, Update, Wants};
use crate::{
    event::{Event, container::Container},
    model::Change,
};

/// Events that wait for a consumer, at most.
pub const QUEUE: usize = 10_000;

/// An update without the model, which is another's to change meanwhile.
struct Owned {
    event: Event,
    container: Option<Arc<Container>>,
    changes: Vec<Change>,
}

/// Feeds a consumer that runs in a thread of its own. What finds no room in its queue does not reach it: that is counted,
/// and told at the end.
pub struct Beside {
    name: &'static str,
    queue: Option<SyncSender<Owned>>,
    thread: Option<JoinHandle<Result<(), ConsumerError>>>,
    dropped: u64,
    over: bool,
}

impl Beside {
    /// Starts the thread, which is called `name`. The consumer gets updates without the model. Fails where no thread can be
    /// started.
    pub fn start(
        name: &'static str,
        queue: usize,
        mut consumer: impl Consumer + Send + 'static,
    ) -> std::io::Result<Self> {
        let (give, take) = mpsc::sync_channel::<Owned>(queue);
        let work = move || {
            consumer.begin();
            for Owned { event, container, changes } in take {
                let (container, changes) = (container.as_ref(), &changes[..]);
                let update = Update { event: &event, container, changes, world: None };
                if consumer.update(&update) == Wants::NoMore {
                    break;
                }
            }
            consumer.finish()
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(Self { name, queue: Some(give), thread: Some(thread), dropped: 0, over: false })
    }
}

impl Consumer for Beside {
    fn update(&mut self, update: &Update<'_>) -> Wants {
        let Some(queue) = self.queue.as_ref().filter(|_| !self.over) else { return Wants::NoMore };
        let owned = Owned {
            event: update.event.clone(),
            container: update.container.cloned(),
            changes: update.changes.to_vec(),
        };
        match queue.try_send(owned) {
            Ok(()) => Wants::More,
            Err(TrySendError::Full(_)) => {
                self.dropped += 1;
                Wants::More
            }
            // It has had enough, or has failed: its end says which.
            Err(TrySendError::Disconnected(_)) => {
                self.over = true;
                Wants::NoMore
            }
        }
    }

    fn finish(&mut self) -> Result<(), ConsumerError> {
        drop(self.queue.take());
        let ended = self.thread.take().map(JoinHandle::join);
        match ended {
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            Some(Ok(Err(error))) => Err(error),
            _ if self.dropped > 0 => Err(ConsumerError::Slow { name: self.name, dropped: self.dropped }),
            _ => Ok(()),
        }
    }
}
