//! Counters of each namespace, for the mode in which records of processes are not sent to user space.
//!
//! Each CPU has a table of [`SLOTS`] slots in one array that user space maps. A namespace takes the first free slot
//! that it finds on a CPU and keeps it: the kernel side never moves it, and user space frees it when the namespace is
//! gone. So a reader that adds up all slots of a namespace counts nothing twice, and no sum decreases.
//!
//! The key to a slot is the address of the kernel's `struct pid_namespace`, because the other fields that identify a
//! namespace are in a cache line that each fork and exit there writes. The kernel reuses addresses. So a slot also
//! stores the number of births at its address as of its last comparison with its namespace ([`first_slot`]).

use super::vocabulary::vocabulary;

vocabulary! {
    /// How a process ended. If several apply, the last one in this list counts.
    ExitReason {
        /// With exit code 0.
        Ok = 0,
        /// With another exit code.
        Error = 1,
        /// By a signal.
        Signal = 2,
        /// By SIGKILL, because the init of its namespace or of one above it had died: the kernel then kills all
        /// members.
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
        /// Threads created, except the first threads of processes.
        ThreadsCreated = 7,
        /// Threads ended, except the last threads of processes.
        ThreadsEnded = 8,
    }
}

/// Number of counters of a namespace.
pub const COUNTED: usize = 9;

const _: () = assert!(Counted::Exits as usize + ExitReason::ALL.len() == Counted::ThreadsCreated as usize);

/// Identifies a namespace. An inode number alone does not, because the kernel reuses it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct NamespaceId {
    /// The kernel's `ns_id` (6.18 and later), else `start_boottime` of its init. Never 0.
    pub id: u64,
    /// Its inode number.
    pub inum: u32,
    /// Padding: 0.
    pub reserved: u32,
}

impl NamespaceId {
    /// The namespace with this id and inode number. If `id` is 0, only its inode number identifies it.
    #[inline(always)]
    pub const fn new(id: u64, inum: u32) -> Self {
        Self { id: if id == 0 { 1 } else { id }, inum, reserved: 0 }
    }
}

/// Where the search for the slot of a namespace starts; `address` is the lower half of the namespace's address. It is
/// also the index of the count of births: the number of first processes forked in namespaces whose address has this
/// index.
#[inline(always)]
pub const fn first_slot(address: u64) -> u32 {
    // Multiplying by the bits of the golden ratio spreads consecutive numbers.
    let spread = address.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (spread >> (u64::BITS - SLOTS.ilog2())) as u32
}

/// Counters of one namespace on one CPU, by [`Counted`]: totals since a program first saw the namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct NamespaceCounters(pub [u64; COUNTED]);

/// A slot of a CPU's table. The busiest counters are in the same cache line as the address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CounterSlot {
    /// Address of the kernel's `struct pid_namespace`. 0: the slot is free, and the other fields mean nothing. The
    /// kernel side writes it last when it takes a slot.
    pub address: u64,
    /// Births at the address when the slot was last found to be the namespace's.
    pub births: u64,
    /// The counters.
    pub counters: NamespaceCounters,
    /// The namespace.
    pub key: NamespaceId,
    /// Padding: 0. A slot is two cache lines.
    pub zeros: [u64; 3],
}

/// Slots for namespaces on each CPU; a power of two.
pub const SLOTS: u32 = 512;
/// Number of slots that are tried before a namespace goes to the hash map.
pub const PROBES: u32 = 4;
/// The slot of the initial namespace.
pub const HOST_SLOT: u32 = 0;
/// The shared slot of namespaces for which the table and the hash map were full.
pub const SHARED_SLOT: u32 = 1;
/// The first slot for other namespaces.
pub const FIRST_SLOT: u32 = 2;
/// All slots of a CPU.
pub const CPU_SLOTS: u32 = FIRST_SLOT + SLOTS;
/// Capacity of the hash map, in namespaces.
pub const MORE_NAMESPACES: u32 = 16_384;

const _: () = assert!(SLOTS.is_power_of_two());
const _: () = assert!(size_of::<NamespaceId>() == 16 && size_of::<CounterSlot>() == 128);
