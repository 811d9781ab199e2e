//! `TP_PROTO(struct pt_regs *regs, long ret)`, sys_exit
//! <https://github.com/torvalds/linux/blob/v6.18/include/trace/events/syscalls.h#L46>
//!
//! Called at the end of every system call of every thread. No scheduler tracepoint sees what this hook sees: unshare
//! and setns when they happen, and every refusal. If function hooks see all of that, this hook is not attached. If they
//! see a part of it, this hook does not report that part.

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
    outcome::{self, CreateScratch, JoinScratch, Target},
    refusal::{Attempt, RefusalScratch, refused},
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
    // A seccomp filter cannot see the flags of clone3. Some filters therefore refuse clone3 with ENOSYS, and the caller
    // uses clone instead.
    if matches!(via, Via::Clone3) && errno == ENOSYS {
        return 0;
    }
    undisturbed(|| returned(task, via, regs, errno))
}

#[inline(always)]
fn returned(task: Task<Probed>, via: Via, regs: Regs<Direct>, errno: u32) {
    let Some(scratch) = RefusalScratch::of(&SCRATCH_REFUSAL) else { return };
    // SAFETY: this CPU's scratch memory, and the running task.
    unsafe {
        match via {
            Via::Unshare if regs.argument0() & CLONE_NEWPID == 0 => return,
            Via::Unshare if errno == 0 => return unshared(task),
            Via::Unshare => Attempt::unshare(regs.argument0(), scratch),
            Via::Setns => match Target::of(task, regs) {
                Target::Other => return,
                _ if errno == 0 => return joined(task),
                target => Attempt::setns(target, regs.argument1(), scratch),
            },
            _ => Attempt::fork(via, Fork::of(regs).flags, Chosen::of(regs), scratch),
        }
        refused(Writer::Syscall, task, errno, None, scratch);
    }
}

#[inline(always)]
fn unshared(task: Task<Probed>) {
    if let Some(scratch) = Scratch::of(&SCRATCH_CREATE) {
        // SAFETY: this CPU's scratch memory, and the running task.
        unsafe { outcome::unshared(Writer::Syscall, task, scratch) }
    }
}

#[inline(always)]
fn joined(task: Task<Probed>) {
    if let Some(scratch) = Scratch::of(&SCRATCH_JOIN) {
        // SAFETY: this CPU's scratch memory, and the running task.
        unsafe { outcome::joined(Writer::Syscall, task, scratch) }
    }
}
