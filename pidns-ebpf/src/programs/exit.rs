//! `TP_PROTO(struct task_struct *p, bool group_dead)`, sched_process_exit; before 6.16 without `group_dead`
//! <https://github.com/torvalds/linux/blob/v6.18/include/trace/events/sched.h#L332>
//!
//! Called by do_exit() in the exiting thread, once a thread. Reading the second argument where there is none is
//! refused at load, hence two programs; user space loads the one that fits.

use aya_ebpf::{
    macros::{btf_tracepoint, map},
    maps::PerCpuArray,
    programs::BtfTracePointContext,
};
use aya_log_ebpf::{debug, warn};
use pidns_ebpf::abi::{ExitRecord, Header, InitExitBody, Kind, NamespaceRecord, ReapRecord, Writer};

use crate::{
    emit::{self, Scratch, count, now, send, send_namespaced},
    filter,
    kernel::{Chain, Direct, PidNamespace, Task},
    maps::{CASCADE, DYING, Dying, PEAK_THREADS, ZOMBIES, Zombie},
};

const SIGKILL: u32 = 9;

#[map]
static SCRATCH_EXIT: PerCpuArray<Scratch<ExitRecord>> = PerCpuArray::with_max_entries(1, 0);
#[map]
static SCRATCH_INIT_EXIT: PerCpuArray<Scratch<NamespaceRecord<InitExitBody>>> =
    PerCpuArray::with_max_entries(1, 0);
#[map]
static SCRATCH_ZOMBIE: PerCpuArray<Zombie> = PerCpuArray::with_max_entries(1, 0);
#[map]
static SCRATCH_DYING: PerCpuArray<Dying> = PerCpuArray::with_max_entries(1, 0);

#[btf_tracepoint(function = "sched_process_exit")]
fn process_exit_group_dead(ctx: BtfTracePointContext) -> i32 {
    let task = Task::<Direct>::of(ctx.arg(0));
    let group_dead: i32 = ctx.arg(1);
    exit(&ctx, task, group_dead & 1 != 0)
}

#[btf_tracepoint(function = "sched_process_exit")]
fn process_exit_live(ctx: BtfTracePointContext) -> i32 {
    let task = Task::<Direct>::of(ctx.arg(0));
    exit(&ctx, task, task.live_threads() == 0)
}

#[inline(always)]
fn exit(ctx: &BtfTracePointContext, task: Task<Direct>, group_dead: bool) -> i32 {
    if !group_dead {
        count(|counters| counters.threads_ended += 1);
        return 0;
    }
    // The leader may have ended before; it stays a zombie, and keeps its PIDs, until now.
    let leader = task.group_leader();
    let pid = leader.thread_pid();
    let level = pid.level();
    let selected = filter::wants_level(level)
        && filter::wants_process(leader.tgid(), leader.tgid())
        && filter::wants_member(pid);
    let wanted = selected && filter::wants(Kind::ProcessExit);
    if level == 0 && !selected {
        return 0;
    }
    let wait_status = task.wait_status();
    let tgid = leader.tgid();
    let cascade_inum = if level > 0 && wait_status & 0x7f == SIGKILL { take_cascade(tgid) } else { 0 };

    let Some(scratch) = Scratch::of(&SCRATCH_EXIT) else { return 0 };
    // SAFETY: this CPU's scratch memory, and the task pointer of the hook.
    unsafe {
        let chain = pid.copy_pids(emit::tail(scratch, 0));
        let Chain { pids, ns, .. } = chain;
        let boot_ns = now();
        if chain.is_init() {
            init_exit(ctx, ns, task, boot_ns, wait_status, cascade_inum);
        }
        if selected && filter::wants(Kind::ProcessReap) {
            zombie(leader, ns, boot_ns);
        }
        if !wanted {
            return 0;
        }
        let record = &raw mut (*scratch).record;
        leader.describe(ns.inum(), &raw mut (*record).process);
        (&raw mut (*record).parent_start_boot_ns).write(leader.real_parent().group_leader().start_boottime());
        (&raw mut (*record).wait_status).write(wait_status);
        (&raw mut (*record).peak_threads).write(take_peak(tgid));
        (&raw mut (*record).cascade_inum).write(cascade_inum);
        (&raw mut (*record).reserved).write(0);
        send(Writer::Exit, Kind::ProcessExit, 0, boot_ns, scratch, pids, 0);
    }
    0
}

/// The dying namespace that killed this process, if one did.
#[inline(always)]
fn take_cascade(tgid: u32) -> u32 {
    // SAFETY: a map value, copied at once.
    let inum = unsafe { CASCADE.get(&tgid) }.copied().unwrap_or(0);
    if inum != 0 {
        let _ = CASCADE.remove(&tgid);
    }
    inum
}

/// Most threads that this process had; 0: never two.
#[inline(always)]
fn take_peak(tgid: u32) -> u32 {
    // SAFETY: a map value, copied at once.
    let peak = unsafe { PEAK_THREADS.get(&tgid) }.copied().unwrap_or(0);
    if peak != 0 {
        let _ = PEAK_THREADS.remove(&tgid);
    }
    peak
}

/// Keeps what the process's reaping will be reported with.
#[inline(always)]
unsafe fn zombie(leader: Task<Direct>, ns: PidNamespace<Direct>, boot_ns: u64) {
    let Some(scratch) = SCRATCH_ZOMBIE.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's scratch memory, and the caller's pointers.
    unsafe {
        let Chain { pids, .. } = leader.thread_pid().copy_pids((&raw mut (*scratch).pids).cast());
        let record = &raw mut (*scratch).record;
        (&raw mut (*record).header).write(Header {
            boot_ns: 0,
            size: size_of::<ReapRecord>() as u32 + 4 * pids,
            kind: Kind::ProcessReap as u8,
            flags: 0,
            pids: pids as u8,
            other_pids: 0,
        });
        leader.describe(ns.inum(), &raw mut (*record).process);
        (&raw mut (*record).exit_boot_ns).write(boot_ns);
        if ZOMBIES.insert(&leader.address(), &*scratch, 0).is_err() {
            count(|counters| counters.zombies_untracked += 1);
        }
    }
}

/// The last thread of a namespace's init ends: from here on nothing can be forked there, and this thread kills
/// the members (zap_pid_ns_processes, kernel/pid_namespace.c).
#[inline(always)]
unsafe fn init_exit(
    ctx: &BtfTracePointContext,
    ns: PidNamespace<Direct>,
    task: Task<Direct>,
    boot_ns: u64,
    wait_status: u32,
    cascade_inum: u32,
) {
    let leader = task.group_leader();
    // Its own PIDs are the only ones there that are neither members nor gone.
    let members = ns.pids_in_use().saturating_sub(task.threads());
    let Some(scratch) = Scratch::of(&SCRATCH_INIT_EXIT) else { return };
    let body = InitExitBody { wait_status, members, reboot_signal: ns.reboot_signal(), cascade_inum };
    debug!(ctx, "init of {} exits, {} members", ns.inum(), members);
    // SAFETY: the caller's pointers.
    unsafe {
        send_namespaced(
            Writer::Exit,
            Kind::NamespaceInitExit,
            0,
            scratch,
            Some(ns),
            Some(leader),
            None::<Task<Direct>>,
            body,
        );
        let Some(dying) = SCRATCH_DYING.get_ptr_mut(0) else { return };
        ns.describe(&raw mut (*dying).ns);
        (&raw mut (*dying).init_start_boot_ns).write(leader.start_boottime());
        (&raw mut (*dying).began_boot_ns).write(boot_ns);
        (&raw mut (*dying).killed).write(0);
        (&raw mut (*dying).reserved).write(0);
        if DYING.insert(&leader.tgid(), &*dying, 0).is_err() {
            count(|counters| counters.teardowns_untracked += 1);
            warn!(ctx, "no room to follow the teardown of {}", ns.inum());
        }
    }
}
