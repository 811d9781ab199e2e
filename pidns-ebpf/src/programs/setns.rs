//! `long __x64_sys_setns(const struct pt_regs *regs)`, setns(2)
//! <https://github.com/torvalds/linux/blob/v6.18/kernel/nsproxy.c#L540>
//!
//! Called only for the 64-bit system call. 32-bit programs enter through another function, which is not hooked.
//! `__do_sys_setns` is in BTF, but no program can be attached to it.

use aya_ebpf::{
    macros::{fexit, map},
    maps::PerCpuArray,
    programs::FExitContext,
};
use pidns_ebpf::abi::{Writer, names::attached::SETNS_BY_FUNCTION};

use crate::{
    call::Call,
    emit::Scratch,
    kernel::{Direct, PidNamespace, Regs, Task},
    maps::attached,
    outcome::{self, JoinScratch, Target},
    refusal::{Attempt, RefusalScratch, refused},
    undisturbed::undisturbed,
};

#[map]
static SCRATCH_SETNS: PerCpuArray<JoinScratch> = PerCpuArray::with_max_entries(1, 0);
#[map]
static SCRATCH_SETNS_REFUSAL: PerCpuArray<RefusalScratch> = PerCpuArray::with_max_entries(1, 0);

#[fexit(function = "__x64_sys_setns")]
fn setns_returned(ctx: FExitContext) -> i32 {
    undisturbed(|| returned(&ctx))
}

#[inline(always)]
fn returned(ctx: &FExitContext) {
    let regs = Regs::<Direct>::of(ctx.arg(0));
    let call = Call::take_own();
    let result: i64 = ctx.arg(1);
    let task = Task::current();
    let Some(errno) = outcome::errno(task, result) else { return };
    if !attached(SETNS_BY_FUNCTION) {
        return;
    }
    let target = if call.target != 0 {
        Target::Known(PidNamespace::at(call.target as *const u8))
    } else {
        // setns failed before pidns_install, or the target is no PID namespace.
        Target::of(task, regs)
    };
    if matches!(target, Target::Other) {
        return;
    }
    // SAFETY: this CPU's scratch memory, and the running task.
    unsafe {
        if errno == 0 {
            if let Some(scratch) = Scratch::of(&SCRATCH_SETNS) {
                outcome::joined(Writer::Setns, task, scratch);
            }
        } else if let Some(scratch) = RefusalScratch::of(&SCRATCH_SETNS_REFUSAL) {
            Attempt::setns(target, regs.argument1(), scratch);
            refused(Writer::Setns, task, errno, Some(call), scratch);
        }
    }
}
