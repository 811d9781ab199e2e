//! `pid_t kernel_clone(struct kernel_clone_args *args)`
//! <https://github.com/torvalds/linux/blob/v6.18/kernel/fork.c#L2577>
//!
//! Called for fork, vfork, clone and clone3 of every ABI, with the arguments as the kernel copied them. This hook
//! reports refused forks; sched_process_fork reports successful ones.

use aya_ebpf::{
    macros::{fexit, map},
    maps::PerCpuArray,
    programs::FExitContext,
};
use pidns_ebpf::abi::{Via, Writer, names::attached::CREATION_BY_FUNCTION};

use crate::{
    call::Call,
    chosen::Chosen,
    kernel::{CloneArgs, Direct, Task},
    maps::attached,
    outcome,
    refusal::{Attempt, RefusalScratch, refused},
    syscall::{self, CLONE_NEWPID},
    undisturbed::undisturbed,
};

#[map]
static SCRATCH_CLONE_REFUSAL: PerCpuArray<RefusalScratch> = PerCpuArray::with_max_entries(1, 0);

#[fexit(function = "kernel_clone")]
fn clone_returned(ctx: FExitContext) -> i32 {
    let args = CloneArgs::<Direct>::of(ctx.arg(0));
    let flags = args.flags();
    let result: i32 = ctx.arg(1);
    let has_note = flags & CLONE_NEWPID != 0 || args.set_tid_size() != 0;
    if result >= 0 && !has_note {
        return 0;
    }
    let chosen = Chosen { at: args.set_tid(), count: args.set_tid_size(), in_kernel: true };
    undisturbed(|| returned(flags, chosen, result))
}

#[inline(always)]
fn returned(flags: u64, chosen: Chosen, result: i32) {
    // alloc_pid and copy_pid_ns leave notes only for these calls. The note is taken even on success, so that the next
    // call of this thread does not find it.
    let call = Call::take_own();
    if result >= 0 || !attached(CREATION_BY_FUNCTION) {
        return;
    }
    let task = Task::current();
    let Some(errno) = outcome::errno(task, i64::from(result)) else { return };
    let Some(scratch) = RefusalScratch::of(&SCRATCH_CLONE_REFUSAL) else { return };
    if task.is_kernel_thread() {
        return;
    }
    let via = if task.in_compat_syscall() { Via::Unknown } else { syscall::via(task.syscall_regs().call()) };
    // SAFETY: this CPU's scratch memory, and the running task.
    unsafe {
        Attempt::fork(via, flags, chosen, scratch);
        refused(Writer::Clone, task, errno, Some(call), scratch);
    }
}
