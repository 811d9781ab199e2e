//! Handles Ctrl-C for commands that run until then: the first one ends the command cleanly, a second one at once.

use std::{
    process,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    background::Background,
    failure::Failure,
    interrupts::{CUT_OFF, Interrupts, Writer},
    threadless,
};
use crate::output::sink::WriteProgress;

/// Interval of checks for the end, if no thread can wake a pause.
const SLICE: Duration = Duration::from_millis(20);

/// Whether the end was requested. Listens for signals while a clone of it exists.
#[derive(Clone)]
pub(super) struct Ending {
    flag: Arc<AtomicBool>,
    /// Wakes a pause when the flag is set.
    asked: Arc<(Mutex<()>, Condvar)>,
    /// `None` if no thread can be started: nothing wakes a pause then.
    background: Option<Arc<Background>>,
}

impl Ending {
    /// Starts to listen. The calling thread must be the one that writes; `progress` is that of its output.
    pub(super) fn listen(progress: Arc<WriteProgress>) -> Result<Self, Failure> {
        let io = |error| Failure::Io { what: "wait for signals", error };
        let flag = Arc::new(AtomicBool::new(false));
        let asked = Arc::new((Mutex::new(()), Condvar::new()));
        let Ok(background) = Background::get() else {
            threadless::listen(Arc::clone(&flag), progress, None, None).map_err(io)?;
            return Ok(Self { flag, asked, background: None });
        };
        let mut interrupts = {
            let _context = background.handle().enter();
            Interrupts::new().map_err(io)?
        };
        let writer = Writer::this_thread();
        let (set, wake) = (Arc::clone(&flag), Arc::clone(&asked));
        background.handle().spawn(async move {
            interrupts.next().await;
            {
                let _lock = wake.0.lock().unwrap_or_else(PoisonError::into_inner);
                set.store(true, Ordering::Release);
            }
            wake.1.notify_all();
            tokio::select! {
                () = interrupts.next_request() => process::exit(CUT_OFF),
                () = writer.give_up(&progress) => {}
            }
        });
        Ok(Self { flag, asked, background: Some(background) })
    }

    /// Set when the end is requested.
    pub(super) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flag)
    }

    /// Waits for `time` or until the end is requested. Returns whether it was requested.
    pub(super) fn comes_within(&self, time: Duration) -> bool {
        if self.background.is_none() {
            return self.comes_while_sleeping(time);
        }
        let (lock, changed) = &*self.asked;
        let lock = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let is_pending = |_: &mut ()| !self.flag.load(Ordering::Acquire);
        let _waited = changed.wait_timeout_while(lock, time, is_pending);
        self.flag.load(Ordering::Acquire)
    }

    fn comes_while_sleeping(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while !self.flag.load(Ordering::Acquire) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            thread::sleep(left.min(SLICE));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[test]
    fn signal_ends_a_pause() {
        let ending = Ending::listen(Arc::default()).unwrap();
        assert!(!ending.comes_within(Duration::ZERO), "the end was not requested");
        kill_process(getpid(), Signal::INT).unwrap();
        assert!(ending.comes_within(Duration::from_secs(10)));
        assert!(ending.flag().load(Ordering::Acquire));
        // A signal shortly after the first counts as the same request. (Otherwise this test would exit with 130.)
        kill_process(getpid(), Signal::INT).unwrap();
        thread::sleep(Duration::from_millis(500));
    }
}
