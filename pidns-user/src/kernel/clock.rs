//! The kernel's clocks.

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

/// What to add to a time on CLOCK_BOOTTIME for one on CLOCK_REALTIME, nanoseconds.
pub fn wall_offset_ns() -> i128 {
    // The narrowest of a few tries: between the two readings the process may have been interrupted.
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
