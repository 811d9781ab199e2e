//! `TP_PROTO(struct task_struct *task, uid_t uid)`, mark_victim
//! <https://github.com/torvalds/linux/blob/v6.18/include/trace/events/oom.h#L74>
//!
//! Called by mark_oom_victim() in the task that asked for memory, right after the victim was sent SIGKILL, or without a
//! signal if the process is already dying. If a whole cgroup is killed (`memory.oom.group`), it is called for each of
//! its processes.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::{
    kernel::{Direct, Task},
    maps::OOM_VICTIMS,
    undisturbed::undisturbed,
};

#[btf_tracepoint(function = "mark_victim")]
fn victim_marked(ctx: BtfTracePointContext) -> i32 {
    undisturbed(|| marked(&ctx))
}

#[inline(always)]
fn marked(ctx: &BtfTracePointContext) {
    let leader = Task::<Direct>::of(ctx.arg(0)).group_leader();
    // An LRU map always has room.
    let _ = OOM_VICTIMS.insert(&leader.key(), &1, 0);
}
