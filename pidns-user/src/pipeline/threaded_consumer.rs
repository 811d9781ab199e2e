//! Runs a consumer in its own thread, behind a queue, so that a slow consumer does not delay the others.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, SyncSender, TrySendError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{Consumer, ConsumerError, Update, Wants};
use crate::{
    event::{Event, container::Container},
    model::Change,
};

/// Capacity of a consumer's queue, in events.
pub const QUEUE: usize = 10_000;

/// The end waits at most this long for a consumer to empty its queue.
const AT_THE_END: Duration = Duration::from_secs(1);

/// An update without the model, because the model changes meanwhile.
struct Owned {
    event: Event,
    container: Option<Arc<Container>>,
    changes: Vec<Change>,
}

/// Feeds a consumer in its own thread. Events that do not fit into its queue, and events that are still there a second
/// after the end, are dropped. They are counted, and the end of the stream reports them.
pub struct ThreadedConsumer {
    name: &'static str,
    queue: Option<SyncSender<Owned>>,
    thread: Option<JoinHandle<Result<(), ConsumerError>>>,
    dropped: u64,
    queued: u64,
    /// Number of queued events that the consumer has finished.
    taken: Arc<AtomicU64>,
    over: bool,
}

impl ThreadedConsumer {
    /// Starts a thread with this name. The consumer gets updates without the model, and no ticks or notices. Fails if
    /// no thread can be started.
    pub fn start(
        name: &'static str,
        queue: usize,
        mut consumer: impl Consumer + Send + 'static,
    ) -> std::io::Result<Self> {
        let (give, take) = mpsc::sync_channel::<Owned>(queue);
        let taken = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&taken);
        let work = move || {
            consumer.begin();
            for Owned { event, container, changes } in take {
                let (container, changes) = (container.as_ref(), &changes[..]);
                let update = Update { event: &event, container, changes, world: None };
                let wants = consumer.update(&update);
                counter.fetch_add(1, Ordering::Relaxed);
                if wants == Wants::NoMore {
                    break;
                }
            }
            consumer.finish()
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(Self { name, queue: Some(give), thread: Some(thread), dropped: 0, queued: 0, taken, over: false })
    }
}

impl Consumer for ThreadedConsumer {
    fn update(&mut self, update: &Update<'_>) -> Wants {
        let Some(queue) = self.queue.as_ref().filter(|_| !self.over) else { return Wants::NoMore };
        let owned = Owned {
            event: update.event.clone(),
            container: update.container.cloned(),
            changes: update.changes.to_vec(),
        };
        match queue.try_send(owned) {
            Ok(()) => {
                self.queued += 1;
                Wants::More
            }
            Err(TrySendError::Full(_)) => {
                self.dropped += 1;
                Wants::More
            }
            // The consumer wants no more, or has failed. `finish` shows which.
            Err(TrySendError::Disconnected(_)) => {
                self.over = true;
                Wants::NoMore
            }
        }
    }

    fn finish(&mut self) -> Result<(), ConsumerError> {
        drop(self.queue.take());
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let deadline = Instant::now() + AT_THE_END;
        while !thread.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        if !thread.is_finished() {
            // Abandon the thread. It ends with the process.
            let waiting = self.queued.saturating_sub(self.taken.load(Ordering::Relaxed));
            return Err(ConsumerError::Slow { name: self.name, dropped: self.dropped + waiting });
        }
        match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) if self.dropped > 0 => {
                Err(ConsumerError::Slow { name: self.name, dropped: self.dropped })
            }
            Ok(Ok(())) => Ok(()),
        }
    }
}
