//! The end of a command that can start no thread: the pids cgroup is full, or RLIMIT_NPROC is reached. Such machines are what this
//! program is made to explain, and on them it does in one thread what it does in several elsewhere.
//!
//! Signal handlers take the place of the thread that waits for signals, and an alarm that of the one that waits for time.

use std::{
    io,
    os::fd::{IntoRawFd, OwnedFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicPtr, Ordering},
    },
    time::Duration,
};

use super::interrupts::{BACKLOG, CUT_OFF, SAME_WISH, ignores_hang_up};
use crate::output::sink::WriteProgress;

/// What handlers use. Null until [`listen`] is called, and then there for ever.
static STATE: AtomicPtr<State> = AtomicPtr::new(std::ptr::null_mut());

struct State {
    /// Set when the end is asked for.
    asked: Arc<AtomicBool>,
    progress: Arc<WriteProgress>,
    /// An event file that is written to then; -1: there is none.
    wake: RawFd,
    /// When the first signal came: nanoseconds on CLOCK_MONOTONIC; 0: none has.
    first: AtomicI64,
}

/// From now on the first of the signals that ask for an end sets `asked` and writes to the event file `wake`; two seconds later the
/// output whose `progress` this is is given up; and a further signal ends the process at once. With a `duration` the end is asked for
/// after that, too.
///
/// # Errors
/// A handler, or the alarm, cannot be set.
pub(super) fn listen(
    asked: Arc<AtomicBool>,
    progress: Arc<WriteProgress>,
    wake: Option<OwnedFd>,
    duration: Option<Duration>,
) -> io::Result<()> {
    let wake = wake.map_or(-1, IntoRawFd::into_raw_fd);
    let state = Box::new(State { asked, progress, wake, first: AtomicI64::new(0) });
    STATE.store(Box::into_raw(state), Ordering::Release);
    let signals = [libc::SIGINT, libc::SIGTERM, libc::SIGALRM];
    let hang_up = (!ignores_hang_up()).then_some(libc::SIGHUP);
    for signal in signals.into_iter().chain(hang_up) {
        handle(signal)?;
    }
    duration.map_or(Ok(()), set_alarm)
}

fn handle(signal: libc::c_int) -> io::Result<()> {
    // SAFETY: sigaction is plain data, for which zero is a value: no flags, so that a signal ends a wait.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as *const () as libc::sighandler_t;
    // SAFETY: action is live; the handler calls nothing that is not async-signal-safe; the old action is not asked for.
    match unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn set_alarm(duration: Duration) -> io::Result<()> {
    let zero = libc::timeval { tv_sec: 0, tv_usec: 0 };
    // A time of 0 would set none.
    let value = libc::timeval {
        tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_usec: libc::suseconds_t::from(duration.subsec_micros()).max(1),
    };
    let timer = libc::itimerval { it_interval: zero, it_value: value };
    // SAFETY: timer is live; the old one is not asked for.
    match unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

extern "C" fn on_signal(signal: libc::c_int) {
    // SAFETY: null, or what `listen` has left there for ever.
    let Some(state) = (unsafe { STATE.load(Ordering::Acquire).as_ref() }) else { return };
    let first = state.first.load(Ordering::Acquire);
    if signal == libc::SIGALRM && first != 0 {
        state.progress.give_up();
        // Once more: the write that this is to interrupt may be about to begin.
        set_alarm_seconds(1);
        return;
    }
    if signal != libc::SIGALRM {
        let now = monotonic_ns();
        if first == 0 {
            state.first.store(now.max(1), Ordering::Release);
            set_alarm_seconds(BACKLOG.as_secs() as libc::c_uint);
        } else if now - first > SAME_WISH.as_nanos() as i64 {
            // SAFETY: async-signal-safe.
            unsafe { libc::_exit(CUT_OFF) };
        }
    }
    state.asked.store(true, Ordering::Release);
    if state.wake >= 0 {
        let one = 1u64.to_ne_bytes();
        // SAFETY: async-signal-safe, and `one` is as long as stated. The descriptor stays open. A full event file wakes as well.
        let _ = unsafe { libc::write(state.wake, one.as_ptr().cast(), one.len()) };
    }
}

/// Safe in a signal handler.
fn set_alarm_seconds(seconds: libc::c_uint) {
    // SAFETY: async-signal-safe (signal-safety(7)).
    unsafe { libc::alarm(seconds) };
}

/// Safe in a signal handler.
fn monotonic_ns() -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: async-signal-safe (signal-safety(7)), and now is live.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// Its notice.
pub(super) fn message(error: &io::Error) -> String {
    format!(
        "no thread can be started ({error}): events are read and written in one, and a slow reader of them makes the kernel lose some"
    )
}
