//! The maps. Each has a stated bound; what does not fit is counted in [`COUNTERS`].

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use pidns_ebpf::abi::{Counters, Dying, NamespacePart, ProcessKey, Writer, Zombie, names};

/// Carries the records; user space sets its size (`--ring-size`).
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

#[map]
pub(crate) static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);

/// Adds to this CPU's counters.
#[inline(always)]
pub(crate) fn count(add: impl FnOnce(&mut Counters)) {
    if let Some(counters) = COUNTERS.get_ptr_mut(0) {
        // SAFETY: this CPU's element; a slot is only written by one program, which does not interrupt itself.
        add(unsafe { &mut *counters });
    }
}

/// To the namespace's identity, once it has been met.
#[map]
pub(crate) static FILTER_NS_INUMS: HashMap<u32, u64> =
    HashMap::with_max_entries(names::FILTER_ENTRIES, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static FILTER_PID_SET: HashMap<u32, u8> =
    HashMap::with_max_entries(names::FILTER_ENTRIES, BPF_F_NO_PREALLOC);

/// Processes between their exit and their reaping, where sched_process_free reports that: they leave when their task is
/// freed.
#[map]
pub(crate) static ZOMBIES: HashMap<ProcessKey, Zombie> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Namespaces between their init's exit and the end of their teardown, by the init's thread group id: every signal on
/// the machine looks its sender up here, and this much of it is at hand. The reader of an entry compares the start.
#[map]
pub(crate) static DYING: HashMap<u32, Dying> = HashMap::with_max_entries(8_192, BPF_F_NO_PREALLOC);

/// Processes that a dying namespace sent SIGKILL to: the namespace's inode number. They leave with their exit.
#[map]
pub(crate) static CASCADE: HashMap<ProcessKey, u32> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Processes whose end was reported, where the hook calls two threads the last one (before 6.16).
#[map]
pub(crate) static ENDED: LruHashMap<ProcessKey, u8> = LruHashMap::with_max_entries(1_024, 0);

/// See [`names::MAP_OBSERVED_SINCE`].
#[map]
pub(crate) static OBSERVED_SINCE: Array<u64> = Array::with_max_entries(1, 0);

/// Whether all hooks were in place when something began at this moment (CLOCK_BOOTTIME, nanoseconds).
#[inline(always)]
pub(crate) fn observed_since(start_boot_ns: u64) -> bool {
    OBSERVED_SINCE.get(0).is_some_and(|&since| since != 0 && start_boot_ns >= since)
}

/// See [`names::MAP_ATTACHED`].
#[map]
pub(crate) static ATTACHED: Array<u32> = Array::with_max_entries(1, 0);

/// Whether the hooks with these bits ([`names::attached`]) are in place.
#[inline(always)]
pub(crate) fn attached(bits: u32) -> bool {
    ATTACHED.get(0).is_some_and(|&all| all & bits == bits)
}

/// Namespaces whose release can be, by inode number, which is all that proc_free_inum has: those that were unshared,
/// which have no init at first, and those whose init has exited. They leave when the number is released; another namespace,
/// of whatever type, gets it only then.
#[map]
pub(crate) static WITHOUT_INIT: HashMap<u32, NamespacePart> =
    HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// Adds a namespace to those that have no living init.
///
/// # Safety
/// `ns` must be readable.
#[inline(always)]
pub(crate) unsafe fn without_init(writer: Writer, ns: *const NamespacePart) {
    // SAFETY: the caller's promise.
    unsafe {
        if WITHOUT_INIT.insert(&(*ns).inum, &*ns, 0).is_err() {
            count(|counters| counters.destroys_untracked[writer as usize] += 1);
        }
    }
}

/// Processes that the kernel chose to kill when memory ran out. They leave with their exit, if the exit hook is on.
#[map]
pub(crate) static OOM_VICTIMS: LruHashMap<ProcessKey, u8> = LruHashMap::with_max_entries(1_024, 0);

/// What reboot(2) was called with inside a namespace, by the namespace's inode number, until its init's
/// exit. A command that the kernel refuses leaves it to the next one, which writes over it.
#[map]
pub(crate) static REBOOTS: LruHashMap<u32, u32> = LruHashMap::with_max_entries(1_024, 0);

/// Where a thread's children go, if it was seen to change that.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ChildrenNs {
    pub(crate) start_boot_ns: u64,
    pub(crate) inum: u32,
    /// 1: by unshare(2).
    pub(crate) unshared: u32,
}

/// By thread id; the start time distinguishes a thread from an earlier one of the same id.
#[map]
pub(crate) static CHILDREN_NS: LruHashMap<u32, ChildrenNs> = LruHashMap::with_max_entries(4_096, 0);

/// Most threads that a process had; only processes that ever had two. They leave with their exit.
#[map]
pub(crate) static PEAK_THREADS: HashMap<ProcessKey, u32> =
    HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);
