//! Situations of the kernel tests' actor, played as often and as long as an alert needs them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::stage::Actor;

/// What goes on on a machine where all is well: namespaces that come and go, stops, a few failures. None of it is a reason for
/// an alert, though inits are killed here more often than is allowed to those that did not ignore a signal before.
const ORDINARY: [(&str, &[&str]); 18] = [
    ("clone3", &[]),
    ("stop", &[]),
    ("exit-with-members", &["3", "0"]),
    ("stop", &[]),
    ("unshare-then-fork", &[]),
    ("stop", &[]),
    ("nested-teardown", &[]),
    ("stop", &[]),
    ("threads-in-namespace", &["4"]),
    ("stop", &[]),
    ("fault", &[]),
    ("stop", &[]),
    ("unprivileged", &[]),
    ("zombie", &["200"]),
    ("clone", &[]),
    ("join-by-fd", &[]),
    ("exec-and-exit", &["0"]),
    ("exit-with-members", &["1", "3"]),
];

/// Plays a situation to its end.
pub(crate) fn play(situation: &str, args: &[&str]) {
    Actor::start(situation, args).finish();
}

/// Plays situations one after the other, over and over, until it is dropped.
pub(crate) struct Loop {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Loop {
    /// One each `pause`.
    pub(crate) fn of(
        situations: &'static [(&'static str, &'static [&'static str])],
        pause: Duration,
    ) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&ends);
        let thread = thread::spawn(move || {
            for (situation, args) in situations.iter().cycle() {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let start = Instant::now();
                play(situation, args);
                thread::sleep(pause.saturating_sub(start.elapsed()));
            }
        });
        Self { ends, thread: Some(thread) }
    }

    /// Ordinary life.
    pub(crate) fn ordinary() -> Self {
        Self::of(&ORDINARY, Duration::from_millis(150))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || matches!(ended, Some(Ok(()))), "every situation can be played");
    }
}
