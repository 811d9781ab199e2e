//! `void release_task(struct task_struct *p)`
//! <https://github.com/torvalds/linux/blob/v6.18/kernel/exit.c#L248>
//!
//! Called when a zombie is waited for, or dies unwaited, by whoever did that: the moment of the reaping. A leader that
//! it releases in the same call as its last thread is not seen here, but by sched_process_free.

use aya_ebpf::{
    macros::{fentry, map},
    maps::PerCpuArray,
    programs::FEntryContext,
};
use pidns_ebpf::abi::{Kind, Writer, Zombie};

use crate::{
    filter,
    kernel::{Direct, Task},
    programs::free,
    undisturbed::undisturbed,
};

#[map]
static SCRATCH_RELEASE: PerCpuArray<Zombie> = PerCpuArray::with_max_entries(1, 0);

#[fentry(function = "release_task")]
fn task_released(ctx: FEntryContext) -> i32 {
    undisturbed(|| released(&ctx))
}

#[inline(always)]
fn released(ctx: &FEntryContext) {
    let task = Task::<Direct>::of(ctx.arg(0));
    if task.pid() == task.tgid() && filter::wants(Kind::ProcessReap) {
        free::reaped(Writer::Release, 0, &task.key(), &SCRATCH_RELEASE);
    }
}
