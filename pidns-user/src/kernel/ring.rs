//! Reads the ring buffer.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
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

/// A record waits this long, because an older one may be behind it in the ring.
const REORDER_WINDOW: Duration = Duration::from_millis(2);
/// Without a wake-up, the ring is read at this interval. Records of processes wake no reader.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// The same while no record has come for [`IDLE_AFTER`], so that an idle host has less work. The ring has room for what
/// a storm of forks sends in this time.
const IDLE_POLL_INTERVAL: Duration = Duration::from_millis(100);
const IDLE_AFTER: Duration = Duration::from_secs(1);
/// A woken reader waits this long before it reads, so that one wake-up serves all records of that time.
const GATHER: Duration = Duration::from_millis(4);
/// Size at which a batch ends, in bytes: memory stays bounded while events keep coming.
const BATCH_BYTES: usize = 2 << 20;

/// Maximum size in bytes of the records that are held while a snapshot is taken. It is enough for 2 million forks on
/// the host.
const HELD_BYTES: usize = 256 << 20;

/// Number of records of a large batch that are passed on before the ring is read again.
const RELEASED_BETWEEN: u64 = 4_096;

/// Wakes a waiting [`RingReader`] from another thread.
#[derive(Debug)]
pub struct Waker(OwnedFd);

impl Waker {
    /// Wakes the reader. From then on, its [`RingReader::wait`] returns at once.
    pub fn wake(&self) -> io::Result<()> {
        rustix::io::write(&self.0, &1u64.to_ne_bytes())?;
        Ok(())
    }

    /// Returns the event file; writing to it wakes the reader.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn event_file(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }
}

/// Reads, sorts and decodes the kernel's records.
pub struct RingReader {
    ring: RingBuf<MapData>,
    wake: OwnedFd,
    waiting: Reorder,
    /// Records that arrived while others were passed on.
    late: Reorder,
    received: u64,
    /// When a record last came.
    received_at: Instant,
    malformed: u64,
}

impl RingReader {
    /// Creates a reader of `ring`, and its waker.
    pub fn new(ring: RingBuf<MapData>) -> io::Result<(Self, Waker)> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let waker = Waker(wake.try_clone()?);
        let reader = Self {
            ring,
            wake,
            waiting: Reorder::default(),
            late: Reorder::default(),
            received: 0,
            received_at: Instant::now(),
            malformed: 0,
        };
        Ok((reader, waker))
    }

    /// Number of records taken from the ring.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Number of records that could not be decoded. Each is a fault of this program.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Waits for records, at most `limit`, or until another thread calls [`Waker::wake`].
    pub fn wait(&self, limit: Duration) -> io::Result<()> {
        let limit = limit.min(if !self.waiting.is_empty() {
            REORDER_WINDOW
        } else if self.received_at.elapsed() < IDLE_AFTER {
            POLL_INTERVAL
        } else {
            IDLE_POLL_INTERVAL
        });
        let timeout = Timespec::try_from(limit).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(&self.ring, PollFlags::IN), PollFd::new(&self.wake, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) if !fds[1].revents().is_empty() => Ok(()),
            Ok(_) => {
                // Poll only the event file, so that Ctrl-C ends the wait. If the ring were polled too, each record
                // would cost the kernel a wake-up.
                let gather = Timespec::try_from(GATHER).map_err(io::Error::other)?;
                let mut wake = [PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN)];
                let _ = poll(&mut wake, Some(&gather));
                Ok(())
            }
        }
    }

    /// Passes on the records in the ring, oldest first, except the newest. Returns whether there may be more.
    pub fn drain(&mut self, each: impl FnMut(Header, Record<'_>)) -> bool {
        // Take the time before reading the ring: records that enter later are younger.
        let BootNs(now) = boottime_ns();
        let more = self.take_up_to(BATCH_BYTES);
        // If the ring already has more records, some of them may be older than the newest one here. So the newest must
        // wait.
        let newest = if more { self.waiting.newest().unwrap_or(now).min(now) } else { now };
        self.release(newest.saturating_sub(REORDER_WINDOW.as_nanos() as u64), each);
        more
    }

    /// Takes records from the ring without passing any on. Beyond `HELD_BYTES` they stay in the ring, and when that is
    /// full the kernel counts lost records.
    pub fn hold(&mut self) {
        self.take_up_to(HELD_BYTES);
    }

    /// Takes records from the ring until this many bytes wait. Returns whether there may be more.
    fn take_up_to(&mut self, bytes: usize) -> bool {
        let before = self.received;
        let more = take(&mut self.ring, &mut self.waiting, bytes, &mut self.received, &mut self.malformed);
        if self.received > before {
            self.received_at = Instant::now();
        }
        more
    }

    /// Passes on all records. Call it when no more will come.
    pub fn finish(&mut self, mut each: impl FnMut(Header, Record<'_>)) {
        while !self.waiting.is_empty() {
            self.release(u64::MAX, &mut each);
        }
    }

    /// Passes on the records that are old enough. It empties the ring meanwhile, because this can take long.
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

/// Takes records from the ring until this many bytes wait. Returns whether there may be more.
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
