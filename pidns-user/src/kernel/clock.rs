//! The kernel's clocks.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

use crate::event::identity::BootNs;

fn nanoseconds(clock: ClockId) -> i128 {
    let now = clock_gettime(clock);
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}

/// The time on CLOCK_BOOTTIME.
pub fn boottime_ns() -> BootNs {
    BootNs(u64::try_from(nanoseconds(ClockId::Boottime)).unwrap_or(0))
}

/// CPU time of the calling thread. On a busy host, wall time is many times as long for the same cost.
pub fn thread_cpu_time() -> Duration {
    Duration::from_nanos(u64::try_from(nanoseconds(ClockId::ThreadCPUTime)).unwrap_or(0))
}

/// The difference between CLOCK_REALTIME and CLOCK_BOOTTIME in nanoseconds: wall-clock time = boot time + this.
pub fn wall_offset_ns() -> i128 {
    // Take the try with the shortest time between the two readings, because the process may be interrupted between
    // them.
    (0..5)
        .map(|_| {
            let before = nanoseconds(ClockId::Boottime);
            let wall = nanoseconds(ClockId::Realtime);
            let after = nanoseconds(ClockId::Boottime);
            (after - before, wall - (before + after) / 2)
        })
        .min()
        .map_or(0, |(_, offset)| offset)
}

/// [`wall_offset_ns`], kept until the clock is set. Each reading differs by some nanoseconds, so without this the same
/// moment would have a different time in each scrape.
#[derive(Debug)]
pub struct SteadyWallOffset(AtomicI64);

impl SteadyWallOffset {
    /// A smaller change is due to the inaccuracy of the readings, or to a clock that is being slewed.
    const LEAST_CHANGE_NS: u64 = 1_000_000;

    /// The present difference.
    pub fn read() -> Self {
        Self(AtomicI64::new(i64::try_from(wall_offset_ns()).unwrap_or(0)))
    }

    /// The difference in nanoseconds, like [`wall_offset_ns`].
    pub fn ns(&self) -> i64 {
        self.or_now(i64::try_from(wall_offset_ns()).unwrap_or(0))
    }

    fn or_now(&self, now: i64) -> i64 {
        let held = self.0.load(Ordering::Relaxed);
        if held.abs_diff(now) < Self::LEAST_CHANGE_NS {
            return held;
        }
        self.0.store(now, Ordering::Relaxed);
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_keeps_its_time_until_the_clock_is_set() {
        let offset = SteadyWallOffset(AtomicI64::new(5_000_000_000));
        assert_eq!(offset.or_now(5_000_000_300), 5_000_000_000);
        assert_eq!(offset.or_now(4_999_999_700), 5_000_000_000);
        assert_eq!(offset.or_now(5_001_000_000), 5_001_000_000, "set by a millisecond");
        assert_eq!(offset.or_now(5_000_000_000), 5_000_000_000, "and back");
    }
}
