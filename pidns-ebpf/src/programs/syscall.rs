//! `TP_PROTO(struct pt_regs *regs, long ret)`, sys_exit
//! <https://github.com/torvalds/linux/blob/v6.18/include/trace/events/syscalls.h#L46>
//!
//! Called at the end of every system call of every thread while anybody listens. It sees what no scheduler
//! tracepoint does: unshare and setns at once, and every refusal.

use aya_ebpf::{
    macros::{btf_tracepoint, map},
    maps::PerCpuArray,
    programs::BtfTracePointContext,
};
use pidns_ebpf::abi::{
    CreateBody, FLAG_INEXACT, FLAG_THREAD, JoinBody, Kind, MAX_LEVEL, NamespaceRecord, Reason, RefusalBody,
    Via, Writer,
};

use crate::{
    emit::{Scratch, send_namespaced},
    filter,
    kernel::{Direct, PidNamespace, Probed, Regs, Task},
    maps::{CHILDREN_NS, ChildrenNs, observed_since},
    syscall::{self, CLONE_NEW_OTHERS, CLONE_NEWPID, CLONE_THREAD, Fork},
};

const EPERM: u32 = 1;
const EAGAIN: u32 = 11;
const ENOMEM: u32 = 12;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
/// Above are the kernel's own codes (ERESTARTNOINTR…): the call is repeated, nobody sees it fail.
const MAX_USER_ERRNO: u32 = 511;

#[map]
static SCRATCH_CREATE: PerCpuArray<Scratch<NamespaceRecord<CreateBody>>> =
    PerCpuArray::with_max_entries(1, 0);
#[map]
static SCRATCH_JOIN: PerCpuArray<Scratch<NamespaceRecord<JoinBody>>> = PerCpuArray::with_max_entries(1, 0);
#[map]
static SCRATCH_REFUSAL: PerCpuArray<Scratch<NamespaceRecord<RefusalBody>>> =
    PerCpuArray::with_max_entries(1, 0);

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
    let task = Task::current();
    if task.in_compat_syscall() {
        return 0;
    }
    let errno = if result < 0 { -result as u32 } else { 0 };
    if errno > MAX_USER_ERRNO {
        return 0;
    }
    match via {
        Via::Unshare => {
            if regs.argument0() & CLONE_NEWPID != 0 {
                if errno == 0 {
                    unshared(task);
                } else {
                    not_created(task, via, regs.argument0(), errno);
                }
            }
        }
        Via::Setns => setns(task, regs, errno),
        _ => {
            let fork = Fork::of(regs);
            if fork.flags & CLONE_NEWPID != 0 {
                not_created(task, via, fork.flags, errno);
            } else {
                not_forked(task, via, fork.flags, errno);
            }
        }
    }
    0
}

#[inline(always)]
fn unshared(task: Task<Probed>) {
    let ns = task.children_ns();
    replace_children_ns(task, ns.inum());
    if !filter::wants_namespace(ns) {
        return;
    }
    let Some(scratch) = Scratch::of(&SCRATCH_CREATE) else { return };
    let body = CreateBody { via: Via::Unshare as u32, reserved: 0 };
    // SAFETY: this CPU's scratch memory, and the running task.
    unsafe {
        send_namespaced(
            Writer::Syscall,
            Kind::NamespaceCreate,
            0,
            scratch,
            Some(ns),
            Some(task.group_leader()),
            None::<Task<Probed>>,
            body,
        );
    }
}

/// Notes that the thread's children go to `inum` now; returns where they went before, 0 where that is not known.
#[inline(always)]
fn replace_children_ns(task: Task<Probed>, inum: u32) -> u32 {
    let tid = task.pid();
    let start_boot_ns = task.start_boottime();
    // SAFETY: a map value, copied at once.
    let before = match unsafe { CHILDREN_NS.get(&tid) }.copied() {
        Some(known) if known.start_boot_ns == start_boot_ns => known.inum,
        _ if observed_since(start_boot_ns) => task.thread_pid().innermost().1.inum(),
        _ => 0,
    };
    // An LRU map always has room.
    let _ = CHILDREN_NS.insert(&tid, &ChildrenNs { start_boot_ns, inum, reserved: 0 }, 0);
    before
}

#[inline(always)]
fn not_created(task: Task<Probed>, via: Via, flags: u64, errno: u32) {
    let own = task.thread_pid().innermost().1;
    let children = task.children_ns();
    if !filter::wants_namespace(children) {
        return;
    }
    let mut inexact = 0;
    let reason = match errno {
        EPERM => Reason::Permission,
        ENOMEM => Reason::NoMemory,
        ENOSPC if children.level() >= MAX_LEVEL => Reason::DepthLimit,
        ENOSPC => {
            if flags & CLONE_NEW_OTHERS != 0 {
                // Another of the namespaces asked for may be the one at its limit.
                inexact = FLAG_INEXACT;
            }
            Reason::CountLimit
        }
        EINVAL if own.address() != children.address() => Reason::AlreadyUnshared,
        _ => Reason::Other,
    };
    refusal(
        Kind::NamespaceCreateFailed,
        inexact,
        None,
        task,
        RefusalBody { errno, via: via as u32, reason: reason as u32, reserved: 0 },
    );
}

#[inline(always)]
fn not_forked(task: Task<Probed>, via: Via, flags: u64, errno: u32) {
    let leader = task.group_leader();
    if !filter::wants(Kind::ForkFailed) || !filter::wants_process(leader.tgid(), leader.tgid()) {
        return;
    }
    let children = task.children_ns();
    if !filter::wants_namespace(children) {
        return;
    }
    let reason = match errno {
        ENOMEM if children.is_dead() => Reason::NamespaceDead,
        ENOMEM => Reason::NoMemory,
        // In the order in which copy_process checks them.
        EAGAIN if task.is_at_nproc_limit() => Reason::NprocLimit,
        EAGAIN if children.has_no_pids() => Reason::PidMax,
        EAGAIN if task.pids_cgroup_is_full() => Reason::PidsCgroup,
        _ => Reason::Other,
    };
    let thread = if flags & CLONE_THREAD != 0 { FLAG_THREAD } else { 0 };
    refusal(
        Kind::ForkFailed,
        thread,
        Some(children),
        task,
        RefusalBody { errno, via: via as u32, reason: reason as u32, reserved: 0 },
    );
}

#[inline(always)]
fn setns(task: Task<Probed>, regs: Regs<Direct>, errno: u32) {
    let (fd, types) = (regs.argument0(), regs.argument1());
    let file = task.namespace_file(fd as u32);
    let target = match file {
        // The file of a namespace of another type.
        Some(common) => match common.pid_namespace() {
            None => return,
            some => some,
        },
        // A pidfd, or no namespace at all: the types asked for tell.
        None if types & CLONE_NEWPID != 0 => None,
        None => return,
    };
    if errno == 0 {
        joined(task);
        return;
    }
    if !filter::wants_namespace(target.unwrap_or_else(|| task.children_ns())) {
        return;
    }
    let mut inexact = 0;
    let reason = match (errno, target) {
        (EPERM, _) => Reason::Permission,
        (EINVAL, Some(target)) if !is_below(target, task.thread_pid().innermost().1) => Reason::NotDescendant,
        _ => Reason::Other,
    };
    if types & CLONE_NEW_OTHERS != 0 {
        // Another of the namespaces asked for may be the one that was refused.
        inexact = FLAG_INEXACT;
    }
    refusal(
        Kind::NamespaceJoinFailed,
        inexact,
        target,
        task,
        RefusalBody { errno, via: Via::Setns as u32, reason: reason as u32, reserved: 0 },
    );
}

#[inline(always)]
fn joined(task: Task<Probed>) {
    let ns = task.children_ns();
    let from_inum = replace_children_ns(task, ns.inum());
    if !filter::wants_namespace(ns) {
        return;
    }
    let Some(scratch) = Scratch::of(&SCRATCH_JOIN) else { return };
    // SAFETY: this CPU's scratch memory, and the running task.
    unsafe {
        send_namespaced(
            Writer::Syscall,
            Kind::NamespaceJoin,
            0,
            scratch,
            Some(ns),
            Some(task.group_leader()),
            None::<Task<Probed>>,
            JoinBody { from_inum, reserved: 0 },
        );
    }
}

/// Whether `ns` is `top` or below it.
#[inline(always)]
fn is_below(mut ns: PidNamespace<Probed>, top: PidNamespace<Probed>) -> bool {
    for _ in 0..=MAX_LEVEL {
        if ns.address() == top.address() {
            return true;
        }
        if ns.is_null() {
            return false;
        }
        ns = ns.parent();
    }
    false
}

#[inline(always)]
fn refusal(kind: Kind, flags: u8, ns: Option<PidNamespace<Probed>>, task: Task<Probed>, body: RefusalBody) {
    let Some(scratch) = Scratch::of(&SCRATCH_REFUSAL) else { return };
    // SAFETY: this CPU's scratch memory, and the running task.
    unsafe {
        send_namespaced(
            Writer::Syscall,
            kind,
            flags,
            scratch,
            ns,
            Some(task.group_leader()),
            None::<Task<Probed>>,
            body,
        );
    }
}
