//! Snapshots that are taken beside the stream, so that its thread reads on meanwhile.

use std::{
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError},
    thread,
    time::Duration,
};

use super::observer::{Observed, Observer, SnapshotError};

/// Takes snapshots.
pub trait Snapshots: Send {
    /// Begins one; with what holds namespaces where that is wanted, which takes longer.
    fn begin(&mut self, with_holders: bool);

    /// The one that was begun, if it is ready within this time. `between` is called every few milliseconds where it is
    /// taken in the caller's thread.
    fn poll(&mut self, wait: Duration, between: &mut dyn FnMut()) -> Option<Result<Observed, SnapshotError>>;
}

/// Takes them in a thread of its own; in the caller's where no thread can be started (a full pids cgroup, say).
pub fn beside(observer: Observer) -> Box<dyn Snapshots> {
    match Beside::start(observer) {
        Ok(beside) => Box::new(beside),
        Err(observer) => Box::new(InTurn { observer, begun: None }),
    }
}

/// In a thread of its own, which ends with this.
struct Beside {
    ask: Sender<bool>,
    taken: Receiver<Result<Observed, SnapshotError>>,
}

impl Beside {
    /// Gives the observer back where no thread can be started.
    fn start(observer: Observer) -> Result<Self, Box<Observer>> {
        let (ask, asked) = mpsc::channel::<bool>();
        let (give, taken) = mpsc::channel();
        let (hand_over, handed_over) = mpsc::channel::<Observer>();
        let work = move || {
            let Ok(mut observer) = handed_over.recv() else { return };
            while let Ok(with_holders) = asked.recv() {
                if give.send(observer.snapshot(with_holders, &mut || {})).is_err() {
                    return;
                }
            }
        };
        match thread::Builder::new().name("snapshots".to_owned()).spawn(work) {
            Ok(_) => match hand_over.send(observer) {
                Ok(()) => Ok(Self { ask, taken }),
                Err(unsent) => Err(Box::new(unsent.0)),
            },
            Err(_) => Err(Box::new(observer)),
        }
    }
}

impl Snapshots for Beside {
    fn begin(&mut self, with_holders: bool) {
        // A thread that has ended is found out by `poll`.
        let _ = self.ask.send(with_holders);
    }

    fn poll(&mut self, wait: Duration, _: &mut dyn FnMut()) -> Option<Result<Observed, SnapshotError>> {
        let taken = if wait.is_zero() {
            self.taken.try_recv().map_err(|error| error == TryRecvError::Disconnected)
        } else {
            self.taken.recv_timeout(wait).map_err(|error| error == RecvTimeoutError::Disconnected)
        };
        match taken {
            Ok(taken) => Some(taken),
            Err(true) => Some(Err(SnapshotError::ThreadEnded)),
            Err(false) => None,
        }
    }
}

/// In the caller's thread, in slices.
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
