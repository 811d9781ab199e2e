//! `TP_PROTO(struct task_struct *p)`, sched_process_free
//! <https://github.com/torvalds/linux/blob/v6.18/include/trace/events/sched.h#L318>
//!
//! Called by delayed_put_task_struct(), an RCU grace period (4 to 40 ms) after release_task(): the process is
//! gone by then, when exactly it went is not known. The task has lost its PIDs. Attached only where release_task and
//! zap_pid_ns_processes do not have all that.

use aya_ebpf::{
    macros::{btf_tracepoint, map},
    maps::PerCpuArray,
    programs::BtfTracePointContext,
};
use pidns_ebpf::abi::{
    FLAG_INEXACT, Kind, MAX_PIDS, NamespaceRecord, ProcessKey, ReapRecord, TeardownBody, Writer, Zombie,
};

use crate::{
    emit::{Scratch, copy, now, output},
    filter,
    kernel::{Direct, Task},
    maps::{DYING, ZOMBIES},
    programs::signal,
};

#[map]
static SCRATCH_FREE_TEARDOWN: PerCpuArray<Scratch<NamespaceRecord<TeardownBody>>> =
    PerCpuArray::with_max_entries(1, 0);

#[map]
static SCRATCH_REAP: PerCpuArray<Zombie> = PerCpuArray::with_max_entries(1, 0);

#[btf_tracepoint(function = "sched_process_free")]
fn process_free(ctx: BtfTracePointContext) -> i32 {
    let task = Task::<Direct>::of(ctx.arg(0));
    if task.pid() != task.tgid() {
        return 0;
    }
    let key = task.key();
    if filter::wants(Kind::ProcessReap) {
        reaped(&key);
    }
    // Where the init's parent took no SIGCHLD, the end of the teardown shows only now.
    if let Some(dying) = DYING.get_ptr(&key.pid)
        // SAFETY: a map value.
        && unsafe { (*dying).init_start_boot_ns } == key.start_boot_ns
        && let Some(scratch) = Scratch::of(&SCRATCH_FREE_TEARDOWN)
    {
        // SAFETY: a map value, and this CPU's scratch memory.
        unsafe { signal::report_teardown(Writer::Free, FLAG_INEXACT, scratch, key.pid, dying) };
    }
    0
}

/// Sends the record that was prepared at the exit: the side that removes it from the map sends it, this hook or the sweep of user
/// space (kernel/sweep.rs).
#[inline(always)]
fn reaped(key: &ProcessKey) {
    let Some(zombie) = ZOMBIES.get_ptr(key) else { return };
    let Some(scratch) = SCRATCH_REAP.get_ptr_mut(0) else { return };
    // SAFETY: a map value, copied before it goes, and this CPU's scratch memory.
    unsafe {
        copy(zombie, scratch);
        if ZOMBIES.remove(key).is_err() {
            return;
        }
        let header = &raw mut (*scratch).record.header;
        (*header).boot_ns = now();
        (*header).flags = FLAG_INEXACT;
        let size = (*header).size;
        if size as usize <= size_of::<ReapRecord>() + 4 * MAX_PIDS {
            output(Writer::Free, Kind::ProcessReap, scratch.cast(), size);
        }
    }
}
