//! The maps. Each has a fixed capacity. If an entry does not fit, a counter in [`COUNTERS`] grows.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use pidns_ebpf::abi::{
    Counters, Dying, NamespacePart, ProcessKey, Writer,
    names::{self, NOTES_PER_PAGE},
};

/// Carries the records; user space sets its size (`--ring-size`).
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

#[map]
pub(crate) static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);

/// Adds to this CPU's counters.
#[inline(always)]
pub(crate) fn count(add: impl FnOnce(&mut Counters)) {
    if let Some(counters) = COUNTERS.get_ptr_mut(0) {
        // SAFETY: this CPU's element. Only one program writes each slot, and it does not interrupt itself.
        add(unsafe { &mut *counters });
    }
}

/// Inode number to the namespace's identity: 0 until a program first sees the namespace.
#[map]
pub(crate) static FILTER_NS_INUMS: HashMap<u32, u64> =
    HashMap::with_max_entries(names::FILTER_ENTRIES, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static FILTER_PID_SET: HashMap<u32, u8> =
    HashMap::with_max_entries(names::FILTER_ENTRIES, BPF_F_NO_PREALLOC);

/// A byte of notes per thread group id, so that the other hooks on a process need no lookup in a hash map: on a busy
/// machine each of those costs more than the rest of an exit. User space sets the number of pages.
#[map]
static PROCESS_NOTES: Array<[u8; NOTES_PER_PAGE as usize]> = Array::with_max_entries(1, 0);

/// The free must report that the process was reaped.
pub(crate) const AWAITS_REAP: u8 = 1;
/// The free may report the end of a teardown: the process is the init of a dying namespace.
pub(crate) const AWAITS_TEARDOWN: u8 = 2;
/// [`PEAK_THREADS`] has an entry of the process.
pub(crate) const HAS_PEAK: u8 = 4;

/// The notes about the process with this thread group id; `None` if pid_max was lower at load.
#[inline(always)]
pub(crate) fn notes(tgid: u32) -> Option<*mut u8> {
    let page = PROCESS_NOTES.get_ptr_mut(tgid / NOTES_PER_PAGE)?;
    // SAFETY: within the page.
    Some(unsafe { page.cast::<u8>().add((tgid % NOTES_PER_PAGE) as usize) })
}

/// Adds a note. Returns whether there is room for it.
#[inline(always)]
pub(crate) fn note(tgid: u32, what: u8) -> bool {
    let Some(notes) = notes(tgid) else { return false };
    // SAFETY: a map value. The threads of a process add only one note, which is the same for all, and its last thread
    // the others. Only a later process with this PID could add one at the same time as the free.
    unsafe { *notes |= what };
    true
}

/// Namespaces between their init's exit and the end of their teardown. The key is only the init's thread group id,
/// because every signal on the machine looks up its sender here and the id is cheap to get. Readers also compare the
/// start time.
#[map]
pub(crate) static DYING: HashMap<u32, Dying> = HashMap::with_max_entries(8_192, BPF_F_NO_PREALLOC);

/// Processes that received SIGKILL in a teardown, to the inode number of the dying namespace. Their exit removes them.
#[map]
pub(crate) static CASCADE: HashMap<ProcessKey, u32> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Processes whose exit was reported, for kernels before 6.16: there two threads can both look like the last one.
#[map]
pub(crate) static ENDED: LruHashMap<ProcessKey, u8> = LruHashMap::with_max_entries(1_024, 0);

/// See [`names::MAP_OBSERVED_SINCE`].
#[map]
pub(crate) static OBSERVED_SINCE: Array<u64> = Array::with_max_entries(1, 0);

/// Whether all hooks were already attached at this time (CLOCK_BOOTTIME, nanoseconds).
#[inline(always)]
pub(crate) fn observed_since(start_boot_ns: u64) -> bool {
    OBSERVED_SINCE.get(0).is_some_and(|&since| since != 0 && start_boot_ns >= since)
}

/// See [`names::MAP_ATTACHED`].
#[map]
pub(crate) static ATTACHED: Array<u32> = Array::with_max_entries(1, 0);

/// Whether all of these bits of [`names::attached`] are set.
#[inline(always)]
pub(crate) fn attached(bits: u32) -> bool {
    ATTACHED.get(0).is_some_and(|&all| all & bits == bits)
}

/// Namespaces that the kernel can destroy, because they have no living init: those made by unshare(2), until they get
/// one, and those whose init has exited. The key is the inode number, because proc_free_inum gets nothing else. An
/// entry is removed when the kernel frees the number; only then can another namespace, of whatever type, get it.
#[map]
pub(crate) static WITHOUT_INIT: HashMap<u32, NamespacePart> =
    HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// Adds a namespace without a living init.
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

/// Processes that the kernel chose to kill when memory ran out. The exit hook removes them, if it is attached.
#[map]
pub(crate) static OOM_VICTIMS: LruHashMap<ProcessKey, u8> = LruHashMap::with_max_entries(1_024, 0);

/// Inode number of a namespace to the last command of reboot(2) in it, until its init exits. If the kernel refuses a
/// command, the entry stays until the next command overwrites it.
#[map]
pub(crate) static REBOOTS: LruHashMap<u32, u32> = LruHashMap::with_max_entries(1_024, 0);

/// The namespace that a thread's children go to, if a hook saw the thread change it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ChildrenNs {
    pub(crate) start_boot_ns: u64,
    pub(crate) inum: u32,
    /// 1: unshare(2) created it. 0: the thread joined it, or it is unknown how.
    pub(crate) unshared: u32,
}

/// By thread id. The start time distinguishes a thread from an earlier one with the same id.
#[map]
pub(crate) static CHILDREN_NS: LruHashMap<u32, ChildrenNs> = LruHashMap::with_max_entries(4_096, 0);

/// Peak number of threads of processes that have had more than one. Their exit removes them. See [`HAS_PEAK`].
#[map]
pub(crate) static PEAK_THREADS: HashMap<ProcessKey, u32> =
    HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);
