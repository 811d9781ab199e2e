//! `TP_PROTO(struct task_struct *p, bool group_dead)`, sched_process_exit; before 6.16 without `group_dead`
//! <https://github.com/torvalds/linux/blob/v6.18/include/trace/events/sched.h#L332>
//!
//! Called by do_exit() in the exiting thread, once per thread. There are two programs, because the verifier refuses to
//! read a second argument that does not exist. User space loads the one that fits.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::{btf_tracepoint, map},
    maps::{HashMap, PerCpuArray},
    programs::BtfTracePointContext,
};
use aya_log_ebpf::{debug, warn};
use pidns_ebpf::abi::{
    DoubleHook, Dying, ExitRecord, InitExitBody, Kind, NamespaceRecord, PIDS_ROOM, ProcessKey, Writer,
    names::attached::{ENDS_BY_FUNCTION, RELEASE_SEEN},
};

use crate::{
    access::ThroughNumbers,
    counting,
    emit::{self, Scratch, copy, now, send, zero},
    filter,
    kernel::{Direct, PidNamespace, Task},
    layout::{COUNTING, Constant as _},
    maps::{
        AWAITS_REAP, AWAITS_TEARDOWN, CASCADE, DYING, ENDED, HAS_PEAK, OOM_VICTIMS, PEAK_THREADS, REBOOTS,
        attached, count, note, notes, without_init,
    },
    pid::Chain,
    undisturbed::{first, second},
};

const SIGKILL: u32 = 9;

#[map]
static SCRATCH_EXIT: PerCpuArray<Scratch<ExitRecord>> = PerCpuArray::with_max_entries(1, 0);
#[map]
static SCRATCH_INIT_EXIT: PerCpuArray<Scratch<NamespaceRecord<InitExitBody>>> =
    PerCpuArray::with_max_entries(1, 0);
#[map]
static SCRATCH_DYING: PerCpuArray<Dying> = PerCpuArray::with_max_entries(1, 0);

#[btf_tracepoint(function = "sched_process_exit")]
fn process_exit_group_dead(ctx: BtfTracePointContext) -> i32 {
    let task = Task::<Direct>::of(ctx.arg(0));
    let group_dead: i32 = ctx.arg(1);
    first::<{ DoubleHook::Exit as u32 }>(|| exit(&ctx, task, group_dead & 1 != 0))
}

#[btf_tracepoint(function = "sched_process_exit")]
fn again_process_exit(ctx: BtfTracePointContext) -> i32 {
    let task = Task::<Direct>::of(ctx.arg(0));
    let group_dead: i32 = ctx.arg(1);
    second::<{ DoubleHook::Exit as u32 }>(|| exit(&ctx, task, group_dead & 1 != 0))
}

#[btf_tracepoint(function = "sched_process_exit")]
fn process_exit_live(ctx: BtfTracePointContext) -> i32 {
    let task = Task::<Direct>::of(ctx.arg(0));
    let group_dead = task.signal().live_threads() == 0 && is_first_to_end(task);
    // Kernels without `group_dead` do not preempt tasks in tracepoints.
    exit(&ctx, task, group_dead);
    0
}

/// Whether the exit of this process has not been reported yet. If two threads end at the same time, both can find that
/// none is left, and only the first one may report the exit. It may have been released before the second one gets here,
/// so a process with one thread left is looked up too.
#[inline(always)]
fn is_first_to_end(task: Task<Direct>) -> bool {
    let key = task.group_leader().key();
    if task.signal().threads() == 1 {
        ENDED.get_ptr(&key).is_none()
    } else {
        ENDED.insert(&key, &1, u64::from(BPF_NOEXIST)).is_ok()
    }
}

#[inline(always)]
fn exit(ctx: &BtfTracePointContext, task: Task<Direct>, group_dead: bool) {
    if COUNTING.is_on() && !counting::exited(task, group_dead) {
        return;
    }
    if !group_dead {
        count(|counters| counters.threads_ended += 1);
        return;
    }
    // The leader may have ended earlier. It has stayed a zombie since, and has kept its PIDs.
    let leader = task.group_leader();
    let pid = leader.thread_pid();
    let level = pid.level();
    let tgid = leader.tgid();
    let selected =
        filter::wants_level(level) && filter::wants_process(tgid, tgid) && filter::wants_member(pid);
    if level == 0 && !selected {
        return;
    }
    let Some(scratch) = Scratch::of(&SCRATCH_EXIT) else { return };
    // SAFETY: this CPU's scratch memory, and the task pointer of the hook.
    unsafe {
        let record = &raw mut (*scratch).record;
        leader.describe(&raw mut (*record).process);
        (&raw mut (*record).parent_start_boot_ns).write(leader.real_parent().group_leader().start_boottime());
        let signal = task.signal();
        let mut wait_status = leader.wait_status(signal);
        let threads = signal.threads();
        let chain = pid.copy_pids(emit::tail(scratch, 0));
        let Chain { pids, ns, .. } = chain;
        (&raw mut (*record).process.ns_inum).write(ns.inum());
        if chain.is_init() && ns.reboot_signal() != 0 {
            // After reboot(2) in the namespace, the kernel sets the wait status to this signal when the teardown ends.
            wait_status = ns.reboot_signal();
        }
        (&raw mut (*record).wait_status).write(wait_status);
        let key = leader.key();
        (&raw mut (*record).peak_threads).write(peak_threads(&key));
        let is_killed = wait_status & 0x7f == SIGKILL;
        // The kernel kills the members of a dying namespace, and those of the namespaces in it.
        let may_be_in_cascade = level > 0 && (is_killed || ns.is_dead());
        let cascade_inum = if may_be_in_cascade { take(&CASCADE, &key) } else { 0 };
        (&raw mut (*record).cascade_inum).write(cascade_inum);
        let is_oom_victim = (is_killed || chain.is_init()) && OOM_VICTIMS.remove(&key).is_ok();
        (&raw mut (*record).oom).write(u32::from(is_oom_victim));

        let boot_ns = now();
        if chain.is_init() && filter::wants_namespace(ns) {
            init_exit(ctx, scratch, ns, &key, boot_ns, pids, threads);
            if COUNTING.is_on() {
                // Of processes, only members that are killed for lack of memory are reported.
                return;
            }
        }
        if !selected {
            return;
        }
        // The record of a reap lacks the time of the exit. User space takes it from this record.
        let wants_reap = filter::wants(Kind::ProcessReap);
        if filter::wants(Kind::ProcessExit) || wants_reap {
            let sent = send(Writer::Exit, Kind::ProcessExit, 0, boot_ns, scratch, pids, 0);
            if wants_reap && !attached(ENDS_BY_FUNCTION) {
                if !sent {
                    // Nothing could describe the process that is reaped.
                    count(|counters| counters.lost[Writer::Exit as usize][Kind::ProcessReap as usize] += 1);
                } else if !note(tgid, AWAITS_REAP) {
                    count(|counters| counters.zombies_untracked += 1);
                }
            }
        }
    }
}

/// Takes the process's peak number of threads out of the map; 0: it has had only one.
#[inline(always)]
fn peak_threads(key: &ProcessKey) -> u32 {
    if let Some(notes) = notes(key.pid) {
        // SAFETY: a map value. No other thread of the process is left.
        unsafe {
            if *notes & HAS_PEAK == 0 {
                return 0;
            }
            *notes &= !HAS_PEAK;
        }
    }
    take(&PEAK_THREADS, key)
}

/// Takes this process's value out of a map; 0: none.
#[inline(always)]
fn take(map: &HashMap<ProcessKey, u32>, key: &ProcessKey) -> u32 {
    // SAFETY: a map value, copied at once.
    let value = unsafe { map.get(key) }.copied().unwrap_or(0);
    if value != 0 {
        let _ = map.remove(key);
    }
    value
}

/// The last thread of a namespace's init ends. From now on no process can be forked there, and this thread kills the
/// members (zap_pid_ns_processes, kernel/pid_namespace.c). `threads` is the number of the init's threads that are left.
#[inline(always)]
unsafe fn init_exit(
    ctx: &BtfTracePointContext,
    from: *const Scratch<ExitRecord>,
    ns: PidNamespace<ThroughNumbers>,
    key: &ProcessKey,
    boot_ns: u64,
    pids: u32,
    threads: u32,
) {
    // All PIDs in use except the init's own belong to members.
    let members = ns.pids_in_use().saturating_sub(threads);
    debug!(ctx, "init of {} exits, {} members", ns.inum(), members);
    let Some(scratch) = Scratch::of(&SCRATCH_INIT_EXIT) else { return };
    // SAFETY: the caller's pointers.
    unsafe {
        let exit = &raw const (*from).record;
        let record = &raw mut (*scratch).record;
        ns.describe(&raw mut (*record).ns);
        copy(&raw const (*exit).process, &raw mut (*record).process);
        zero(&raw mut (*record).other);
        let reboot_signal = ns.reboot_signal();
        let reboot_command = if reboot_signal != 0 { reboot_command(ns.inum()) } else { 0 };
        (&raw mut (*record).body).write(InitExitBody {
            wait_status: (*exit).wait_status,
            members,
            reboot_signal,
            cascade_inum: (*exit).cascade_inum,
            reboot_command,
            oom: (*exit).oom,
        });
        copy::<[u32; PIDS_ROOM]>((&raw const (*from).tail).cast(), (&raw mut (*scratch).tail).cast());
        send(Writer::Exit, Kind::NamespaceInitExit, 0, boot_ns, scratch, pids, 0);

        if attached(RELEASE_SEEN) {
            without_init(Writer::Exit, &raw const (*record).ns);
        }
        let Some(dying) = SCRATCH_DYING.get_ptr_mut(0) else { return };
        copy(&raw const (*record).ns, &raw mut (*dying).ns);
        (&raw mut (*dying).init_start_boot_ns).write(key.start_boot_ns);
        (&raw mut (*dying).began_boot_ns).write(boot_ns);
        (&raw mut (*dying).killed).write(0);
        (&raw mut (*dying).reserved).write(0);
        if DYING.insert(&key.pid, &*dying, 0).is_err() {
            count(|counters| counters.teardowns_untracked += 1);
            warn!(ctx, "no room to follow the teardown of {}", ns.inum());
        } else {
            // Without it only the sweep in user space finds the end of a teardown of which no SIGCHLD tells.
            note(key.pid, AWAITS_TEARDOWN);
        }
    }
}

/// Takes the command of reboot(2) in the namespace with this inode number; 0: no hook saw it.
#[inline(always)]
fn reboot_command(inum: u32) -> u32 {
    // SAFETY: a map value, copied at once.
    let command = unsafe { REBOOTS.get(&inum) }.copied().unwrap_or(0);
    if command != 0 {
        let _ = REBOOTS.remove(&inum);
    }
    command
}
