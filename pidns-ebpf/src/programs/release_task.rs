//! `void release_task(struct task_struct *p)`
//! <https://github.com/torvalds/linux/blob/v6.18/kernel/exit.c#L248>
//!
//! Called when a task is reaped: in wait(2), or at its own exit if no process has to wait for it. The task still has
//! its PIDs, so nothing has to be stored at its exit. If the kernel releases a leader in the same call as its last
//! thread, this hook does not see it: user space finds out that it is gone (kernel/sweep.rs).

use aya_ebpf::{
    macros::{fentry, map},
    maps::PerCpuArray,
    programs::FEntryContext,
};
use pidns_ebpf::abi::{Kind, ReapRecord, Writer, names::attached::ENDS_BY_FUNCTION};

use crate::{
    emit::{self, Scratch, now, send},
    filter,
    kernel::{Direct, Task},
    maps::attached,
    pid::Chain,
    undisturbed::undisturbed,
};

#[map]
static SCRATCH_RELEASE: PerCpuArray<Scratch<ReapRecord>> = PerCpuArray::with_max_entries(1, 0);

#[fentry(function = "release_task")]
fn task_released(ctx: FEntryContext) -> i32 {
    let task = Task::<Direct>::of(ctx.arg(0));
    if task.pid() != task.tgid() || !filter::wants(Kind::ProcessReap) || !attached(ENDS_BY_FUNCTION) {
        return 0;
    }
    undisturbed(|| released(task))
}

#[inline(always)]
fn released(leader: Task<Direct>) {
    let pid = leader.thread_pid();
    let tgid = leader.tgid();
    if !filter::wants_level(pid.level()) || !filter::wants_process(tgid, tgid) || !filter::wants_member(pid) {
        return;
    }
    let Some(scratch) = Scratch::of(&SCRATCH_RELEASE) else { return };
    // SAFETY: this CPU's scratch memory, and the task pointer of the hook.
    unsafe {
        let record = &raw mut (*scratch).record;
        leader.describe(&raw mut (*record).process);
        let Chain { pids, ns, .. } = pid.copy_pids(emit::tail(scratch, 0));
        (&raw mut (*record).process.ns_inum).write(ns.inum());
        send(Writer::Release, Kind::ProcessReap, 0, now(), scratch, pids, 0);
    }
}
