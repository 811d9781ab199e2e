//! The signals that ask for an end: after the first, the reader of the output has two seconds for what is there; a second one ends
//! the program at once.

use std::{fs, io, os::unix::thread::JoinHandleExt as _, thread::JoinHandle, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::output::sink::WriteProgress;

/// Exit code of what a second signal has ended.
pub(crate) const CUT_OFF: i32 = 130;
/// How long the reader of the output has, after the first signal, to take what is there.
pub(crate) const BACKLOG: Duration = Duration::from_secs(2);
/// What comes so soon after the first signal is no second wish: timeout(1) and terminals send one to a process and to its group.
pub(crate) const SAME_WISH: Duration = Duration::from_millis(200);
/// How often a write that waits for its reader is interrupted, when that has had its time.
const NUDGE: Duration = Duration::from_millis(20);

/// The signals that ask for an end.
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    /// None where our parent (nohup) has us ignore it.
    hang_up: Option<Signal>,
}

impl Interrupts {
    /// From now on they end nothing by themselves.
    ///
    /// # Errors
    /// They cannot be listened for.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: if ignores_hang_up() { None } else { Some(signal(SignalKind::hangup())?) },
        })
    }

    /// Waits for one.
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

    /// When one has come: waits for a further one, by which the end is to be at once.
    pub async fn next_wish(&mut self) {
        tokio::time::sleep(SAME_WISH).await;
        // What is there by now.
        while tokio::time::timeout(Duration::ZERO, self.next()).await.is_ok() {}
        self.next().await;
    }
}

/// A thread that writes the output. It must be there for as long as this is used.
#[derive(Clone, Copy, Debug)]
pub struct Writer(libc::pthread_t);

impl Writer {
    /// The calling thread.
    pub fn this_thread() -> Self {
        // SAFETY: has no preconditions.
        Self(unsafe { libc::pthread_self() })
    }

    /// The thread of this handle.
    pub fn of<T>(thread: &JoinHandle<T>) -> Self {
        Self(thread.as_pthread_t())
    }

    /// Gives the reader its time; then nothing more is written, and a write that waits is interrupted, again and again: it may be
    /// about to begin. Never ends.
    pub async fn give_up(self, progress: &WriteProgress) {
        tokio::time::sleep(BACKLOG).await;
        progress.give_up();
        if do_nothing_at(NUDGE_SIGNAL).is_err() {
            return std::future::pending().await;
        }
        loop {
            // SAFETY: the thread is there, as `Writer` asks for; the signal has a handler.
            unsafe { libc::pthread_kill(self.0, NUDGE_SIGNAL) };
            tokio::time::sleep(NUDGE).await;
        }
    }
}

/// No process sends it to a program that asks for no urgent data.
const NUDGE_SIGNAL: libc::c_int = libc::SIGURG;

/// A signal with a handler interrupts a call that waits (without SA_RESTART), and one without does not.
fn do_nothing_at(signal: libc::c_int) -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: sigaction is plain data, for which zero is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as *const () as libc::sighandler_t;
    // SAFETY: action is live, and its handler does nothing; the old action is not asked for.
    match unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether SIGHUP is ignored (`SigIgn` of proc(5), whose lowest bit it is).
pub(super) fn ignores_hang_up() -> bool {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?.trim().to_owned();
            u64::from_str_radix(&mask, 16).ok()
        })
        .is_some_and(|mask| mask & 1 != 0)
}
