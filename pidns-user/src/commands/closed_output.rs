//! Whether standard output was closed when the program was started (`>&-`).
//!
//! The standard library opens /dev/null in the place of what is closed, before `main`: whatever is printed then is gone, and no
//! write fails. So it is checked before that.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use super::failure::Failure;

static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Called by the C library before `main`.
#[used]
// SAFETY: what is in this section are pointers to functions (ELF gABI, "Initialization and Termination Functions").
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = check_stdout;

extern "C" fn check_stdout() {
    // SAFETY: takes integers, and fails for a descriptor that may not be open.
    let is_closed = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) } == -1;
    WAS_CLOSED.store(is_closed, Ordering::Relaxed);
}

/// For a command that prints something.
///
/// # Errors
/// It would never be seen.
pub fn check() -> Result<(), Failure> {
    if WAS_CLOSED.load(Ordering::Relaxed) {
        let error = io::Error::from_raw_os_error(libc::EBADF);
        return Err(Failure::Io { what: "write to standard output, which is closed", error });
    }
    Ok(())
}
