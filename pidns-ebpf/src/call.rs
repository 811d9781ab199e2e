//! Notes of the functions inside a call of unshare, setns or clone, kept until the call returns: the call's result does
//! not show which of them refused.

use aya_ebpf::{EbpfContext, macros::map, maps::LruHashMap};

use crate::{
    access::{Access as _, Probed},
    kernel::Task,
};

/// The notes of one call so far; all zeros if there are none.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Call {
    /// `start_boottime` of the thread, which distinguishes it from an earlier one of its id.
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
    /// Number of PIDs that the caller chose and got.
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

    /// Takes the notes of this thread's call, which has returned.
    #[inline(always)]
    pub(crate) fn take(tid: u32, start_boot_ns: u64) -> Self {
        // SAFETY: a map value, copied at once.
        let Some(call) = unsafe { CALLS.get(&tid) }.copied() else { return Self::nothing(start_boot_ns) };
        let _ = CALLS.remove(&tid);
        if call.start_boot_ns == start_boot_ns { call } else { Self::nothing(start_boot_ns) }
    }

    /// Takes the notes of the running thread's call.
    #[inline(always)]
    pub(crate) fn take_own() -> Self {
        let task = Task::current();
        Self::take(task.pid(), task.start_boottime())
    }

    /// Begins the notes of the running thread's call.
    #[inline(always)]
    pub(crate) fn begin(note: impl Fn(&mut Self)) {
        let task = Task::current();
        let mut call = Self::nothing(task.start_boottime());
        note(&mut call);
        // An LRU map always has room.
        let _ = CALLS.insert(&task.pid(), &call, 0);
    }

    /// Adds to the notes of the running thread's call.
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

/// By thread id. They leave when the call returns; those of calls whose return went by unseen are the first to be
/// forgotten.
#[map]
static CALLS: LruHashMap<u32, Call> = LruHashMap::with_max_entries(4_096, 0);

/// A word of a hooked function's context (its arguments in order, then its result) as a plain number: of a pointer
/// that a hook hands over the verifier lets no program take the negative, or keep it.
#[inline(always)]
pub(crate) fn word(ctx: &impl EbpfContext, number: usize) -> u64 {
    // SAFETY: the context is an array of that many words; an integer, copied by helper.
    unsafe { Probed::read(ctx.as_ptr().cast::<u64>().cast_const().add(number).cast()) }
}

/// The positive errno that a pointer stands for (`IS_ERR`, include/linux/err.h); 0 for a real pointer.
#[inline(always)]
pub(crate) fn pointer_errno(pointer: u64) -> u32 {
    const MAX_ERRNO: u64 = 4_095;
    let negated = pointer.wrapping_neg();
    if negated <= MAX_ERRNO { negated as u32 } else { 0 }
}
