//! Takes snapshots in parallel with the stream, so that the stream's thread keeps reading.

use std::{
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError},
    thread,
    time::Duration,
};

use super::observer::{Observed, Observer, SnapshotError};

/// Takes snapshots.
pub trait Snapshots: Send {
    /// Begins a snapshot. With holders of namespaces it takes longer. An unfinished earlier snapshot is discarded.
    fn begin(&mut self, with_holders: bool);

    /// Returns the snapshot if it is ready within this time. If it is taken in the caller's thread, `between` is called
    /// every few milliseconds.
    fn poll(&mut self, wait: Duration, between: &mut dyn FnMut()) -> Option<Result<Observed, SnapshotError>>;
}

/// Takes snapshots in a separate thread, or in the caller's if no thread can be started (for example because a pids
/// cgroup is full).
pub fn start(observer: Observer) -> Box<dyn Snapshots> {
    match SnapshotThread::start(observer) {
        Ok(thread) => Box::new(thread),
        Err(observer) => Box::new(InTurn { observer, begun: None }),
    }
}

/// Takes snapshots in its own thread. After this is dropped, the thread ends when its current snapshot is finished.
struct SnapshotThread {
    ask: Sender<(u64, bool)>,
    taken: Receiver<(u64, Result<Observed, SnapshotError>)>,
    /// Number of the last snapshot that was begun.
    number: u64,
}

impl SnapshotThread {
    /// Starts the thread. Returns the observer if none can be started.
    fn start(observer: Observer) -> Result<Self, Box<Observer>> {
        let (ask, asked) = mpsc::channel::<(u64, bool)>();
        let (give, taken) = mpsc::channel();
        let (hand_over, handed_over) = mpsc::channel::<Observer>();
        let work = move || {
            let Ok(mut observer) = handed_over.recv() else { return };
            while let Ok((number, with_holders)) = asked.recv() {
                if give.send((number, observer.snapshot(with_holders, &mut || {}))).is_err() {
                    return;
                }
            }
        };
        match thread::Builder::new().name("snapshots".to_owned()).spawn(work) {
            Ok(_) => match hand_over.send(observer) {
                Ok(()) => Ok(Self { ask, taken, number: 0 }),
                Err(unsent) => Err(Box::new(unsent.0)),
            },
            Err(_) => Err(Box::new(observer)),
        }
    }
}

impl Snapshots for SnapshotThread {
    fn begin(&mut self, with_holders: bool) {
        // `poll` notices if the thread has ended.
        self.number += 1;
        let _ = self.ask.send((self.number, with_holders));
    }

    fn poll(&mut self, wait: Duration, _: &mut dyn FnMut()) -> Option<Result<Observed, SnapshotError>> {
        loop {
            let taken = if wait.is_zero() {
                self.taken.try_recv().map_err(|error| error == TryRecvError::Disconnected)
            } else {
                self.taken.recv_timeout(wait).map_err(|error| error == RecvTimeoutError::Disconnected)
            };
            match taken {
                Ok((number, taken)) if number == self.number => return Some(taken),
                // A later snapshot was begun since.
                Ok(_) => {}
                Err(true) => return Some(Err(SnapshotError::ThreadEnded)),
                Err(false) => return None,
            }
        }
    }
}

/// Takes snapshots in the caller's thread, in slices.
struct InTurn {
    observer: Box<Observer>,
    begun: Option<bool>,
}

impl Snapshots for InTurn {
    fn begin(&mut self, with_holders: bool) {
        self.begun = Some(with_holders);
    }

    fn poll(&mut self, _: Duration, between: &mut dyn FnMut()) -> Option<Result<Observed, SnapshotError>> {
        let with_holders = self.begun.take()?;
        Some(self.observer.snapshot(with_holders, between))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::observer::NoIterator;

    fn observer() -> Observer {
        Observer::refusing(|_| Err(NoIterator::Unprivileged))
    }

    #[test]
    fn a_snapshot_without_a_thread_is_taken_in_slices() {
        let mut in_turn = InTurn { observer: Box::new(observer()), begun: None };
        let mut slices = 0;
        assert!(in_turn.poll(Duration::ZERO, &mut || slices += 1).is_none(), "none was begun");
        in_turn.begin(true);
        let taken = in_turn.poll(Duration::ZERO, &mut || slices += 1).expect("a snapshot at once");
        let processes = taken.expect("a /proc").snapshot.processes.len();
        assert!(slices >= processes && processes > 0, "{slices} slices, {processes} processes");
    }

    #[test]
    fn a_replaced_snapshot_is_discarded() {
        let mut thread = SnapshotThread::start(observer()).ok().expect("a thread");
        thread.begin(true);
        thread.begin(false);
        let wait = Duration::from_secs(60);
        let taken = thread.poll(wait, &mut || {}).expect("in time").expect("a /proc");
        assert!(taken.snapshot.holders.is_empty(), "the second snapshot has no holders");
        assert!(thread.poll(Duration::from_millis(100), &mut || {}).is_none(), "there is only one snapshot");
    }
}
