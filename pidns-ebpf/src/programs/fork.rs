//! `TP_PROTO(struct task_struct *parent, struct task_struct *child)`, sched_process_fork
//! <https://github.com/torvalds/linux/blob/v6.18/include/trace/events/sched.h#L391>
//!
//! Called by kernel_clone() in the forking thread, before the child first runs; `child_reaper` of a new
//! namespace is set by then.

use aya_ebpf::{
    macros::{btf_tracepoint, map},
    maps::PerCpuArray,
    programs::BtfTracePointContext,
};
use aya_log_ebpf::debug;
use pidns_ebpf::abi::{
    Creation, FLAG_INEXACT, FLAG_RESTORED, ForkRecord, InitBody, JoinBody, Kind, NamespaceRecord, Via, Writer,
};

use crate::{
    emit::{self, Scratch, count, now, send, send_namespaced},
    filter,
    kernel::{Chain, Direct, PidNamespace, Task},
    layout::{OBSERVED_SINCE, SYSCALL_HOOKS},
    maps::{CHILDREN_NS, ChildrenNs, PEAK_THREADS},
    syscall::{CLONE_NEWPID, Fork},
};

#[map]
static SCRATCH_FORK: PerCpuArray<Scratch<ForkRecord>> = PerCpuArray::with_max_entries(1, 0);
#[map]
static SCRATCH_INIT: PerCpuArray<Scratch<NamespaceRecord<InitBody>>> = PerCpuArray::with_max_entries(1, 0);
#[map]
static SCRATCH_FORK_JOIN: PerCpuArray<Scratch<NamespaceRecord<JoinBody>>> =
    PerCpuArray::with_max_entries(1, 0);

#[btf_tracepoint(function = "sched_process_fork")]
fn process_fork(ctx: BtfTracePointContext) -> i32 {
    let thread = Task::<Direct>::of(ctx.arg(0));
    let child = Task::<Direct>::of(ctx.arg(1));
    if child.pid() != child.tgid() {
        thread_created(child);
        return 0;
    }

    let level = child.thread_pid().level();
    let wanted = filter::wants(Kind::ProcessFork)
        && filter::wants_level(level)
        && filter::wants_process(child.tgid(), thread.tgid())
        && filter::wants_member(child.thread_pid());
    if level == 0 && !wanted {
        return 0;
    }

    let fork = Fork::of(thread.user_regs());
    let parent = thread.group_leader();
    let Some(scratch) = Scratch::of(&SCRATCH_FORK) else { return 0 };
    // SAFETY: this CPU's scratch memory, and the task pointers of the hook.
    unsafe {
        let Chain { pids, ns, innermost } = child.thread_pid().copy_pids(emit::tail(scratch, 0));
        if pids > 1 && innermost == 1 {
            namespace_init(&ctx, ns, child, thread, &fork);
        } else if pids > 1 && SYSCALL_HOOKS.load() == 0 {
            unobserved_join(ns, thread);
        }
        if !wanted {
            return 0;
        }
        child.describe(ns.inum(), &raw mut (*scratch).record.process);
        let Chain { pids: parent_pids, ns: parent_ns, .. } =
            parent.thread_pid().copy_pids(emit::tail(scratch, pids));
        parent.describe(parent_ns.inum(), &raw mut (*scratch).record.parent);
        let flags = if fork.set_tid { FLAG_RESTORED } else { 0 };
        send(Writer::Fork, Kind::ProcessFork, flags, now(), scratch, pids, parent_pids);
    }
    0
}

/// Threads are counted, and the most of each process remembered for its exit.
#[inline(always)]
fn thread_created(thread: Task<Direct>) {
    count(|counters| counters.threads_created += 1);
    if !filter::wants(Kind::ProcessExit) || !filter::wants_level(thread.thread_pid().level()) {
        return;
    }
    let tgid = thread.tgid();
    let threads = thread.threads();
    match PEAK_THREADS.get_ptr_mut(&tgid) {
        // SAFETY: a map value; a racing fork of the same process can lose an update by one fork's time.
        Some(peak) => unsafe {
            if *peak < threads {
                *peak = threads;
            }
        },
        None => {
            if PEAK_THREADS.insert(&tgid, &threads, 0).is_err() {
                count(|counters| counters.peaks_untracked += 1);
            }
        }
    }
}

/// The child is the first process of `ns`. Its namespace may have been created by this very call, or before: by
/// an unshare of the caller, or (7.x) by another process whose `pid_for_children` the caller joined.
#[inline(always)]
unsafe fn namespace_init(
    ctx: &BtfTracePointContext,
    ns: PidNamespace<Direct>,
    child: Task<Direct>,
    thread: Task<Direct>,
    fork: &Fork,
) {
    let Some(scratch) = Scratch::of(&SCRATCH_INIT) else { return };
    let (creation, via, flags) = if fork.flags & CLONE_NEWPID != 0 {
        (Creation::WithInit, fork.via, 0)
    } else if SYSCALL_HOOKS.load() == 0 {
        remember(thread, ns.inum());
        (Creation::Unobserved, Via::Unshare, FLAG_INEXACT)
    } else {
        (Creation::Earlier, Via::Unknown, 0)
    };
    debug!(ctx, "init of {} at level {}", ns.inum(), ns.level());
    let body = InitBody { via: via as u8, creation: creation as u8, reserved: [0; 6] };
    // SAFETY: the caller's pointers.
    unsafe {
        send_namespaced(
            Writer::Fork,
            Kind::NamespaceInit,
            flags,
            scratch,
            Some(ns),
            Some(child),
            Some(thread.group_leader()),
            body,
        );
    }
}

#[inline(always)]
fn remember(thread: Task<Direct>, inum: u32) {
    let value = ChildrenNs { start_boot_ns: thread.start_boottime(), inum, reserved: 0 };
    // An LRU map always has room.
    let _ = CHILDREN_NS.insert(&thread.pid(), &value, 0);
}

/// Without the hook on system calls, a join shows at the first child that goes elsewhere. What a thread did
/// before it was observed is not known, so nothing is said of threads that are older.
#[inline(always)]
unsafe fn unobserved_join(ns: PidNamespace<Direct>, thread: Task<Direct>) {
    let (_, own) = thread.thread_pid().innermost();
    let started = thread.start_boottime();
    if own.address() == ns.address() || started < OBSERVED_SINCE.load() {
        return;
    }
    let inum = ns.inum();
    let mut from_inum = own.inum();
    if let Some(known) = CHILDREN_NS.get_ptr(&thread.pid()) {
        // SAFETY: a map value.
        let known = unsafe { *known };
        if known.start_boot_ns == started {
            if known.inum == inum {
                return;
            }
            from_inum = known.inum;
        }
    }
    remember(thread, inum);
    let Some(scratch) = Scratch::of(&SCRATCH_FORK_JOIN) else { return };
    // SAFETY: the caller's pointers.
    unsafe {
        send_namespaced(
            Writer::Fork,
            Kind::NamespaceJoin,
            FLAG_INEXACT,
            scratch,
            Some(ns),
            Some(thread.group_leader()),
            None::<Task<Direct>>,
            JoinBody { from_inum, reserved: 0 },
        );
    }
}
