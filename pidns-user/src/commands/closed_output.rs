//! Checks whether standard output was closed when the program was started (`>&-`).
//!
//! The standard library opens /dev/null in place of closed descriptors before `main`. Writes then succeed and the
//! output vanishes, so the check must come before that.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use super::failure::Failure;

static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Called by the C library before `main`.
#[used]
// SAFETY: this section contains pointers to functions (ELF gABI, "Initialization and Termination Functions").
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = check_stdout;

extern "C" fn check_stdout() {
    // SAFETY: fcntl takes integers, and fails for a descriptor that is not open.
    let is_closed = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) } == -1;
    WAS_CLOSED.store(is_closed, Ordering::Relaxed);
}

/// Checks for a command that prints something.
///
/// # Errors
///
/// Standard output was closed.
pub fn check() -> Result<(), Failure> {
    if WAS_CLOSED.load(Ordering::Relaxed) {
        let error = io::Error::from_raw_os_error(libc::EBADF);
        return Err(Failure::Io { what: "write to standard output, which is closed", error });
    }
    Ok(())
}
