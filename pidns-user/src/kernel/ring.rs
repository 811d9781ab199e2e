//! The ring buffer's reading end.
//!
//! A record gets its time just before its place in the ring, so that two of different CPUs can stand there in the
//! other order. A batch is sorted, and its youngest records wait for the next one.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use pidns_ebpf::abi::{DecodeError, Header, Record, decode};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
};

use super::clock::boottime_ns;

/// How long a record waits for an older one that stands behind it in the ring.
const REORDER_WINDOW: Duration = Duration::from_millis(2);
/// How long a wake-up waits for more: one wake-up then serves all that happens meanwhile.
const GATHER: Duration = Duration::from_millis(4);
/// Most bytes of a batch, so that memory stays bounded while events keep coming.
const BATCH_BYTES: usize = 2 << 20;

/// Wakes a [`Reader`] that waits, from another thread.
#[derive(Debug)]
pub struct Waker(OwnedFd);

impl Waker {
    /// Wakes the reader; its [`Reader::wait`] returns at once from then on.
    pub fn wake(&self) -> io::Result<()> {
        rustix::io::write(&self.0, &1u64.to_ne_bytes())?;
        Ok(())
    }
}

/// Why [`Reader::wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// There may be records.
    Ready,
    /// The time is over.
    TimedOut,
    /// Somebody called [`Waker::wake`].
    Woken,
}

/// Reads, sorts and decodes the kernel's records.
pub struct Reader {
    ring: RingBuf<MapData>,
    wake: OwnedFd,
    /// The batch's records, one after the other.
    bytes: Vec<u8>,
    /// (time, place in `bytes`, length).
    order: Vec<(u64, u32, u32)>,
    spare: Vec<u8>,
    malformed: u64,
}

impl Reader {
    /// A reader of `ring`, and what wakes it.
    pub fn new(ring: RingBuf<MapData>) -> io::Result<(Self, Waker)> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let waker = Waker(wake.try_clone()?);
        let reader =
            Self { ring, wake, bytes: Vec::new(), order: Vec::new(), spare: Vec::new(), malformed: 0 };
        Ok((reader, waker))
    }

    /// Records that could not be decoded: a fault of this program, counted rather than hidden.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Waits for records, at most `limit`.
    pub fn wait(&self, limit: Duration) -> io::Result<Wait> {
        let limit = if self.order.is_empty() { limit } else { limit.min(REORDER_WINDOW) };
        let timeout = Timespec::try_from(limit).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(&self.ring, PollFlags::IN), PollFd::new(&self.wake, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => Ok(Wait::TimedOut),
            Err(Errno::INTR) => Ok(Wait::TimedOut),
            Err(error) => Err(error.into()),
            Ok(_) if !fds[1].revents().is_empty() => Ok(Wait::Woken),
            Ok(_) => {
                // A sleep that Ctrl-C can end: the next wake-up costs the kernel something at each event.
                let gather = Timespec::try_from(GATHER).map_err(io::Error::other)?;
                let mut wake = [PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN)];
                let _ = poll(&mut wake, Some(&gather));
                Ok(Wait::Ready)
            }
        }
    }

    /// Hands over what is in the ring, oldest first. `all`: also what would wait for the next batch. Says whether
    /// there may be more.
    pub fn drain(&mut self, all: bool, mut each: impl FnMut(Header, Record<'_>)) -> bool {
        let mut more = false;
        while let Some(item) = self.ring.next() {
            let Some(boot_ns) = item.first_chunk::<8>() else {
                self.malformed += 1;
                continue;
            };
            let boot_ns = u64::from_ne_bytes(*boot_ns);
            self.order.push((boot_ns, self.bytes.len() as u32, item.len() as u32));
            self.bytes.extend_from_slice(&item);
            if self.bytes.len() >= BATCH_BYTES {
                more = true;
                break;
            }
        }
        // Equal times keep the order of the ring: the second key is the place.
        self.order.sort_unstable();
        let ripe = if all {
            u64::MAX
        } else if more {
            // More is there already: what is younger than the youngest here, less the window, cannot be told yet.
            self.order
                .last()
                .map_or(0, |&(newest, ..)| newest.saturating_sub(REORDER_WINDOW.as_nanos() as u64))
        } else {
            boottime_ns().saturating_sub(REORDER_WINDOW.as_nanos() as u64)
        };
        let count = self.order.partition_point(|&(boot_ns, ..)| boot_ns <= ripe);
        for &(_, at, len) in &self.order[..count] {
            match decoded(&self.bytes, at, len) {
                Ok((header, record)) => each(header, record),
                Err(_) => self.malformed += 1,
            }
        }
        self.keep(count);
        more
    }

    /// Drops the first `count` records of the order, and moves the rest to the front.
    fn keep(&mut self, count: usize) {
        self.order.drain(..count);
        self.spare.clear();
        for (_, at, len) in &mut self.order {
            let from = *at as usize;
            *at = self.spare.len() as u32;
            self.spare.extend_from_slice(&self.bytes[from..from + *len as usize]);
        }
        std::mem::swap(&mut self.bytes, &mut self.spare);
    }
}

fn decoded(bytes: &[u8], at: u32, len: u32) -> Result<(Header, Record<'_>), DecodeError> {
    decode(&bytes[at as usize..(at + len) as usize])
}
