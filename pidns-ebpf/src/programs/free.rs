//! `TP_PROTO(struct task_struct *p)`, sched_process_free
//! <https://github.com/torvalds/linux/blob/v6.18/include/trace/events/sched.h#L318>
//!
//! Called by delayed_put_task_struct(), an RCU grace period (4 to 40 ms) after release_task(). The process was reaped
//! earlier, at an unknown time, and the task has lost its PIDs: the exit hook notes for which processes there is
//! anything to do. This hook is attached only if release_task and zap_pid_ns_processes are not both hooked.

use aya_ebpf::{
    macros::{btf_tracepoint, map},
    maps::PerCpuArray,
    programs::BtfTracePointContext,
};
use pidns_ebpf::abi::{FLAG_INEXACT, FreeRecord, Kind, NamespaceRecord, ProcessKey, TeardownBody, Writer};

use crate::{
    emit::{Scratch, now, send},
    kernel::{Direct, Task},
    maps::{AWAITS_REAP, AWAITS_TEARDOWN, DYING, notes},
    programs::signal,
};

#[map]
static SCRATCH_FREE_TEARDOWN: PerCpuArray<Scratch<NamespaceRecord<TeardownBody>>> =
    PerCpuArray::with_max_entries(1, 0);

#[map]
static SCRATCH_REAP: PerCpuArray<Scratch<FreeRecord>> = PerCpuArray::with_max_entries(1, 0);

#[btf_tracepoint(function = "sched_process_free")]
fn process_free(ctx: BtfTracePointContext) -> i32 {
    let task = Task::<Direct>::of(ctx.arg(0));
    let tgid = task.tgid();
    if task.pid() != tgid {
        return 0;
    }
    let Some(notes) = notes(tgid) else { return 0 };
    // SAFETY: a map value.
    let what = unsafe { *notes } & (AWAITS_REAP | AWAITS_TEARDOWN);
    if what == 0 {
        return 0;
    }
    // SAFETY: as above.
    unsafe { *notes &= !what };
    let key = task.key();
    if what & AWAITS_REAP != 0 {
        reaped(key);
    }
    // If the kernel sent no SIGCHLD to the init's parent, the end of the teardown is visible only now.
    if what & AWAITS_TEARDOWN != 0
        && let Some(dying) = DYING.get_ptr(&key.pid)
        // SAFETY: a map value.
        && unsafe { (*dying).init_start_boot_ns } == key.start_boot_ns
        && let Some(scratch) = Scratch::of(&SCRATCH_FREE_TEARDOWN)
    {
        // SAFETY: a map value, and this CPU's scratch memory.
        unsafe { signal::report_teardown(Writer::Free, FLAG_INEXACT, scratch, key.pid, dying) };
    }
    0
}

/// Reports that the process was reaped. User space describes it by the record of its exit.
#[inline(always)]
fn reaped(key: ProcessKey) {
    let Some(scratch) = Scratch::of(&SCRATCH_REAP) else { return };
    // SAFETY: this CPU's scratch memory.
    unsafe {
        (&raw mut (*scratch).record.key).write(key);
        send(Writer::Free, Kind::ProcessReap, FLAG_INEXACT, now(), scratch, 0, 0);
    }
}
