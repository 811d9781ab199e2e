//! Limits what the program can do once its hooks are attached. It may run for months and answer requests of strangers.
//!
//! The steps must have this order. Each follows when the one before has succeeded or is not wanted:
//! 1. Load and attach, take the first snapshot (it loads the iterator, and step 4 forbids BPF_PROG_LOAD), bind the
//!    listening sockets, open the output files.
//! 2. [`drop_all_but`](super::capabilities::drop_all_but), for this thread and those that it starts.
//! 3. Start the threads. The one that serves HTTP begins with [`restrict_network_thread`].
//! 4. [`restrict_system_calls`], for all existing threads and those that they start. It may also come before the
//!    threads, but not before step 1 is done.
//!
//! The limits cannot be undone. If the kernel lacks one of these, the program runs without it; [`Report`] says so.

mod calls;
mod files;
mod seccomp;

pub use files::{FilesError, restrict_network_thread};
pub use seccomp::restrict_system_calls;

use std::fmt::{self, Display};

/// The limits in force, for a status page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether all threads are limited to the system calls that the program needs (seccomp).
    pub system_calls: Protection,
    /// Whether the thread that serves HTTP is limited to the files that it needs (Landlock).
    pub files: Protection,
}

/// Whether a limit is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Yes, to this extent.
    On(String),
    /// No, for this reason.
    Off(String),
}

impl Protection {
    /// Whether the limit is in force.
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
