//! Runs situations of the kernel tests' actor as often and as long as an alert needs them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::actor_handle::Actor;

/// The activity of a healthy machine: namespaces that come and go, stops, a few failures. None of it may cause an
/// alert. Inits are killed here more often than the alert allows, but they ignored a signal before.
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

/// Runs a situation to its end.
pub(crate) fn run(situation: &str, args: &[&str]) {
    Actor::start(situation, args).finish();
}

/// Runs situations one after the other, in a loop. Stopped on drop.
pub(crate) struct Loop {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Loop {
    /// Starts a loop with this pause between two situations.
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
                run(situation, args);
                thread::sleep(pause.saturating_sub(start.elapsed()));
            }
        });
        Self { ends, thread: Some(thread) }
    }

    /// A loop of ordinary activity.
    pub(crate) fn ordinary() -> Self {
        Self::of(&ORDINARY, Duration::from_millis(150))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || matches!(ended, Some(Ok(()))), "a situation failed");
    }
}
