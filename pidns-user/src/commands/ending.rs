//! Ctrl-C of a command that goes on until then: it ends well, and a further one cuts it off only where nobody reads.

use std::{
    process,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustix::{io::ioctl_fionread, stdio::stdout};

use super::{background::Background, failure::Failure, interrupts::Interrupts};
use crate::output::sink::WriteProgress;

/// A further signal ended it while the output stood still.
const CUT_OFF: i32 = 130;

/// Whether the end was asked for. Signals are listened for as long as one of its clones is there.
#[derive(Clone)]
pub(super) struct Ending {
    flag: Arc<AtomicBool>,
    /// Wakes a pause when the flag is set.
    asked: Arc<(Mutex<()>, Condvar)>,
    _background: Arc<Background>,
}

impl Ending {
    /// Listens from now on, while `progress` tells how the output gets on.
    pub(super) fn listen(progress: Arc<WriteProgress>) -> Result<Self, Failure> {
        let io = |error| Failure::Io { what: "wait for signals", error };
        let background = Background::get().map_err(io)?;
        let mut interrupts = {
            let _context = background.handle().enter();
            Interrupts::new().map_err(io)?
        };
        let flag = Arc::new(AtomicBool::new(false));
        let asked = Arc::new((Mutex::new(()), Condvar::new()));
        let (set, wake) = (Arc::clone(&flag), Arc::clone(&asked));
        background.handle().spawn(async move {
            interrupts.next().await;
            {
                let _lock = wake.0.lock().unwrap_or_else(PoisonError::into_inner);
                set.store(true, Ordering::Release);
            }
            wake.1.notify_all();
            // A snapshot or a pause ends by itself; a write to a reader that does not read never does.
            let place = || Some((progress.of_flush()?, ioctl_fionread(stdout()).ok()));
            interrupts.cut_off(place).await;
            process::exit(CUT_OFF)
        });
        Ok(Self { flag, asked, _background: background })
    }

    /// Set when the end is asked for.
    pub(super) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flag)
    }

    /// Waits for so long, or until the end is asked for: whether it was.
    pub(super) fn comes_within(&self, time: Duration) -> bool {
        let (lock, changed) = &*self.asked;
        let lock = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let is_pending = |_: &mut ()| !self.flag.load(Ordering::Acquire);
        let _waited = changed.wait_timeout_while(lock, time, is_pending);
        self.flag.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use rustix::process::{Signal, getpid, kill_process};

    use super::*;
    use crate::commands::interrupts::GRACE;

    #[test]
    fn a_further_signal_cuts_off_nothing_that_writes_nothing() {
        let ending = Ending::listen(Arc::default()).unwrap();
        assert!(!ending.comes_within(Duration::ZERO), "nobody has asked");
        kill_process(getpid(), Signal::INT).unwrap();
        assert!(ending.comes_within(Duration::from_secs(10)));
        assert!(ending.flag().load(Ordering::Acquire));
        // A snapshot is taken now, say. (Cut off, this test would end with 130.)
        kill_process(getpid(), Signal::INT).unwrap();
        thread::sleep(GRACE + Duration::from_millis(500));
    }
}
