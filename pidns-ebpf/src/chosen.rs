//! PIDs that a fork chose by clone3's `set_tid`, and who has the one that the kernel refused.

use aya_ebpf::helpers::generated;
use pidns_ebpf::abi::{MAX_CHOSEN, PidUse};

use crate::{
    access::{Access as _, Probed},
    kernel::{PidNamespace, Task, bounded},
    layout::*,
};

/// Where a call has the PIDs that it chose, the innermost first.
#[derive(Clone, Copy)]
pub(crate) struct Chosen {
    /// Address of the list.
    pub(crate) at: u64,
    /// How many there are; the kernel takes [`MAX_CHOSEN`] at most.
    pub(crate) count: u64,
    /// Whether the list is in the kernel's memory, not in the caller's.
    pub(crate) in_kernel: bool,
}

impl Chosen {
    pub(crate) const NONE: Self = Self { at: 0, count: 0, in_kernel: true };

    /// Copies the list; returns how many there are, 0 where it cannot be read.
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
    /// Inode number of the namespace in which it is.
    pub(crate) ns: u32,
    pub(crate) by: PidUse,
    /// The first thread of the process that has it, if there is one: it may have just gone.
    pub(crate) holder: Option<Task<Probed>>,
}

/// The first of these PIDs that is in use, in the order in which alloc_pid (kernel/pid.c) takes them: the innermost, of `ns`, first.
///
/// # Safety
/// There must be room for [`MAX_CHOSEN`] numbers, of which `count` are there. `skip` of them are for namespaces within `ns`.
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

/// The `struct pid` of a number in a namespace; null where there is none. `idr_find()`: the tree of `struct xa_node` that is searched
/// through here is that of lib/radix-tree.c and lib/xarray.c.
#[inline(always)]
fn pid_of(ns: PidNamespace<Probed>, number: u32) -> *const u8 {
    /// Enough for the largest PID (`PID_MAX_LIMIT`, include/linux/threads.h: 22 bits) where each level has four bits.
    const MAX_DEPTH: u32 = 6;
    if !present(XA_NODE_SHIFT) || !present(XA_NODE_SLOTS) || !present(XA_NODE_TAGS) {
        return core::ptr::null();
    }
    // `XA_CHUNK_SIZE`: the tags stand behind the slots.
    let slots = u64::from(XA_NODE_TAGS.load() - XA_NODE_SLOTS.load()) / size_of::<u64>() as u64;
    // `XA_CHUNK_SHIFT`: a node's slots are that many bits of the number, and those of its children the next ones.
    let bits: u32 = if slots == 64 { 6 } else { 4 };
    let root: u64 = ns.field(PIDNS_PIDS);
    if !is_node(root) {
        // A tree without a node has the number 0 alone.
        return core::ptr::null();
    }
    // SAFETY: an integer within the node, copied by helper.
    let shift: u8 =
        unsafe { Probed::read(((root - INTERNAL) as *const u8).add(XA_NODE_SHIFT.load() as usize)) };
    let mut shift = u32::from(shift);
    if u64::from(number).wrapping_shr(shift) >= slots {
        // Beyond all that the tree has.
        return core::ptr::null();
    }
    let mut entry = root;
    for _ in 0..MAX_DEPTH {
        if !is_node(entry) {
            break;
        }
        let slot = u64::from(number).wrapping_shr(shift) & (slots - 1);
        let at = entry - INTERNAL + u64::from(XA_NODE_SLOTS.load()) + slot * size_of::<u64>() as u64;
        // SAFETY: a pointer within the node, copied by helper.
        entry = unsafe { Probed::read(at as *const u8) };
        shift = shift.wrapping_sub(bits);
    }
    // A number that is being given out has no `struct pid` yet.
    if entry & 3 != 0 { core::ptr::null() } else { entry as *const u8 }
}

/// What the address of a node is marked with (`xa_mk_node()`, include/linux/xarray.h).
const INTERNAL: u64 = 2;

/// `xa_is_node()`: a marked address, above the internal numbers.
#[inline(always)]
fn is_node(entry: u64) -> bool {
    const FIRST_ADDRESS: u64 = 4_096;
    entry & 3 == INTERNAL && entry > FIRST_ADDRESS
}

/// As what the `struct pid` is in use, and by whom.
#[inline(always)]
fn holder_of(pid: *const u8) -> (PidUse, Option<Task<Probed>>) {
    /// `enum pid_type`, include/linux/pid_types.h.
    const PID: usize = 0;
    const PGID: usize = 2;
    const SID: usize = 3;
    let first = |kind: usize| -> Option<Task<Probed>> {
        // SAFETY: a pointer, copied by helper: `struct hlist_head tasks[]`, and the `struct hlist_node pid_links[]` of a task that
        // it leads to.
        unsafe {
            let node: *const u8 = Probed::read(pid.add(PID_TASKS.load() as usize + kind * size_of::<u64>()));
            let links = TASK_PID_LINKS.load() as usize + kind * 2 * size_of::<u64>();
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
