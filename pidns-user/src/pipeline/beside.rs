//! A consumer in a thread of its own, behind a queue: one that is slow does not delay the others there.

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

/// Events that wait for a consumer, at most.
pub const QUEUE: usize = 10_000;

/// How long the end waits for a consumer to take what is in its queue.
const AT_THE_END: Duration = Duration::from_secs(1);

/// An update without the model, which changes meanwhile.
struct Owned {
    event: Event,
    container: Option<Arc<Container>>,
    changes: Vec<Change>,
}

/// Feeds a consumer that runs in a thread of its own. What finds no room in its queue, and what it has not taken from there a
/// second after the end, does not reach it: that is counted, and the end of the stream reports it.
pub struct Beside {
    name: &'static str,
    queue: Option<SyncSender<Owned>>,
    thread: Option<JoinHandle<Result<(), ConsumerError>>>,
    dropped: u64,
    queued: u64,
    /// How many of those that were queued the consumer is done with.
    taken: Arc<AtomicU64>,
    over: bool,
}

impl Beside {
    /// Starts the thread, which is called `name`. The consumer gets updates without the model, and no ticks and notices.
    /// Fails where no thread can be started.
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

impl Consumer for Beside {
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
            // It has had enough, or has failed: its end shows which.
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
            // It is left alone with what it is at, and ends with the process.
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
