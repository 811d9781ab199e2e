//! `void zap_pid_ns_processes(struct pid_namespace *pid_ns)`
//! <https://github.com/torvalds/linux/blob/v6.18/kernel/pid_namespace.c#L193>
//!
//! Called by exit_notify() in the last thread of a namespace's init. It kills the members, and returns when all of them
//! are gone: its entry and its return are the start and the end of the teardown. In between, signal_generate counts the
//! killed processes.

use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid,
    macros::{fentry, fexit, map},
    maps::PerCpuArray,
    programs::{FEntryContext, FExitContext},
};
use pidns_ebpf::abi::{Dying, NamespaceRecord, TeardownBody, Writer};

use crate::{
    emit::{Scratch, now},
    kernel::Task,
    maps::DYING,
    programs::signal,
    undisturbed::undisturbed,
};

#[map]
static SCRATCH_ZAP: PerCpuArray<Scratch<NamespaceRecord<TeardownBody>>> = PerCpuArray::with_max_entries(1, 0);

#[fentry(function = "zap_pid_ns_processes")]
fn zap_begins(_ctx: FEntryContext) -> i32 {
    undisturbed(|| begins())
}

#[inline(always)]
fn begins() {
    if let Some((_, dying)) = own() {
        // SAFETY: a map value that only the dying init's thread writes.
        unsafe { (*dying).began_boot_ns = now() };
    }
}

#[fexit(function = "zap_pid_ns_processes")]
fn zap_ends(_ctx: FExitContext) -> i32 {
    undisturbed(|| ends())
}

#[inline(always)]
fn ends() {
    if let Some((tgid, dying)) = own()
        && let Some(scratch) = Scratch::of(&SCRATCH_ZAP)
    {
        // SAFETY: a map value, and this CPU's scratch memory.
        unsafe { signal::report_teardown(Writer::Zap, 0, scratch, tgid, dying) };
    }
}

/// The entry of the dying namespace whose init is the running process, with its thread group id.
#[inline(always)]
fn own() -> Option<(u32, *mut Dying)> {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let dying = DYING.get_ptr_mut(&tgid)?;
    let start = Task::current().group_leader().start_boottime();
    // SAFETY: a map value.
    (unsafe { (*dying).init_start_boot_ns } == start).then_some((tgid, dying))
}
