//! The ring buffer's reading end.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use pidns_ebpf::abi::{Header, Record, decode};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
};

use super::clock::boottime_ns;
use crate::event::identity::BootNs;
use crate::kernel::reorder::Reorder;

/// How long a record waits for an older one that stands behind it in the ring.
const REORDER_WINDOW: Duration = Duration::from_millis(2);
/// How often the ring is read without a wake-up: records of processes cause none.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long a wake-up waits for more: one wake-up then serves all that happens meanwhile.
const GATHER: Duration = Duration::from_millis(4);
/// Most bytes of a batch, so that memory stays bounded while events keep coming.
const BATCH_BYTES: usize = 2 << 20;

/// Most bytes of records that are held while a snapshot is taken: 2 million forks on the host.
const HELD_BYTES: usize = 256 << 20;

/// Records that are handed over between two reads of the ring, where there are many.
const RELEASED_BETWEEN: u64 = 4_096;

/// Wakes a [`RingReader`] that waits, from another thread.
#[derive(Debug)]
pub struct Waker(OwnedFd);

impl Waker {
    /// Wakes the reader; its [`RingReader::wait`] returns at once from then on.
    pub fn wake(&self) -> io::Result<()> {
        rustix::io::write(&self.0, &1u64.to_ne_bytes())?;
        Ok(())
    }

    /// The event file that wakes the reader when it is written to.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn event_file(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }
}

/// Reads, sorts and decodes the kernel's records.
pub struct RingReader {
    ring: RingBuf<MapData>,
    wake: OwnedFd,
    waiting: Reorder,
    /// Records that came while others were handed over.
    late: Reorder,
    received: u64,
    malformed: u64,
}

impl RingReader {
    /// A reader of `ring`, and what wakes it.
    pub fn new(ring: RingBuf<MapData>) -> io::Result<(Self, Waker)> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let waker = Waker(wake.try_clone()?);
        let reader = Self {
            ring,
            wake,
            waiting: Reorder::default(),
            late: Reorder::default(),
            received: 0,
            malformed: 0,
        };
        Ok((reader, waker))
    }

    /// Records taken from the ring.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Records that could not be decoded: a fault of this program, counted rather than hidden.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Waits for records, at most `limit`, or until another thread calls [`Waker::wake`].
    pub fn wait(&self, limit: Duration) -> io::Result<()> {
        let limit = limit.min(if self.waiting.is_empty() { POLL_INTERVAL } else { REORDER_WINDOW });
        let timeout = Timespec::try_from(limit).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(&self.ring, PollFlags::IN), PollFd::new(&self.wake, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) if !fds[1].revents().is_empty() => Ok(()),
            Ok(_) => {
                // A sleep that Ctrl-C can end: the next wake-up costs the kernel something at each event.
                let gather = Timespec::try_from(GATHER).map_err(io::Error::other)?;
                let mut wake = [PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN)];
                let _ = poll(&mut wake, Some(&gather));
                Ok(())
            }
        }
    }

    /// Hands over what is in the ring, oldest first, but for the youngest. Returns whether there may be more.
    pub fn drain(&mut self, each: impl FnMut(Header, Record<'_>)) -> bool {
        // Before the ring is read: what enters it from here on is younger.
        let BootNs(now) = boottime_ns();
        let more = self.take_up_to(BATCH_BYTES);
        // With more in the ring already, what is younger than the youngest here, less the window, has to wait for it.
        let newest = if more { self.waiting.newest().unwrap_or(now).min(now) } else { now };
        self.release(newest.saturating_sub(REORDER_WINDOW.as_nanos() as u64), each);
        more
    }

    /// Takes over what is in the ring and hands over nothing. Of more than `HELD_BYTES` the rest stays in the ring, where
    /// the kernel counts what it has no room for.
    pub fn hold(&mut self) {
        self.take_up_to(HELD_BYTES);
    }

    /// Takes records from the ring until so many bytes wait. Returns whether there may be more.
    fn take_up_to(&mut self, bytes: usize) -> bool {
        take(&mut self.ring, &mut self.waiting, bytes, &mut self.received, &mut self.malformed)
    }

    /// Hands over all that has been read, when no more is to come.
    pub fn finish(&mut self, mut each: impl FnMut(Header, Record<'_>)) {
        while !self.waiting.is_empty() {
            self.release(u64::MAX, &mut each);
        }
    }

    /// Hands over what is ripe. Of a large backlog that takes long: the ring is emptied meanwhile.
    fn release(&mut self, ripe: u64, mut each: impl FnMut(Header, Record<'_>)) {
        let Self { ring, waiting, late, received, malformed, .. } = self;
        let mut released = 0_u64;
        waiting.release(ripe, |bytes| {
            match decode(bytes) {
                Ok((header, record)) => each(header, record),
                Err(_) => *malformed += 1,
            }
            released += 1;
            if released.is_multiple_of(RELEASED_BETWEEN) {
                take(ring, late, HELD_BYTES, received, malformed);
            }
        });
        late.release(u64::MAX, |bytes| {
            if let Some(boot_ns) = bytes.first_chunk::<8>() {
                waiting.push(u64::from_ne_bytes(*boot_ns), bytes);
            }
        });
    }
}

/// Takes records from the ring until so many bytes wait. Returns whether there may be more.
fn take(
    ring: &mut RingBuf<MapData>,
    waiting: &mut Reorder,
    bytes: usize,
    received: &mut u64,
    malformed: &mut u64,
) -> bool {
    while waiting.bytes() < bytes {
        let Some(item) = ring.next() else { return false };
        *received += 1;
        match item.first_chunk::<8>() {
            Some(boot_ns) => waiting.push(u64::from_ne_bytes(*boot_ns), &item),
            None => *malformed += 1,
        }
    }
    true
}
