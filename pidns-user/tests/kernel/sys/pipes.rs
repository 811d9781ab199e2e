//! Pipes: gates between processes, and lines written whole.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A gate made of a pipe: one process waits for a byte, and another one writes it.
pub(crate) struct Gate {
    read: OwnedFd,
    write: OwnedFd,
}

impl Gate {
    pub(crate) fn new() -> Self {
        let mut fds = [0; 2];
        // SAFETY: fds has room for the two descriptors.
        let result = unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) };
        assert_eq!(result, 0, "create a pipe: {}", io::Error::last_os_error());
        // SAFETY: pipe2 just returned this descriptor and nothing else has it.
        let read = unsafe { OwnedFd::from_raw_fd(fds[0]) };
        // SAFETY: as above.
        let write = unsafe { OwnedFd::from_raw_fd(fds[1]) };
        Self { read, write }
    }

    pub(crate) fn open(&self) {
        let wrote = write_once(self.write.as_fd(), b"!");
        assert_eq!(wrote, 1, "write a byte to the pipe: {}", io::Error::last_os_error());
    }

    pub(crate) fn wait(&self) {
        assert!(read_byte(self.read.as_fd()).is_some(), "the other side of a gate has ended");
    }

    /// Whether the gate is open, and no process has passed it.
    pub(crate) fn is_open(&self) -> bool {
        let mut fd = libc::pollfd { fd: self.read.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: there is one live pollfd, and poll does not wait.
        unsafe { libc::poll(&raw mut fd, 1, 0) == 1 }
    }

    /// Keeps only the waiting end, so that the opener's death ends the wait.
    pub(crate) fn into_waiter(self) -> Waiter {
        Waiter { read: self.read }
    }
}

/// The waiting end of a gate.
pub(crate) struct Waiter {
    read: OwnedFd,
}

impl Waiter {
    pub(crate) fn wait(&self) {
        assert!(read_byte(self.read.as_fd()).is_some(), "the other side of a gate has ended");
    }
}

fn write_once(fd: BorrowedFd<'_>, bytes: &[u8]) -> isize {
    // SAFETY: bytes is live and its length is passed.
    unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) }
}

/// Writes the whole line in one call, so that processes with the same pipe do not mix their lines.
pub(crate) fn write_line(fd: BorrowedFd<'_>, line: &str) {
    let wrote = write_once(fd, line.as_bytes());
    assert_eq!(wrote, line.len() as isize, "write a fact: {}", io::Error::last_os_error());
}

/// Reads one byte without a buffer. `None` at the end of the file.
pub(crate) fn read_byte(fd: BorrowedFd<'_>) -> Option<u8> {
    let mut byte = 0_u8;
    loop {
        // SAFETY: byte is live and one byte long.
        match unsafe { libc::read(fd.as_raw_fd(), (&raw mut byte).cast(), 1) } {
            1 => return Some(byte),
            0 => return None,
            _ => {
                let error = io::Error::last_os_error();
                assert_eq!(error.raw_os_error(), Some(libc::EINTR), "read a byte: {error}");
            }
        }
    }
}
