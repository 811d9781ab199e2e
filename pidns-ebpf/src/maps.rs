//! The maps. Each has a stated bound; what does not fit is counted in [`COUNTERS`].

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use pidns_ebpf::abi::{Counters, Dying, Zombie, names};

/// Carries the records; user space sets its size (`--ring-size`).
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

#[map]
pub(crate) static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);

/// To the namespace's identity, once it has been met.
#[map]
pub(crate) static FILTER_NS_INUMS: HashMap<u32, u64> =
    HashMap::with_max_entries(names::FILTER_ENTRIES, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static FILTER_PID_SET: HashMap<u32, u8> =
    HashMap::with_max_entries(names::FILTER_ENTRIES, BPF_F_NO_PREALLOC);

/// Zombies by the address of their leader's task, which stays theirs until it is freed.
#[map]
pub(crate) static ZOMBIES: HashMap<u64, Zombie> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Dying namespaces by their init's thread group id.
#[map]
pub(crate) static DYING: HashMap<u32, Dying> = HashMap::with_max_entries(8_192, BPF_F_NO_PREALLOC);

/// Processes that a dying namespace sent SIGKILL to, by thread group id: the namespace's inode number. They leave
/// with their exit.
#[map]
pub(crate) static CASCADE: HashMap<u32, u32> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Where a thread's children go, if it was seen to change that.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ChildrenNs {
    pub(crate) start_boot_ns: u64,
    pub(crate) inum: u32,
    pub(crate) reserved: u32,
}

/// By thread id; the start time tells a thread from an earlier one of the same id.
#[map]
pub(crate) static CHILDREN_NS: LruHashMap<u32, ChildrenNs> = LruHashMap::with_max_entries(4_096, 0);

/// Most threads that a process had, by thread group id; only processes that ever had two. They leave with their exit.
#[map]
pub(crate) static PEAK_THREADS: HashMap<u32, u32> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);
