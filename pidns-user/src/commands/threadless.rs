//! Ctrl-C and `--duration` for a command that can start no thread, because the pids cgroup is full or RLIMIT_NPROC is
//! reached. This program is made to explain such hosts, so it then uses one thread for everything.
//!
//! Signal handlers and an alarm replace the threads that wait for signals and for the duration.

use std::{
    io,
    os::fd::{IntoRawFd, OwnedFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicPtr, Ordering},
    },
    time::Duration,
};

use super::interrupts::{BACKLOG, CUT_OFF, SAME_REQUEST, ignores_hang_up};
use crate::output::sink::WriteProgress;

/// State for the handlers. Null until [`listen`] is called; then it is never freed.
static STATE: AtomicPtr<State> = AtomicPtr::new(std::ptr::null_mut());

struct State {
    /// Set when the end is requested.
    stop_requested: Arc<AtomicBool>,
    progress: Arc<WriteProgress>,
    /// An event file to write to when the end is requested; -1: none.
    wake: RawFd,
    /// When the first signal came, nanoseconds on CLOCK_MONOTONIC; 0: not yet.
    first: AtomicI64,
}

/// Starts to listen. The first signal that requests the end sets `stop_requested` and writes to the event file `wake`.
/// Two seconds later the output that `progress` belongs to is given up. A further signal ends the process at once.
/// After `duration` the end is requested too.
///
/// # Errors
///
/// A handler or the alarm cannot be set.
pub(super) fn listen(
    stop_requested: Arc<AtomicBool>,
    progress: Arc<WriteProgress>,
    wake: Option<OwnedFd>,
    duration: Option<Duration>,
) -> io::Result<()> {
    let wake = wake.map_or(-1, IntoRawFd::into_raw_fd);
    let state = Box::new(State { stop_requested, progress, wake, first: AtomicI64::new(0) });
    STATE.store(Box::into_raw(state), Ordering::Release);
    let signals = [libc::SIGINT, libc::SIGTERM, libc::SIGALRM];
    let hang_up = (!ignores_hang_up()).then_some(libc::SIGHUP);
    for signal in signals.into_iter().chain(hang_up) {
        handle(signal)?;
    }
    duration.map_or(Ok(()), set_alarm)
}

fn handle(signal: libc::c_int) -> io::Result<()> {
    // SAFETY: sigaction is plain data, for which zero is a valid value: no flags, so a signal interrupts a wait.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as *const () as libc::sighandler_t;
    // SAFETY: `action` is live; the handler calls only async-signal-safe functions; the pointer for the old action may
    // be null.
    match unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn set_alarm(duration: Duration) -> io::Result<()> {
    let zero = libc::timeval { tv_sec: 0, tv_usec: 0 };
    // A time of 0 would disable the timer.
    let value = libc::timeval {
        tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_usec: libc::suseconds_t::from(duration.subsec_micros()).max(1),
    };
    let timer = libc::itimerval { it_interval: zero, it_value: value };
    // SAFETY: `timer` is live; the pointer for the old timer may be null.
    match unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

extern "C" fn on_signal(signal: libc::c_int) {
    // SAFETY: the pointer is null, or [`listen`] set it to a state that is never freed.
    let Some(state) = (unsafe { STATE.load(Ordering::Acquire).as_ref() }) else { return };
    let first = state.first.load(Ordering::Acquire);
    if signal == libc::SIGALRM && first != 0 {
        state.progress.give_up();
        // Set the alarm again: the write to interrupt may be about to block.
        set_alarm_seconds(1);
        return;
    }
    if signal != libc::SIGALRM {
        let now = monotonic_ns();
        if first == 0 {
            state.first.store(now.max(1), Ordering::Release);
            set_alarm_seconds(BACKLOG.as_secs() as libc::c_uint);
        } else if now - first > SAME_REQUEST.as_nanos() as i64 {
            // SAFETY: _exit is async-signal-safe.
            unsafe { libc::_exit(CUT_OFF) };
        }
    }
    state.stop_requested.store(true, Ordering::Release);
    if state.wake >= 0 {
        let one = 1u64.to_ne_bytes();
        // SAFETY: write is async-signal-safe, and `one` has the given length. The descriptor is never closed. A full
        // event file wakes as well.
        let _ = unsafe { libc::write(state.wake, one.as_ptr().cast(), one.len()) };
    }
}

/// May be called in a signal handler.
fn set_alarm_seconds(seconds: libc::c_uint) {
    // SAFETY: alarm is async-signal-safe (signal-safety(7)).
    unsafe { libc::alarm(seconds) };
}

/// May be called in a signal handler.
fn monotonic_ns() -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime is async-signal-safe (signal-safety(7)), and `now` is live.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// The notice that no thread can be started.
pub(super) fn message(error: &io::Error) -> String {
    format!(
        "cannot start a thread ({error}): one thread reads and writes all events, so a slow reader of the output causes losses"
    )
}
