//! PIDs that a caller chose with clone3's `set_tid`, and the process that has the one that the kernel refused.

use aya_ebpf::helpers::generated;
use pidns_ebpf::abi::{MAX_CHOSEN, PidUse};

use crate::{
    access::{Access as _, Probed},
    kernel::{PidNamespace, Task, bounded},
    layout::*,
};

/// The list of PIDs that a call chose, the innermost first.
#[derive(Clone, Copy)]
pub(crate) struct Chosen {
    /// Address of the list.
    pub(crate) at: u64,
    /// Number of PIDs. The kernel accepts at most [`MAX_CHOSEN`].
    pub(crate) count: u64,
    /// Whether the list is in kernel memory, not in the caller's memory.
    pub(crate) in_kernel: bool,
}

impl Chosen {
    pub(crate) const NONE: Self = Self { at: 0, count: 0, in_kernel: true };

    /// Copies the list. Returns the number of PIDs; 0 if it cannot be read.
    ///
    /// # Safety
    /// `to` must have room for [`MAX_CHOSEN`].
    #[inline(always)]
    pub(crate) unsafe fn copy(self, to: *mut u32) -> u32 {
        if self.count == 0 || self.count > MAX_CHOSEN as u64 {
            return 0;
        }
        let count = bounded(self.count.min(MAX_CHOSEN as u64));
        let (size, from) = (count as u32 * 4, self.at as *const core::ffi::c_void);
        // SAFETY: the caller's promise; the helpers check the source.
        let failed = unsafe {
            if self.in_kernel {
                generated::bpf_probe_read_kernel(to.cast(), size, from)
            } else {
                generated::bpf_probe_read_user(to.cast(), size, from)
            }
        };
        if failed == 0 { count as u32 } else { 0 }
    }
}

/// A chosen PID that is in use.
#[derive(Clone, Copy)]
pub(crate) struct Taken {
    /// The PID.
    pub(crate) number: u32,
    /// Inode number of the namespace in which it is in use.
    pub(crate) ns: u32,
    pub(crate) by: PidUse,
    /// The first thread of the process that has it; `None` if it has just gone.
    pub(crate) holder: Option<Task<Probed>>,
}

/// The first of these PIDs that is in use, in the order in which alloc_pid (kernel/pid.c) takes them: the innermost
/// first. The first `skip` PIDs are for namespaces within `ns`, and the next one is for `ns`.
///
/// # Safety
/// `chosen` must have room for [`MAX_CHOSEN`] numbers, and the first `count` must be set.
#[inline(always)]
pub(crate) unsafe fn taken(
    chosen: *const u32,
    count: u32,
    skip: u32,
    mut ns: PidNamespace<Probed>,
) -> Option<Taken> {
    if !present(PIDNS_PIDS) || !present(PID_TASKS) || !present(TASK_PID_LINKS) {
        return None;
    }
    for index in 0..MAX_CHOSEN as u32 {
        if index + skip >= count || ns.is_null() {
            break;
        }
        // SAFETY: the caller's promise.
        let number = unsafe { chosen.add((index + skip) as usize).read_volatile() };
        let pid = pid_of(ns, number);
        if !pid.is_null() {
            let (by, holder) = holder_of(pid);
            return Some(Taken { number, ns: ns.inum(), by, holder });
        }
        ns = ns.parent();
    }
    None
}

/// The `struct pid` of a number in a namespace; null if there is none. Like `idr_find()`, this searches the tree of
/// `struct xa_node` (lib/radix-tree.c, lib/xarray.c).
#[inline(always)]
fn pid_of(ns: PidNamespace<Probed>, number: u32) -> *const u8 {
    /// Enough for the largest PID (`PID_MAX_LIMIT`, include/linux/threads.h: 22 bits) if each level of the tree has
    /// four bits.
    const MAX_DEPTH: u32 = 6;
    if !present(XA_NODE_SHIFT) || !present(XA_NODE_SLOTS) || !present(XA_NODE_TAGS) {
        return core::ptr::null();
    }
    // `XA_CHUNK_SIZE`: the tags follow the slots in the structure.
    let slots = u64::from(XA_NODE_TAGS.load() - XA_NODE_SLOTS.load()) / size_of::<u64>() as u64;
    // `XA_CHUNK_SHIFT`: a node's slots are indexed by that many bits of the number, those of its children by the next
    // ones.
    let bits: u32 = if slots == 64 { 6 } else { 4 };
    let root: u64 = ns.field(PIDNS_PIDS);
    if !is_node(root) {
        // A tree without a node has at most the number 0.
        return core::ptr::null();
    }
    // SAFETY: an integer within the node, copied by a helper.
    let shift: u8 = unsafe { Probed::read(((root - INTERNAL) as *const u8).add(XA_NODE_SHIFT.offset())) };
    let mut shift = u32::from(shift);
    if u64::from(number).wrapping_shr(shift) >= slots {
        // The number is larger than any in the tree.
        return core::ptr::null();
    }
    let mut entry = root;
    for _ in 0..MAX_DEPTH {
        if !is_node(entry) {
            break;
        }
        let slot = u64::from(number).wrapping_shr(shift) & (slots - 1);
        let at = entry - INTERNAL + u64::from(XA_NODE_SLOTS.load()) + slot * size_of::<u64>() as u64;
        // SAFETY: a pointer within the node, copied by a helper.
        entry = unsafe { Probed::read(at as *const u8) };
        shift = shift.wrapping_sub(bits);
    }
    // A number that is being allocated has no `struct pid` yet.
    if entry & 3 != 0 { core::ptr::null() } else { entry as *const u8 }
}

/// The mark in the address of a node (`xa_mk_node()`, include/linux/xarray.h).
const INTERNAL: u64 = 2;

/// `xa_is_node()`: whether this is a marked address, and not an internal number.
#[inline(always)]
fn is_node(entry: u64) -> bool {
    const FIRST_ADDRESS: u64 = 4_096;
    entry & 3 == INTERNAL && entry > FIRST_ADDRESS
}

/// What the `struct pid` is in use as, and the first thread of the process that has it.
#[inline(always)]
fn holder_of(pid: *const u8) -> (PidUse, Option<Task<Probed>>) {
    /// `enum pid_type`, include/linux/pid_types.h.
    const PID: usize = 0;
    const PGID: usize = 2;
    const SID: usize = 3;
    let first = |kind: usize| -> Option<Task<Probed>> {
        // SAFETY: a pointer, copied by a helper, from `struct hlist_head tasks[]`. It points to an element of the
        // `struct hlist_node pid_links[]` of a task.
        unsafe {
            let node: *const u8 = Probed::read(pid.add(PID_TASKS.offset() + kind * size_of::<u64>()));
            let links = TASK_PID_LINKS.offset() + kind * 2 * size_of::<u64>();
            (!node.is_null()).then(|| Task::at(node.sub(links)))
        }
    };
    let (by, task) = if let Some(task) = first(PID) {
        (if task.pid() == task.tgid() { PidUse::Process } else { PidUse::Thread }, Some(task))
    } else if let Some(member) = first(PGID) {
        (PidUse::ProcessGroup, Some(member))
    } else {
        (PidUse::Session, first(SID))
    };
    let leader = task.map(Task::group_leader);
    (by, leader.filter(|leader| leader.is_numbered()))
}
