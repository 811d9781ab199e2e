//! `void proc_free_inum(unsigned int inum)`
//! <https://github.com/torvalds/linux/blob/v6.18/fs/proc/generic.c#L246>
//!
//! Called when a namespace of any type is destroyed because its last reference is gone: in the task that dropped the
//! reference, or later in a kernel worker (6.14 and later).
//!
//! destroy_pid_namespace_work, which is only about PID namespaces, is no alternative: it is new in 6.14, and frees
//! ancestors in a loop without a call for each.

use aya_ebpf::{
    macros::{fentry, map},
    maps::PerCpuArray,
    programs::FEntryContext,
};
use pidns_ebpf::abi::{Kind, NamespaceRecord, Writer};

use crate::{
    emit::{Scratch, copy, now, send, zero},
    maps::WITHOUT_INIT,
    undisturbed::undisturbed,
};

#[map]
static SCRATCH_DESTROY: PerCpuArray<Scratch<NamespaceRecord<()>>> = PerCpuArray::with_max_entries(1, 0);

#[fentry(function = "proc_free_inum")]
fn inode_number_freed(ctx: FEntryContext) -> i32 {
    undisturbed(|| freed(&ctx))
}

#[inline(always)]
fn freed(ctx: &FEntryContext) {
    let inum: u32 = ctx.arg(0);
    let Some(ns) = WITHOUT_INIT.get_ptr(&inum) else { return };
    let Some(scratch) = Scratch::of(&SCRATCH_DESTROY) else { return };
    // SAFETY: a map value, which is copied before it is removed, and this CPU's scratch memory.
    unsafe {
        let record = &raw mut (*scratch).record;
        copy(ns, &raw mut (*record).ns);
        zero(&raw mut (*record).process);
        zero(&raw mut (*record).other);
        if WITHOUT_INIT.remove(&inum).is_ok() {
            send(Writer::Destroy, Kind::NamespaceDestroy, 0, now(), scratch, 0, 0);
        }
    }
}
