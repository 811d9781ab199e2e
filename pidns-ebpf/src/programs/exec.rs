//! `TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`, sched_process_exec
//! <https://github.com/torvalds/linux/blob/v6.18/include/trace/events/sched.h#L424>
//!
//! Called by exec_binprm() in the process, after the new program is loaded.

use aya_ebpf::{
    helpers::generated::{bpf_probe_read_kernel_str, bpf_probe_read_user},
    macros::{btf_tracepoint, map},
    maps::PerCpuArray,
    programs::BtfTracePointContext,
};
use pidns_ebpf::abi::{
    ARGS_MAX, DoubleHook, ExecRecord, FILENAME_MAX, FLAG_ARGS, FLAG_ARGS_CUT, Header, Kind, MAX_PIDS, Writer,
};

use crate::{
    counting,
    emit::{now, output},
    filter,
    kernel::{Binprm, Direct, Task, bounded},
    layout::{COUNTING, Constant as _, WITH_ARGS},
    pid::Chain,
    undisturbed::{first, second},
};

/// The record's fixed part and its longest tail, with one more byte for the NUL that the helper writes.
#[repr(C)]
struct ExecScratch {
    record: ExecRecord,
    tail: [u8; MAX_PIDS * 4 + FILENAME_MAX + 1 + ARGS_MAX],
}

#[map]
static SCRATCH_EXEC: PerCpuArray<ExecScratch> = PerCpuArray::with_max_entries(1, 0);

#[btf_tracepoint(function = "sched_process_exec")]
fn process_exec(ctx: BtfTracePointContext) -> i32 {
    first::<{ DoubleHook::Exec as u32 }>(|| exec(&ctx))
}

#[btf_tracepoint(function = "sched_process_exec")]
fn again_process_exec(ctx: BtfTracePointContext) -> i32 {
    second::<{ DoubleHook::Exec as u32 }>(|| exec(&ctx))
}

#[inline(always)]
fn exec(ctx: &BtfTracePointContext) {
    let task = Task::<Direct>::of(ctx.arg(0));
    let binprm = Binprm::<Direct>::of(ctx.arg(2));
    if COUNTING.is_on() {
        counting::execed(task);
        return;
    }
    let pid = task.thread_pid();
    if !(filter::wants(Kind::ProcessExec)
        && filter::wants_level(pid.level())
        && filter::wants_process(task.tgid(), task.tgid())
        && filter::wants_member(pid))
    {
        return;
    }
    let Some(scratch) = SCRATCH_EXEC.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's scratch memory, and the task pointer of the hook.
    unsafe {
        let tail = (&raw mut (*scratch).tail).cast::<u8>();
        let (start, end) = if WITH_ARGS.is_on() { task.argument_range() } else { (0, 0) };
        task.describe(&raw mut (*scratch).record.process);
        let Chain { pids, ns, .. } = pid.copy_pids(tail.cast());
        (&raw mut (*scratch).record.process.ns_inum).write(ns.inum());

        let name = tail.add(pids as usize * 4);
        let read = bpf_probe_read_kernel_str(name.cast(), FILENAME_MAX as u32, binprm.filename().cast());
        // The helper's result includes the NUL. The mask shows the verifier a bound of the result.
        let filename_len = if read > 0 { (read as u32 - 1) & (FILENAME_MAX as u32 - 1) } else { 0 };

        let mut flags = 0;
        let mut args_len = 0;
        if WITH_ARGS.is_on() {
            let wanted = end.saturating_sub(start);
            args_len = if wanted >= ARGS_MAX as u64 { ARGS_MAX as u32 - 1 } else { wanted as u32 };
            args_len &= ARGS_MAX as u32 - 1;
            flags = if wanted > u64::from(args_len) { FLAG_ARGS | FLAG_ARGS_CUT } else { FLAG_ARGS };
            let to = name.add(filename_len as usize);
            if args_len > 0 && bpf_probe_read_user(to.cast(), args_len, start as *const _) != 0 {
                // The memory is swapped out, or the process has already changed its memory map: the arguments are
                // unknown.
                args_len = 0;
                flags = 0;
            }
        }

        let size = size_of::<ExecRecord>() as u32 + pids * 4 + filename_len + args_len;
        let size = bounded(u64::from(size.min(size_of::<ExecScratch>() as u32))) as u32;
        (&raw mut (*scratch).record.filename_len).write(filename_len);
        (&raw mut (*scratch).record.args_len).write(args_len);
        (&raw mut (*scratch).record.header).write(Header {
            boot_ns: now(),
            size,
            kind: Kind::ProcessExec as u8,
            flags,
            pids: pids as u8,
            other_pids: 0,
        });
        output(Writer::Exec, Kind::ProcessExec, scratch.cast(), size);
    }
}
