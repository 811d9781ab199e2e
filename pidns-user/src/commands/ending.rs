//! Ctrl-C of a command that goes on until then: it ends well, and a further one cuts it off only where nobody reads.

use std::{
    process,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use rustix::{io::ioctl_fionread, stdio::stdout};

use crate::{commands::failure::Failure, commands::interrupts::Interrupts, output::sink::Progress};

/// A further signal ended it while the output stood still.
const CUT_OFF: i32 = 130;

/// That the end was asked for.
pub(super) struct Ending(Receiver<()>);

impl Ending {
    /// Listens from now on, in a thread of its own, while `progress` tells how the output gets on.
    pub(super) fn listen(progress: Arc<Progress>) -> Result<Self, Failure> {
        let io = |error| Failure::Io { what: "wait for signals", error };
        let (ask, asked) = mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(io)?;
        let mut interrupts = runtime.block_on(async { Interrupts::new() }).map_err(io)?;
        let wait = move || {
            runtime.block_on(async {
                interrupts.next().await;
                // Who is not there to be told has ended.
                let _ = ask.send(());
                // A look or a pause ends by itself; a write to who does not read never does.
                let place = || Some((progress.of_flush()?, ioctl_fionread(stdout()).ok()));
                interrupts.cut_off(place).await;
                process::exit(CUT_OFF)
            })
        };
        thread::Builder::new().name("signals".to_owned()).spawn(wait).map_err(io)?;
        Ok(Self(asked))
    }

    /// Waits for so long, or until the end is asked for: whether it was.
    pub(super) fn comes_within(&self, time: Duration) -> bool {
        !matches!(self.0.recv_timeout(time), Err(RecvTimeoutError::Timeout))
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;
    use crate::commands::interrupts::GRACE;

    #[test]
    fn a_further_signal_cuts_off_nothing_that_writes_nothing() {
        let ending = Ending::listen(Arc::default()).unwrap();
        assert!(!ending.comes_within(Duration::ZERO), "nobody has asked");
        kill_process(getpid(), Signal::INT).unwrap();
        assert!(ending.comes_within(Duration::from_secs(10)));
        // A look is under way now, say. (Cut off, this test would end with 130.)
        kill_process(getpid(), Signal::INT).unwrap();
        thread::sleep(GRACE + Duration::from_millis(500));
    }
}
