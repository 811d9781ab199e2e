//! Running to the end without another task on this CPU in between.
//!
//! The kernel leaves a program out where it is running on that CPU already. Tracepoints used to keep other tasks off
//! their CPU; since 7.0 they do not, and functions never did: a task that is put aside within a program would have all
//! that others do there go unseen until it comes back. Two kfuncs (6.10 and later) keep it where it is.

use core::arch::asm;

use pidns_ebpf::abi::symbols::{PREEMPT_DISABLE_CALL, PREEMPT_ENABLE_CALL};

use crate::layout::HAVE_PREEMPT_KFUNCS;

/// Calls a kfunc without arguments. aya knows no kfuncs: user space puts its number in the place of `$number`
/// (`kernel/load.rs`) before the object is loaded.
macro_rules! call {
    ($number:path) => {
        // SAFETY: `kfunc_call($number)`, which changes r0 to r5 and nothing else of ours. Where there is no such kfunc
        // it is dead code.
        unsafe {
            asm!(
                ".byte 0x85, 0x20, 0, 0",
                ".long {number}",
                number = const $number,
                out("r0") _, out("r1") _, out("r2") _, out("r3") _, out("r4") _, out("r5") _,
            );
        }
    };
}

/// Runs a program's body.
#[inline(always)]
pub(crate) fn undisturbed(body: impl FnOnce()) -> i32 {
    if HAVE_PREEMPT_KFUNCS.load() != 0 {
        call!(PREEMPT_DISABLE_CALL);
    }
    body();
    if HAVE_PREEMPT_KFUNCS.load() != 0 {
        call!(PREEMPT_ENABLE_CALL);
    }
    0
}
