//! Runs the body of a program without preemption. If that is not enough, a second program does skipped work.
//!
//! The kernel skips a program that is already running on that CPU. If a task is preempted inside a program, the kernel
//! skips that program for all other tasks on the CPU until the task runs again. Function hooks have always been
//! preemptible; tracepoints are since 7.0. Therefore two kfuncs (6.10 and later) turn preemption off and on around the
//! work. If the time slice ends meanwhile, the kernel would preempt the task at the second kfunc, which is still inside
//! the program. So interrupts are off during that call (two more kfuncs, 6.14 and later), and the kernel preempts the
//! task right after the program. An interrupt within the few instructions before and after the work remains possible.
//! So on kernels with preemptible tracepoints a second program follows each program on a busy tracepoint, and does the
//! work if the kernel skipped the first one.

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_get_smp_processor_id},
    macros::map,
    maps::Array,
};
use pidns_ebpf::abi::{
    names::DONE_ENTRIES,
    symbols::{IRQ_RESTORE, IRQ_SAVE, PREEMPT_DISABLE, PREEMPT_ENABLE, placeholder},
};

use crate::{
    layout::{Constant as _, HAVE_IRQ_KFUNCS, HAVE_PREEMPT_KFUNCS, SECOND_PROGRAM},
    maps::count,
};

/// Calls a kfunc with or without an argument. aya does not support kfuncs, so user space writes the kfunc's number into
/// the instruction (`kernel/fill_in.rs`).
macro_rules! call {
    ($kfunc:path $(, $argument:expr)?) => {
        // SAFETY: this is `kfunc_call`. It changes r0 to r5 and the memory that its argument points to. If the kernel
        // lacks the kfunc, it is dead code.
        unsafe {
            asm!(
                ".byte 0x85, 0x20, 0, 0",
                ".long {number}",
                number = const placeholder($kfunc),
                $(in("r1") $argument,)?
                out("r0") _, lateout("r1") _, out("r2") _, out("r3") _, out("r4") _, out("r5") _,
            );
        }
    };
}

/// Tasks whose first program has run, until the second program has checked that. There is one slot per task and
/// tracepoint ([`slot`]), or only one element if there is no second program.
#[map]
static DONE: Array<u32> = Array::with_max_entries(DONE_ENTRIES, 0);

/// The slot of the running task at this tracepoint, and the slot's value after the first program has run. Tasks whose
/// ids share the lowest 16 bits share a slot. That matters only if both are between the two programs of the same
/// tracepoint at the same time.
#[inline(always)]
fn slot<const HOOK: u32>() -> (u32, u32) {
    let tid = bpf_get_current_pid_tgid() as u32;
    // Each CPU has an idle task, and all of them have the id 0.
    // SAFETY: the helper has no preconditions.
    let id = if tid == 0 { !unsafe { bpf_get_smp_processor_id() } } else { tid };
    ((id & 0xffff) << 2 | HOOK, id)
}

/// Runs the body of the first program of a tracepoint. `HOOK` is a [`pidns_ebpf::abi::DoubleHook`]. It is a const
/// parameter, because verifiers must know its value even if the compiler turns the bodies into functions. If
/// tracepoints are not preemptible on this kernel, there is no second program, and the body runs without precautions.
#[inline(always)]
pub(crate) fn first<const HOOK: u32>(body: impl FnOnce()) -> i32 {
    if !SECOND_PROGRAM.is_on() {
        body();
        return 0;
    }
    undisturbed(|| {
        body();
        let (slot, id) = slot::<HOOK>();
        let _ = DONE.set(slot, &id, 0);
    })
}

/// Runs the body if the kernel skipped the first program.
#[inline(always)]
pub(crate) fn second<const HOOK: u32>(body: impl FnOnce()) -> i32 {
    undisturbed(|| {
        let (slot, id) = slot::<HOOK>();
        if let Some(done) = DONE.get_ptr_mut(slot) {
            // SAFETY: a map value.
            unsafe {
                if *done == id {
                    *done = 0;
                    return;
                }
            }
        }
        count(|counters| counters.second_runs[HOOK as usize] += 1);
        body();
    })
}

/// Runs a program's body without preemption, if this kernel has the kfuncs.
#[inline(always)]
pub(crate) fn undisturbed(body: impl FnOnce()) -> i32 {
    if HAVE_PREEMPT_KFUNCS.is_on() {
        call!(PREEMPT_DISABLE);
    }
    body();
    if HAVE_PREEMPT_KFUNCS.is_on() {
        if HAVE_IRQ_KFUNCS.is_on() {
            // The verifier requires uninitialized memory on the stack for the flags.
            let mut flags = MaybeUninit::<u64>::uninit();
            call!(IRQ_SAVE, flags.as_mut_ptr());
            call!(PREEMPT_ENABLE);
            call!(IRQ_RESTORE, flags.as_mut_ptr());
        } else {
            call!(PREEMPT_ENABLE);
        }
    }
    0
}
