//! `int ksys_unshare(unsigned long unshare_flags)`
//! <https://github.com/torvalds/linux/blob/v6.18/kernel/fork.c#L3109>
//!
//! Called for unshare(2) of every ABI.

use aya_ebpf::{
    macros::{fexit, map},
    maps::PerCpuArray,
    programs::FExitContext,
};
use pidns_ebpf::abi::{Writer, names::attached::CREATION_BY_FUNCTION};

use crate::{
    call::Call,
    emit::Scratch,
    kernel::Task,
    maps::attached,
    outcome::{self, CreateScratch},
    refusal::{Attempt, RefusalScratch, refused},
    syscall::CLONE_NEWPID,
    undisturbed::undisturbed,
};

#[map]
static SCRATCH_UNSHARE: PerCpuArray<CreateScratch> = PerCpuArray::with_max_entries(1, 0);
#[map]
static SCRATCH_UNSHARE_REFUSAL: PerCpuArray<RefusalScratch> = PerCpuArray::with_max_entries(1, 0);

#[fexit(function = "ksys_unshare")]
fn unshare_returned(ctx: FExitContext) -> i32 {
    undisturbed(|| returned(&ctx))
}

#[inline(always)]
fn returned(ctx: &FExitContext) {
    let flags: u64 = ctx.arg(0);
    if flags & CLONE_NEWPID == 0 {
        return;
    }
    let call = Call::take_own();
    let result: i32 = ctx.arg(1);
    let task = Task::current();
    let Some(errno) = outcome::errno(task, i64::from(result)) else { return };
    if !attached(CREATION_BY_FUNCTION) {
        return;
    }
    // SAFETY: this CPU's scratch memory, and the running task.
    unsafe {
        if errno == 0 {
            if let Some(scratch) = Scratch::of(&SCRATCH_UNSHARE) {
                outcome::unshared(Writer::Unshare, task, scratch);
            }
        } else if let Some(scratch) = RefusalScratch::of(&SCRATCH_UNSHARE_REFUSAL) {
            Attempt::unshare(flags, scratch);
            refused(Writer::Unshare, task, errno, Some(call), scratch);
        }
    }
}
