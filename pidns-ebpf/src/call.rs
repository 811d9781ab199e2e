//! What the functions inside a call of unshare, setns or clone did, kept until the call returns: the call's own result
//! does not tell which of them refused.

use aya_ebpf::{EbpfContext, macros::map, maps::LruHashMap};

use crate::access::{Access as _, Probed};

/// So far. A call of which nothing is worth a note has all zeros.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Call {
    /// Address of the namespace that copy_pid_ns created.
    pub(crate) created: u64,
    /// Address of the namespace that pidns_install was asked to join.
    pub(crate) target: u64,
    /// What copy_pid_ns refused with.
    pub(crate) create_errno: u32,
    /// What pidns_install refused with.
    pub(crate) join_errno: u32,
    /// What alloc_pid refused with.
    pub(crate) pid_errno: u32,
    /// PIDs that the caller chose, and got.
    pub(crate) chosen_pids: u32,
}

impl Call {
    const NOTHING: Self =
        Self { created: 0, target: 0, create_errno: 0, join_errno: 0, pid_errno: 0, chosen_pids: 0 };

    /// What is noted of the thread's call.
    #[inline(always)]
    pub(crate) fn of(tid: u32) -> Self {
        // SAFETY: a map value, copied at once.
        unsafe { CALLS.get(&tid) }.copied().unwrap_or(Self::NOTHING)
    }

    /// Likewise, and the call is over.
    #[inline(always)]
    pub(crate) fn take(tid: u32) -> Self {
        let call = Self::of(tid);
        let _ = CALLS.remove(&tid);
        call
    }

    /// Adds to what is noted of the thread's call.
    #[inline(always)]
    pub(crate) fn note(tid: u32, add: impl Fn(&mut Self)) {
        if let Some(call) = CALLS.get_ptr_mut(&tid) {
            // SAFETY: a map value that only this thread writes.
            add(unsafe { &mut *call });
        } else {
            let mut call = Self::NOTHING;
            add(&mut call);
            // An LRU map always has room.
            let _ = CALLS.insert(&tid, &call, 0);
        }
    }
}

/// By thread id. They leave when the call returns; those of calls whose return went by unseen are the first to be
/// forgotten.
#[map]
static CALLS: LruHashMap<u32, Call> = LruHashMap::with_max_entries(4_096, 0);

/// A word of a hooked function's context (its arguments in order, then its result) as a plain number: of a pointer
/// that a hook hands over the verifier lets nobody take the negative, or keep it.
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
