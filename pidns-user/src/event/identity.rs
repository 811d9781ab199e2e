//! Which process an event or a snapshot is about: its PID at level 0 and its start, which /proc rounds.

use super::Process;

/// Identity of a process: its PID at level 0, and its start (CLOCK_BOOTTIME, nanoseconds).
pub type Identity = (u32, u64);

pub(crate) fn identity(process: &Process) -> Identity {
    (process.pid, process.start_boot_ns)
}

/// Whether two words are about one process.
pub(crate) fn is_one(known: Identity, told: Identity) -> bool {
    known.0 == told.0 && is_one_time(known.1, told.1)
}

/// Whether two starts are one. A look reads from /proc what the task iterator leaves out (the host's PID 1 on some kernels,
/// and who was born meanwhile), and there a start is rounded down to a tick.
pub(crate) fn is_one_time(known: u64, told: u64) -> bool {
    known == told || rounded(known) == told || known == rounded(told)
}

/// A start as /proc has it: it counts in ticks (`USER_HZ` is 100 everywhere).
pub(crate) fn rounded(start: u64) -> u64 {
    start - start % TICK_NS
}

/// A tick of /proc: nanoseconds.
pub(crate) const TICK_NS: u64 = 10_000_000;
