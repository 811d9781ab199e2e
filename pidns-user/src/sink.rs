//! Standard output, with an exact account of what reached it.

use std::io;

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::{Errno, write},
    stdio::stdout,
};

/// Bytes after which it writes without being asked to.
const FULL: usize = 64 << 10;

/// What happened to the buffered events.
#[derive(Debug)]
pub enum Written {
    /// All are out.
    All,
    /// The reader has gone: there is nobody to write to.
    Closed,
    /// They could not be written.
    Failed {
        /// What came back.
        error: io::Error,
        /// How many events are not, or not wholly, out.
        unwritten: u64,
    },
}

/// Buffers whole events, so that a failure can tell how many it took.
#[derive(Debug, Default)]
pub struct Sink {
    buffer: Vec<u8>,
    /// Where each event in the buffer ends.
    ends: Vec<usize>,
}

impl Sink {
    /// Where an event is written to before [`Sink::end_event`].
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// The event that was being written is whole. Says whether it is time to flush.
    pub fn end_event(&mut self) -> bool {
        self.ends.push(self.buffer.len());
        self.buffer.len() >= FULL
    }

    /// Writes everything out.
    pub fn flush(&mut self) -> Written {
        let mut done = 0;
        let outcome = loop {
            if done == self.buffer.len() {
                break Written::All;
            }
            match write(stdout(), &self.buffer[done..]) {
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    // Somebody made the file non-blocking: wait for room.
                    let _ = poll(&mut [PollFd::from_borrowed_fd(stdout(), PollFlags::OUT)], None);
                }
                Err(Errno::PIPE) => break Written::Closed,
                Err(error) => {
                    let unwritten = self.ends.iter().filter(|&&end| end > done).count() as u64;
                    break Written::Failed { error: error.into(), unwritten };
                }
            }
        };
        self.buffer.clear();
        self.ends.clear();
        outcome
    }
}
