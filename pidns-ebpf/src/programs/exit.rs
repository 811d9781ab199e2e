//! `TP_PROTO(struct task_struct *p, bool group_dead)`, sched_process_exit; before 6.16 without `group_dead`
//! <https://github.com/torvalds/linux/blob/v6.18/include/trace/events/sched.h#L332>
//!
//! Called by do_exit() in the exiting thread, once a thread. Reading the second argument where there is none is
//! refused at load, hence two programs; user space loads the one that fits.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::{btf_tracepoint, map},
    maps::{HashMap, PerCpuArray},
    programs::BtfTracePointContext,
};
use aya_log_ebpf::{debug, warn};
use pidns_ebpf::abi::{
    Dying, ExitRecord, Header, InitExitBody, Kind, Moment, NamespaceRecord, PIDS_ROOM, ProcessKey,
    ReapRecord, Writer, Zombie,
    names::attached::{ENDS_BY_FUNCTION, RELEASE_SEEN},
};

use crate::{
    counting,
    emit::{self, Scratch, copy, now, send, zero},
    filter,
    kernel::{Chain, Direct, PidNamespace, Task, ThroughNumbers},
    layout::{COUNTING, Constant as _},
    maps::{
        CASCADE, DYING, ENDED, OOM_VICTIMS, PEAK_THREADS, REBOOTS, ZOMBIES, attached, count, without_init,
    },
    undisturbed::{first, second},
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
    first(Moment::Exit, || exit(&ctx, task, group_dead & 1 != 0))
}

#[btf_tracepoint(function = "sched_process_exit")]
fn again_process_exit(ctx: BtfTracePointContext) -> i32 {
    let task = Task::<Direct>::of(ctx.arg(0));
    let group_dead: i32 = ctx.arg(1);
    second(Moment::Exit, || exit(&ctx, task, group_dead & 1 != 0))
}

#[btf_tracepoint(function = "sched_process_exit")]
fn process_exit_live(ctx: BtfTracePointContext) -> i32 {
    let task = Task::<Direct>::of(ctx.arg(0));
    let group_dead = task.signal().live_threads() == 0 && is_first_to_end(task);
    // Where there is no `group_dead` a tracepoint keeps other tasks off its CPU.
    exit(&ctx, task, group_dead);
    0
}

/// Two threads that end at the same time can both find that none is left: the first one reports. It may have been released before
/// the other one gets here, so that a process with one thread left has to be looked up, too.
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
    // The leader may have ended before; it stays a zombie, and keeps its PIDs, until now.
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
            // reboot(2) inside: the status that wait(2) gives is set when the teardown ends, to this.
            wait_status = ns.reboot_signal();
        }
        (&raw mut (*record).wait_status).write(wait_status);
        let key = leader.key();
        (&raw mut (*record).peak_threads).write(take(&PEAK_THREADS, &key));
        let cascade_inum = if level > 0 { take(&CASCADE, &key) } else { 0 };
        (&raw mut (*record).cascade_inum).write(cascade_inum);
        let is_killed = wait_status & 0x7f == SIGKILL || chain.is_init();
        (&raw mut (*record).oom).write(u32::from(is_killed && OOM_VICTIMS.remove(&key).is_ok()));

        let boot_ns = now();
        if chain.is_init() && filter::wants_namespace(ns) {
            init_exit(ctx, scratch, ns, &key, boot_ns, pids, threads);
        }
        if !selected {
            return;
        }
        let reaping_wanted = filter::wants(Kind::ProcessReap);
        let told_at_reaping = attached(ENDS_BY_FUNCTION);
        if reaping_wanted && !told_at_reaping {
            zombie(&key, scratch, boot_ns, pids);
        }
        // A reap reported by release_task does not have the start of the zombie: this record has it.
        if filter::wants(Kind::ProcessExit) || (reaping_wanted && told_at_reaping) {
            send(Writer::Exit, Kind::ProcessExit, 0, boot_ns, scratch, pids, 0);
        }
    }
}

/// Takes what a map holds for this process; 0: nothing.
#[inline(always)]
fn take(map: &HashMap<ProcessKey, u32>, key: &ProcessKey) -> u32 {
    // SAFETY: a map value, copied at once.
    let value = unsafe { map.get(key) }.copied().unwrap_or(0);
    if value != 0 {
        let _ = map.remove(key);
    }
    value
}

/// Keeps what the process's reaping will be reported with.
#[inline(always)]
unsafe fn zombie(key: &ProcessKey, from: *const Scratch<ExitRecord>, boot_ns: u64, pids: u32) {
    let Some(zombie) = SCRATCH_ZOMBIE.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's scratch memory, and the caller's pointers.
    unsafe {
        let record = &raw mut (*zombie).record;
        (&raw mut (*record).header).write(Header {
            boot_ns: 0,
            size: size_of::<ReapRecord>() as u32 + 4 * pids,
            kind: Kind::ProcessReap as u8,
            flags: 0,
            pids: pids as u8,
            other_pids: 0,
        });
        copy(&raw const (*from).record.process, &raw mut (*record).process);
        (&raw mut (*record).exit_boot_ns).write(boot_ns);
        copy((&raw const (*from).tail).cast(), &raw mut (*zombie).pids);
        if ZOMBIES.insert(key, &*zombie, 0).is_err() {
            count(|counters| counters.zombies_untracked += 1);
        }
    }
}

/// The last thread of a namespace's init ends: from here on nothing can be forked there, and this thread kills
/// the members (zap_pid_ns_processes, kernel/pid_namespace.c). `threads` are those of the init that are left.
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
    // The init's own PIDs are the only ones there that are no member's.
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
        }
    }
}

/// Takes what reboot(2) was called with in the namespace of this inode number; 0: not seen.
#[inline(always)]
fn reboot_command(inum: u32) -> u32 {
    // SAFETY: a map value, copied at once.
    let command = unsafe { REBOOTS.get(&inum) }.copied().unwrap_or(0);
    if command != 0 {
        let _ = REBOOTS.remove(&inum);
    }
    command
}
