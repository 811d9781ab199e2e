//! `TP_PROTO(struct task_struct *p)`, sched_process_free
//! <https://github.com/torvalds/linux/blob/v6.18/include/trace/events/sched.h#L318>
//!
//! Called by delayed_put_task_struct(), an RCU grace period (4 to 40 ms) after release_task(): the process is
//! gone by then, when exactly it went is not known. The task has lost its PIDs.

use aya_ebpf::{
    macros::{btf_tracepoint, map},
    maps::PerCpuArray,
    programs::BtfTracePointContext,
};
use pidns_ebpf::abi::{
    FLAG_INEXACT, Kind, MAX_PIDS, NamespaceRecord, ReapRecord, TeardownBody, Writer, Zombie,
};

use crate::{
    emit::{Scratch, now, output},
    filter,
    kernel::{Direct, Task},
    maps::{DYING, ZOMBIES},
    programs::signal,
};

#[map]
static SCRATCH_FREE_TEARDOWN: PerCpuArray<Scratch<NamespaceRecord<TeardownBody>>> =
    PerCpuArray::with_max_entries(1, 0);

#[btf_tracepoint(function = "sched_process_free")]
fn process_free(ctx: BtfTracePointContext) -> i32 {
    let task = Task::<Direct>::of(ctx.arg(0));
    let tgid = task.tgid();
    if task.pid() != tgid {
        return 0;
    }
    let key = task.address();
    if filter::wants(Kind::ProcessReap)
        && let Some(zombie) = ZOMBIES.get_ptr_mut(&key)
    {
        // SAFETY: a map value that only this program uses between the exit and here.
        unsafe { reaped(Writer::Free, zombie) };
        let _ = ZOMBIES.remove(&key);
    }
    // Where the init's parent took no SIGCHLD, the end of the teardown shows only now.
    if let Some(dying) = DYING.get_ptr(&tgid)
        // SAFETY: a map value.
        && unsafe { (*dying).init_start_boot_ns } == task.start_boottime()
        && let Some(scratch) = Scratch::of(&SCRATCH_FREE_TEARDOWN)
    {
        // SAFETY: a map value, and this CPU's scratch memory.
        unsafe { signal::teardown(Writer::Free, FLAG_INEXACT, scratch, tgid, dying) };
    }
    0
}

/// Sends the record that was prepared at the exit.
///
/// # Safety
/// `zombie` must be a value of the map, which nobody else writes.
#[inline(always)]
pub(super) unsafe fn reaped(writer: Writer, zombie: *mut Zombie) {
    // SAFETY: the caller's promise.
    unsafe {
        let header = &raw mut (*zombie).record.header;
        (*header).boot_ns = now();
        (*header).flags = FLAG_INEXACT;
        let size = (*header).size;
        if size as usize <= size_of::<ReapRecord>() + 4 * MAX_PIDS {
            output(writer, Kind::ProcessReap, zombie.cast(), size);
        }
    }
}
