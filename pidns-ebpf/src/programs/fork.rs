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
    Creation, DoubleHook, FLAG_INEXACT, FLAG_RESTORED, ForkRecord, InitBody, JoinBody, Kind, NamespaceRecord,
    Via, Writer,
    names::attached::{CREATION_BY_FUNCTION, SETNS_SEEN, UNSHARE_SEEN},
};

use crate::{
    access::ThroughNumbers,
    call::Call,
    counting,
    emit::{self, Scratch, copy, now, send},
    filter,
    kernel::{Access, Direct, PidNamespace, Regs, Task},
    layout::{CALLS_MAY_BE_UNSEEN, COUNTING, Constant as _},
    maps::{CHILDREN_NS, ChildrenNs, HAS_PEAK, PEAK_THREADS, attached, count, note, observed_since},
    pid::Chain,
    syscall::{self, CLONE_NEWPID, Fork},
    undisturbed::{first, second},
};

/// The record and the fork's arguments.
#[repr(C)]
struct ForkScratch {
    scratch: Scratch<ForkRecord>,
    args: Fork,
}

#[map]
static SCRATCH_FORK: PerCpuArray<ForkScratch> = PerCpuArray::with_max_entries(1, 0);
#[map]
static SCRATCH_INIT: PerCpuArray<Scratch<NamespaceRecord<InitBody>>> = PerCpuArray::with_max_entries(1, 0);
#[map]
static SCRATCH_FORK_JOIN: PerCpuArray<Scratch<NamespaceRecord<JoinBody>>> =
    PerCpuArray::with_max_entries(1, 0);

#[btf_tracepoint(function = "sched_process_fork")]
fn process_fork(ctx: BtfTracePointContext) -> i32 {
    first::<{ DoubleHook::Fork as u32 }>(|| forked(&ctx))
}

#[btf_tracepoint(function = "sched_process_fork")]
fn again_process_fork(ctx: BtfTracePointContext) -> i32 {
    second::<{ DoubleHook::Fork as u32 }>(|| forked(&ctx))
}

#[inline(always)]
fn forked(ctx: &BtfTracePointContext) {
    let thread = Task::<Direct>::of(ctx.arg(0));
    let child = Task::<Direct>::of(ctx.arg(1));
    let pid = child.thread_pid();
    let level = pid.level();
    let tgid = child.tgid();
    if COUNTING.is_on() {
        let is_init = counting::forked(child, level);
        if child.pid() != tgid || !(is_init || may_reveal_join(thread, level)) {
            return;
        }
    }
    if child.pid() != tgid {
        if filter::wants_level(level) && filter::wants_process(tgid, tgid) && filter::wants_member(pid) {
            thread_created(child);
        } else {
            count(|counters| counters.threads_created += 1);
        }
        return;
    }
    let wanted = filter::wants(Kind::ProcessFork)
        && filter::wants_level(level)
        && filter::wants_process(tgid, thread.tgid())
        && filter::wants_member(pid);
    if level == 0 && !wanted {
        return;
    }

    let parent = thread.group_leader();
    let parent_pid = parent.thread_pid();
    let Some(memory) = SCRATCH_FORK.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's scratch memory, and the task pointers of the hook.
    unsafe {
        let scratch = &raw mut (*memory).scratch;
        let record = &raw mut (*scratch).record;
        child.describe(&raw mut (*record).process);
        parent.describe(&raw mut (*record).parent);
        let regs = thread.user_regs();
        let chain = pid.copy_pids(emit::tail(scratch, 0));
        let Chain { pids, ns, .. } = chain;
        let Chain { pids: parent_pids, ns: parent_ns, .. } = parent_pid.copy_pids(emit::tail(scratch, pids));
        (&raw mut (*record).process.ns_inum).write(ns.inum());
        (&raw mut (*record).parent.ns_inum).write(parent_ns.inum());

        // This comes before the arguments are read. Otherwise the verifier would follow the walk up the namespaces once
        // for each value that they can have.
        let is_new_init = chain.is_init() && filter::wants_namespace(ns);
        // Most forks need no arguments: only the fork of an init reports a namespace, and only clone3 can choose PIDs.
        let needs_args = is_new_init || matches!(syscall::via(regs.call()), Via::Clone3);
        let fork = if needs_args {
            // They are stored and loaded again, so that the verifier forgets their values and checks the rest only
            // once.
            let args = fork_args(thread, regs, ns);
            copy(&raw const args, &raw mut (*memory).args);
            (&raw const (*memory).args).read_volatile()
        } else {
            Fork::UNKNOWN
        };
        if is_new_init {
            namespace_init(ctx, scratch, ns, thread, &fork, pids, parent_pids);
        } else if CALLS_MAY_BE_UNSEEN.is_on()
            && !chain.is_init()
            && ns.address() != parent_ns.address()
            && !attached(SETNS_SEEN)
        {
            unobserved_join(scratch, ns, parent_ns, thread, pids, parent_pids);
        }
        if wanted {
            let flags = if fork.set_tid != 0 { FLAG_RESTORED } else { 0 };
            send(Writer::Fork, Kind::ProcessFork, flags, now(), scratch, pids, parent_pids);
        }
    }
}

/// In counting mode: whether this fork may reveal a join that no other hook sees.
#[inline(always)]
fn may_reveal_join(thread: Task<Direct>, level: u32) -> bool {
    // If a child is in another namespace than its parent, it is always at a deeper level.
    CALLS_MAY_BE_UNSEEN.is_on() && level != 0 && thread.thread_pid().level() != level && !attached(SETNS_SEEN)
}

/// The fork's arguments, from the notes of the function hooks or else from the caller's registers.
#[inline(always)]
fn fork_args<A: Access, N: Access>(thread: Task<Direct>, regs: Regs<A>, ns: PidNamespace<N>) -> Fork {
    let compat = thread.in_compat_syscall();
    if !attached(CREATION_BY_FUNCTION) {
        return if compat { Fork::UNKNOWN } else { Fork::of(regs) };
    }
    let call = Call::take(thread.pid(), thread.start_boottime());
    Fork {
        via: if compat { Via::Unknown } else { syscall::via(regs.call()) } as u32,
        flags: if call.created == ns.address() { CLONE_NEWPID } else { 0 },
        set_tid: call.chosen_pids,
    }
}

/// Counts the thread, and stores the process's peak number of threads for its exit record.
#[inline(always)]
fn thread_created(thread: Task<Direct>) {
    count(|counters| counters.threads_created += 1);
    if !filter::wants(Kind::ProcessExit) {
        return;
    }
    let key = thread.group_leader().key();
    let threads = thread.signal().threads();
    match PEAK_THREADS.get_ptr_mut(&key) {
        // SAFETY: a map value. Two racing forks may store the smaller peak; the next fork corrects that.
        Some(peak) => unsafe {
            if *peak < threads {
                *peak = threads;
            }
        },
        None => {
            if PEAK_THREADS.insert(&key, &threads, 0).is_err() {
                count(|counters| counters.peaks_untracked += 1);
            } else {
                note(key.pid, HAS_PEAK);
            }
        }
    }
}

/// Reports that the child is the first process of `ns`. This call may have created the namespace. If not, an earlier
/// unshare of the caller did, or (7.x) of another process whose `pid_for_children` the caller joined.
#[inline(always)]
unsafe fn namespace_init(
    ctx: &BtfTracePointContext,
    from: *const Scratch<ForkRecord>,
    ns: PidNamespace<ThroughNumbers>,
    thread: Task<Direct>,
    fork: &Fork,
    pids: u32,
    parent_pids: u32,
) {
    let Some(scratch) = Scratch::of(&SCRATCH_INIT) else { return };
    let unknown = Via::Unknown as u32;
    let (creation, via, flags) = if fork.flags & CLONE_NEWPID != 0 {
        (Creation::WithInit, fork.via, 0)
    } else if attached(CREATION_BY_FUNCTION) {
        (Creation::Earlier, unknown, 0)
    } else if fork.via == unknown {
        // A 32-bit program: no hook saw its clone or unshare.
        (Creation::Unobserved, unknown, FLAG_INEXACT)
    } else if CALLS_MAY_BE_UNSEEN.is_on() && !attached(UNSHARE_SEEN) {
        set_children_ns(thread, ns.inum());
        (Creation::Unobserved, Via::Unshare as u32, FLAG_INEXACT)
    } else {
        (Creation::Earlier, unknown, 0)
    };
    debug!(ctx, "init of {} at level {}", ns.inum(), ns.level());
    let body = InitBody { via, creation: creation as u32 };
    // SAFETY: `from` is this CPU's scratch memory with a complete record, as is `scratch`.
    unsafe {
        let record = &raw mut (*scratch).record;
        ns.describe(&raw mut (*record).ns);
        copy(&raw const (*from).record.process, &raw mut (*record).process);
        copy(&raw const (*from).record.parent, &raw mut (*record).other);
        (&raw mut (*record).body).write(body);
        copy(&raw const (*from).tail, &raw mut (*scratch).tail);
        let sent = send(Writer::Fork, Kind::NamespaceInit, flags, now(), scratch, pids, parent_pids);
        if !matches!(creation, Creation::Earlier) {
            count(|counters| {
                let creations = if sent {
                    &mut counters.creations_with_init
                } else {
                    &mut counters.creations_with_init_lost
                };
                *creations += 1;
            });
        }
    }
}

#[inline(always)]
fn set_children_ns(thread: Task<Direct>, inum: u32) {
    let value = ChildrenNs { start_boot_ns: thread.start_boottime(), inum, unshared: 0 };
    // An LRU map always has room.
    let _ = CHILDREN_NS.insert(&thread.pid(), &value, 0);
}

/// Reports a join that no hook saw: it is visible only when the thread first forks a child in another namespace.
/// Threads older than the tracer are skipped, because it is unknown what they did before. The parent has joined. It is
/// sent as `other`, and the child as `process`, because the tail already has the PIDs in that order.
#[inline(always)]
unsafe fn unobserved_join(
    from: *const Scratch<ForkRecord>,
    ns: PidNamespace<ThroughNumbers>,
    own: PidNamespace<ThroughNumbers>,
    thread: Task<Direct>,
    pids: u32,
    parent_pids: u32,
) {
    let started = thread.start_boottime();
    if !observed_since(started) || !filter::wants_namespace(ns) {
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
    set_children_ns(thread, inum);
    let Some(scratch) = Scratch::of(&SCRATCH_FORK_JOIN) else { return };
    // SAFETY: `from` is this CPU's scratch memory with a complete record, as is `scratch`.
    unsafe {
        let record = &raw mut (*scratch).record;
        ns.describe(&raw mut (*record).ns);
        copy(&raw const (*from).record.process, &raw mut (*record).process);
        copy(&raw const (*from).record.parent, &raw mut (*record).other);
        (&raw mut (*record).body).write(JoinBody { from_inum, reserved: 0 });
        copy(&raw const (*from).tail, &raw mut (*scratch).tail);
        send(Writer::Fork, Kind::NamespaceJoin, FLAG_INEXACT, now(), scratch, pids, parent_pids);
    }
}
