//! What the program may still do once its hooks are in place, for programs that run for months and answer strangers.
//!
//! In this order, each where the one before has succeeded or is not wanted:
//! 1. Load and attach, take the first snapshot (it loads the iterator, and BPF_PROG_LOAD is refused from step 4 on), bind the
//!    sockets that are listened on, open the files that are written to.
//! 2. [`drop_all_but`](super::capabilities::drop_all_but), for this thread and those that it starts.
//! 3. Start the threads; the one that serves HTTP begins with [`restrict_network_thread`].
//! 4. [`restrict_system_calls`], for all threads that there are and those that they start. Sooner is as good: before the
//!    threads, as long as step 1 is done.
//!
//! Neither can be undone. Where the kernel lacks one of the two, the program runs without it, and [`Report`] shows it.

mod calls;
mod files;
mod seccomp;

pub use files::{FilesError, restrict_network_thread};
pub use seccomp::restrict_system_calls;

use std::fmt::{self, Display};

/// What holds, for a status page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether all threads are limited to the system calls that the program needs (seccomp).
    pub system_calls: Protection,
    /// Whether the thread that serves HTTP is limited to the files that it needs (Landlock).
    pub files: Protection,
}

/// Whether something holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protection {
    /// It does, and this is its extent.
    On(String),
    /// It does not, for this reason.
    Off(String),
}

impl Protection {
    /// Whether it holds.
    pub fn is_on(&self) -> bool {
        matches!(self, Self::On(_))
    }
}

impl Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On(extent) => write!(f, "on ({extent})"),
            Self::Off(why) => write!(f, "off: {why}"),
        }
    }
}
