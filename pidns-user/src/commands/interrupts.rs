//! Signals that request the end. After the first, the reader of the output has two seconds to take the remaining
//! output; a second signal ends the program at once.

use std::{fs, io, os::unix::thread::JoinHandleExt as _, thread::JoinHandle, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::output::sink::WriteProgress;

/// Exit code after a second signal.
pub(crate) const CUT_OFF: i32 = 130;
/// Time for the reader to take the remaining output after the first signal.
pub(crate) const BACKLOG: Duration = Duration::from_secs(2);
/// A signal this soon after the first is the same request: timeout(1) and terminals signal a process and its group.
pub(crate) const SAME_REQUEST: Duration = Duration::from_millis(200);
/// How often to interrupt a blocked write after the reader's time is over.
const NUDGE: Duration = Duration::from_millis(20);

/// The signals that request the end.
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    /// `None` if our parent (nohup) made us ignore it.
    hang_up: Option<Signal>,
}

impl Interrupts {
    /// Starts to listen: the signals no longer end the process by themselves.
    ///
    /// # Errors
    ///
    /// The handlers cannot be installed.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: if ignores_hang_up() { None } else { Some(signal(SignalKind::hangup())?) },
        })
    }

    /// Waits for a signal.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = async {
                match &mut self.hang_up {
                    Some(hang_up) => drop(hang_up.recv().await),
                    None => std::future::pending().await,
                }
            } => {}
        }
    }

    /// After a first signal: waits for a further one, which requests the end at once.
    pub async fn next_request(&mut self) {
        tokio::time::sleep(SAME_REQUEST).await;
        // Drop signals that are pending by now.
        while tokio::time::timeout(Duration::ZERO, self.next()).await.is_ok() {}
        self.next().await;
    }
}

/// A thread that writes the output. It must exist as long as this value is used.
#[derive(Clone, Copy, Debug)]
pub struct Writer(libc::pthread_t);

impl Writer {
    /// The calling thread.
    pub fn this_thread() -> Self {
        // SAFETY: pthread_self has no preconditions.
        Self(unsafe { libc::pthread_self() })
    }

    /// The thread of this handle.
    pub fn of<T>(thread: &JoinHandle<T>) -> Self {
        Self(thread.as_pthread_t())
    }

    /// Gives the reader its time. After that, no write waits for the reader any more. A blocked write is interrupted
    /// repeatedly, because one interrupt may come just before the write blocks. Never returns.
    pub async fn give_up(self, progress: &WriteProgress) {
        tokio::time::sleep(BACKLOG).await;
        progress.give_up();
        if do_nothing_at(NUDGE_SIGNAL).is_err() {
            return std::future::pending().await;
        }
        loop {
            // SAFETY: the thread exists, as `Writer` requires; the signal has a handler.
            unsafe { libc::pthread_kill(self.0, NUDGE_SIGNAL) };
            tokio::time::sleep(NUDGE).await;
        }
    }
}

/// A signal that no process sends to a program that does not use urgent socket data.
const NUDGE_SIGNAL: libc::c_int = libc::SIGURG;

/// Installs an empty handler. Without SA_RESTART, a signal with a handler interrupts a blocking call; an ignored signal
/// does not.
fn do_nothing_at(signal: libc::c_int) -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: sigaction is plain data, for which zero is a valid value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as *const () as libc::sighandler_t;
    // SAFETY: `action` is live and its handler does nothing; the pointer for the old action may be null.
    match unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether SIGHUP is ignored (lowest bit of `SigIgn`, see proc(5)).
pub(super) fn ignores_hang_up() -> bool {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?.trim().to_owned();
            u64::from_str_radix(&mask, 16).ok()
        })
        .is_some_and(|mask| mask & 1 != 0)
}
