//! Notes about the functions that the kernel calls inside unshare, setns or clone. They are kept until the system call
//! returns, because its result does not show which function refused it.

use aya_ebpf::{EbpfContext, macros::map, maps::LruHashMap};

use crate::{
    access::{Access as _, Probed},
    kernel::Task,
};

/// The notes about one call so far; all zeros if there are none.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Call {
    /// `start_boottime` of the thread, which distinguishes it from an earlier one with the same id.
    start_boot_ns: u64,
    /// Address of the namespace that copy_pid_ns created.
    pub(crate) created: u64,
    /// Address of the namespace that pidns_install was asked to join.
    pub(crate) target: u64,
    /// Error of copy_pid_ns.
    pub(crate) create_errno: u32,
    /// Error of pidns_install.
    pub(crate) join_errno: u32,
    /// Error of alloc_pid.
    pub(crate) pid_errno: u32,
    /// Number of PIDs that the caller chose.
    pub(crate) chosen_pids: u32,
}

impl Call {
    const fn nothing(start_boot_ns: u64) -> Self {
        Self {
            start_boot_ns,
            created: 0,
            target: 0,
            create_errno: 0,
            join_errno: 0,
            pid_errno: 0,
            chosen_pids: 0,
        }
    }

    /// Removes the notes about this thread's call, which has returned, and returns them.
    #[inline(always)]
    pub(crate) fn take(tid: u32, start_boot_ns: u64) -> Self {
        // SAFETY: a map value, copied at once.
        let Some(call) = unsafe { CALLS.get(&tid) }.copied() else { return Self::nothing(start_boot_ns) };
        let _ = CALLS.remove(&tid);
        if call.start_boot_ns == start_boot_ns { call } else { Self::nothing(start_boot_ns) }
    }

    /// Like [`Self::take`], for the running thread.
    #[inline(always)]
    pub(crate) fn take_own() -> Self {
        let task = Task::current();
        Self::take(task.pid(), task.start_boottime())
    }

    /// Starts new notes about the running thread's call.
    #[inline(always)]
    pub(crate) fn begin(note: impl Fn(&mut Self)) {
        let task = Task::current();
        let mut call = Self::nothing(task.start_boottime());
        note(&mut call);
        // An LRU map always has room.
        let _ = CALLS.insert(&task.pid(), &call, 0);
    }

    /// Adds to the notes about the running thread's call.
    #[inline(always)]
    pub(crate) fn note(add: impl Fn(&mut Self)) {
        let task = Task::current();
        if let Some(call) = CALLS.get_ptr_mut(&task.pid())
            // SAFETY: a map value that only this thread writes.
            && unsafe { (*call).start_boot_ns } == task.start_boottime()
        {
            // SAFETY: as above.
            add(unsafe { &mut *call });
        } else {
            Self::begin(add);
        }
    }
}

/// By thread id. An entry is removed when the call returns. If no hook sees the return, the entry becomes the oldest
/// one, which the map evicts first.
#[map]
static CALLS: LruHashMap<u32, Call> = LruHashMap::with_max_entries(4_096, 0);

/// A word of a hooked function's context (its arguments in order, then its result) as a plain number. The verifier does
/// not allow a program to negate or store a pointer that the hook passes.
#[inline(always)]
pub(crate) fn word(ctx: &impl EbpfContext, number: usize) -> u64 {
    // SAFETY: the context is an array of u64 that has this index. A helper copies the integer.
    unsafe { Probed::read(ctx.as_ptr().cast::<u64>().cast_const().add(number).cast()) }
}

/// The positive errno that a pointer encodes (`IS_ERR`, include/linux/err.h); 0 for a real pointer.
#[inline(always)]
pub(crate) fn pointer_errno(pointer: u64) -> u32 {
    const MAX_ERRNO: u64 = 4_095;
    let negated = pointer.wrapping_neg();
    if negated <= MAX_ERRNO { negated as u32 } else { 0 }
}
