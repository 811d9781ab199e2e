//! Counters of each namespace, for the mode in which no events of processes cross to user space.
//!
//! Each CPU has a table of [`SLOTS`] slots in one array that user space maps. A namespace takes the first free slot that it
//! finds on a CPU, and keeps it: the kernel side never moves it, and user space gives it back when the namespace is gone. So a
//! reader that adds up all slots of a namespace reads no number twice, and none ever falls.

use super::vocabulary::vocabulary;

vocabulary! {
    /// How a process ended. If several apply, the last one in this list counts.
    ExitReason {
        /// By itself, with 0.
        Ok = 0,
        /// By itself, with another code.
        Error = 1,
        /// By a signal.
        Signal = 2,
        /// By SIGKILL because the init of its namespace, or of one above, had died: the kernel then kills every member.
        Cascade = 3,
        /// By SIGKILL, after the kernel chose it when memory ran out.
        OomKill = 4,
    }
}

vocabulary! {
    /// Index in [`NamespaceCounters`].
    Counted {
        /// Processes forked into it.
        Forks = 0,
        /// Programs executed.
        Execs = 1,
        /// Processes that ended with [`ExitReason::Ok`]; those with the other reasons follow.
        Exits = 2,
        /// Threads created, without the first threads of processes.
        ThreadsCreated = 7,
        /// Threads ended that were not their process's last.
        ThreadsEnded = 8,
    }
}

/// Counters of a namespace.
pub const COUNTED: usize = 9;

const _: () = assert!(Counted::Exits as usize + ExitReason::ALL.len() == Counted::ThreadsCreated as usize);

/// Which namespace: the kernel gives an inode number out again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct NamespaceId {
    /// The kernel's own number for it (6.18 and later), else its init's `start_boottime`. Never 0.
    pub id: u64,
    /// Its inode number.
    pub inum: u32,
    /// 0.
    pub reserved: u32,
}

impl NamespaceId {
    /// `id` 0 stands for one that nothing distinguishes from others of its number.
    #[inline(always)]
    pub const fn new(id: u64, inum: u32) -> Self {
        Self { id: if id == 0 { 1 } else { id }, inum, reserved: 0 }
    }

    /// First slot of the search for its slot.
    #[inline(always)]
    pub const fn first_slot(self) -> u32 {
        first_slot(self.id)
    }
}

/// First slot of the search for the slot of the namespace with this [`NamespaceId::id`].
#[inline(always)]
pub const fn first_slot(id: u64) -> u32 {
    // The golden ratio's bits spread numbers that follow each other.
    let spread = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (spread >> (u64::BITS - SLOTS.ilog2())) as u32
}

/// Counters of one namespace on one CPU, by [`Counted`]. Totals since a program first saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct NamespaceCounters(pub [u64; COUNTED]);

/// A slot of a CPU's table. The busiest counters are in the cache line of its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CounterSlot {
    /// The namespace that it counts for; `id` 0: the slot is free, and the counters mean nothing. The kernel side
    /// writes `id` last when it takes a slot.
    pub key: NamespaceId,
    /// The counters.
    pub counters: NamespaceCounters,
    /// Zeros: two cache lines to a slot.
    pub reserved: [u64; 5],
}

/// Slots of a CPU for namespaces; a power of two.
pub const SLOTS: u32 = 512;
/// Number of slots that are tried, from the first one on, before a namespace goes to the hash map.
pub const PROBES: u32 = 4;
/// The slot of the initial namespace, before those of the others.
pub const HOST_SLOT: u32 = 0;
/// The shared slot of all namespaces for which the table and the hash map were full.
pub const TOGETHER_SLOT: u32 = 1;
/// The first slot for namespaces.
pub const FIRST_SLOT: u32 = 2;
/// Slots of a CPU.
pub const CPU_SLOTS: u32 = FIRST_SLOT + SLOTS;
/// Most namespaces in the hash map.
pub const MORE_NAMESPACES: u32 = 16_384;

const _: () = assert!(SLOTS.is_power_of_two());
const _: () = assert!(size_of::<NamespaceId>() == 16 && size_of::<CounterSlot>() == 128);
