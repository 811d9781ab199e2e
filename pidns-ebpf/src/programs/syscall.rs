//! `TP_PROTO(struct pt_regs *regs, long ret)`, sys_exit
//! <https://github.com/torvalds/linux/blob/v6.18/include/trace/events/syscalls.h#L46>
//!
//! Called at the end of every system call of every thread while anybody listens. It sees what no scheduler
//! tracepoint does: unshare and setns at once, and every refusal. Where function hooks see that, it is left out, or
//! leaves to them what they see.

use aya_ebpf::{
    macros::{btf_tracepoint, map},
    maps::PerCpuArray,
    programs::BtfTracePointContext,
};
use pidns_ebpf::abi::{
    Via, Writer,
    names::attached::{CREATION_BY_FUNCTION, SETNS_BY_FUNCTION},
};

use crate::{
    chosen::Chosen,
    emit::Scratch,
    kernel::{Direct, Probed, Regs, Task},
    maps::attached,
    outcome::{self, CreateScratch, JoinScratch, RefusalScratch, Target},
    syscall::{self, CLONE_NEWPID, Fork},
    undisturbed::undisturbed,
};

const ENOSYS: u32 = 38;

#[map]
static SCRATCH_CREATE: PerCpuArray<CreateScratch> = PerCpuArray::with_max_entries(1, 0);
#[map]
static SCRATCH_JOIN: PerCpuArray<JoinScratch> = PerCpuArray::with_max_entries(1, 0);
#[map]
static SCRATCH_REFUSAL: PerCpuArray<RefusalScratch> = PerCpuArray::with_max_entries(1, 0);

#[btf_tracepoint(function = "sys_exit")]
fn syscall_exit(ctx: BtfTracePointContext) -> i32 {
    let regs = Regs::<Direct>::of(ctx.arg(0));
    let via = syscall::via(regs.call());
    if matches!(via, Via::Unknown) {
        return 0;
    }
    let result: i64 = ctx.arg(1);
    if result >= 0 && !matches!(via, Via::Unshare | Via::Setns) {
        return 0;
    }
    let elsewhere = if matches!(via, Via::Setns) { SETNS_BY_FUNCTION } else { CREATION_BY_FUNCTION };
    let task = Task::current();
    if task.in_compat_syscall() || attached(elsewhere) {
        return 0;
    }
    let Some(errno) = outcome::errno(task, result) else { return 0 };
    // A filter (seccomp) that hides clone3, whose flags it cannot see, answers so: the caller takes clone.
    if matches!(via, Via::Clone3) && errno == ENOSYS {
        return 0;
    }
    undisturbed(|| returned(task, via, regs, errno))
}

#[inline(always)]
fn returned(task: Task<Probed>, via: Via, regs: Regs<Direct>, errno: u32) {
    match via {
        Via::Unshare => unshare(task, regs.argument0(), errno),
        Via::Setns => setns(task, regs, errno),
        _ => clone(task, Fork::of(regs), Chosen::of(regs), errno),
    }
}

#[inline(always)]
fn unshare(task: Task<Probed>, flags: u64, errno: u32) {
    if flags & CLONE_NEWPID == 0 {
        return;
    }
    // SAFETY: this CPU's scratch memory, and the running task.
    unsafe {
        if errno == 0 {
            if let Some(scratch) = Scratch::of(&SCRATCH_CREATE) {
                outcome::unshared(Writer::Syscall, task, scratch);
            }
        } else if let Some(scratch) = RefusalScratch::of(&SCRATCH_REFUSAL) {
            let (via, chosen) = (Via::Unshare, Chosen::NONE);
            outcome::not_created(Writer::Syscall, task, via, flags, errno, None, chosen, scratch);
        }
    }
}

#[inline(always)]
fn clone(task: Task<Probed>, fork: Fork, chosen: Chosen, errno: u32) {
    let Some(scratch) = RefusalScratch::of(&SCRATCH_REFUSAL) else { return };
    // SAFETY: this CPU's scratch memory, and the running task.
    unsafe {
        if fork.flags & CLONE_NEWPID != 0 {
            let Fork { via, flags, .. } = fork;
            outcome::not_created(Writer::Syscall, task, via, flags, errno, None, chosen, scratch);
        } else {
            outcome::not_forked(Writer::Syscall, task, fork, errno, None, chosen, scratch);
        }
    }
}

#[inline(always)]
fn setns(task: Task<Probed>, regs: Regs<Direct>, errno: u32) {
    let target = Target::of(task, regs);
    if matches!(target, Target::Other) {
        return;
    }
    // SAFETY: this CPU's scratch memory, and the running task.
    unsafe {
        if errno == 0 {
            if let Some(scratch) = Scratch::of(&SCRATCH_JOIN) {
                outcome::joined(Writer::Syscall, task, scratch);
            }
        } else if let Some(scratch) = RefusalScratch::of(&SCRATCH_REFUSAL) {
            let types = regs.argument1();
            outcome::not_joined(Writer::Syscall, task, target, types, errno, None, scratch);
        }
    }
}
