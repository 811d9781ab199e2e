//! Runs a program to its end without another task on this CPU in between, and a second program if that is not enough.
//!
//! The kernel skips a program that is already running on that CPU. Tracepoints used to keep other tasks off their CPU;
//! since 7.0 they do not, and functions never did: if a task is preempted within a program, the kernel skips that
//! program for all other tasks on the CPU until it runs again. Two kfuncs (6.10 and later) turn preemption off and on
//! around the work. A task whose time is up meanwhile would be preempted at the second of them, still within the
//! program: so interrupts are off at that call (two more kfuncs, 6.14), and it is preempted right after the program.
//! What is left is an interrupt within the few instructions before and after. So on kernels with preemptible
//! tracepoints a second program follows each of the busy ones: it does the work if the first was skipped.

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_get_smp_processor_id},
    macros::map,
    maps::Array,
};
use pidns_ebpf::abi::{
    Moment,
    names::DONE_ENTRIES,
    symbols::{IRQ_RESTORE, IRQ_SAVE, PREEMPT_DISABLE, PREEMPT_ENABLE, placeholder},
};

use crate::{
    layout::{Constant as _, HAVE_IRQ_KFUNCS, HAVE_PREEMPT_KFUNCS, SECOND_CHANCE},
    maps::count,
};

/// Calls a kfunc, with an argument or without. aya knows no kfuncs: user space puts its number into the instruction
/// (`kernel/fill_in.rs`).
macro_rules! call {
    ($kfunc:path $(, $argument:expr)?) => {
        // SAFETY: `kfunc_call`, which changes r0 to r5 and what its argument points at. Without such a kfunc it is dead
        // code.
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

/// Tasks whose first program has run, until the second one has checked that: one slot for a task and a tracepoint,
/// numbered by [`slot`]. One element if there is no second program.
#[map]
static DONE: Array<u32> = Array::with_max_entries(DONE_ENTRIES, 0);

/// The slot of the running task at this tracepoint, and its value once the first program has run. Tasks whose ids are
/// equal in 16 bits share one: they are confused only if both are between the two programs of the same tracepoint at
/// the same time.
#[inline(always)]
fn slot(moment: Moment) -> (u32, u32) {
    let tid = bpf_get_current_pid_tgid() as u32;
    // Each CPU has an idle task, all of the same id.
    // SAFETY: the helper has no preconditions.
    let id = if tid == 0 { !unsafe { bpf_get_smp_processor_id() } } else { tid };
    ((id & 0xffff) << 2 | moment as u32, id)
}

/// Runs the body of the first program of a tracepoint. If tracepoints are not preemptible on this kernel, there is no
/// second program and the body runs as it is.
#[inline(always)]
pub(crate) fn first(moment: Moment, body: impl FnOnce()) -> i32 {
    if !SECOND_CHANCE.is_on() {
        body();
        return 0;
    }
    undisturbed(|| {
        body();
        let (slot, id) = slot(moment);
        let _ = DONE.set(slot, &id, 0);
    })
}

/// Runs the body if the kernel skipped the first program.
#[inline(always)]
pub(crate) fn second(moment: Moment, body: impl FnOnce()) -> i32 {
    undisturbed(|| {
        let (slot, id) = slot(moment);
        if let Some(done) = DONE.get_ptr_mut(slot) {
            // SAFETY: a map value.
            unsafe {
                if *done == id {
                    *done = 0;
                    return;
                }
            }
        }
        count(|counters| counters.second_runs[moment as usize] += 1);
        body();
    })
}

/// Runs a program's body.
#[inline(always)]
pub(crate) fn undisturbed(body: impl FnOnce()) -> i32 {
    if HAVE_PREEMPT_KFUNCS.is_on() {
        call!(PREEMPT_DISABLE);
    }
    body();
    if HAVE_PREEMPT_KFUNCS.is_on() {
        if HAVE_IRQ_KFUNCS.is_on() {
            // The verifier wants these on the stack, and not written by us.
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
