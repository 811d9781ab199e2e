//! `TP_PROTO(int sig, struct kernel_siginfo *info, struct task_struct *task, int group, int result)`, signal_generate
//! <https://github.com/torvalds/linux/blob/v6.18/include/trace/events/signal.h#L50>
//!
//! Called in the sender of every signal by __send_signal_locked() (before 5.19: __send_signal()). `info` may be 0
//! (SEND_SIG_NOINFO: the running process sends) or 1 (SEND_SIG_PRIV: the kernel does).

use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid,
    macros::{btf_tracepoint, map},
    maps::PerCpuArray,
    programs::BtfTracePointContext,
};
use aya_log_ebpf::debug;
use pidns_ebpf::abi::{Dying, Kind, NamespaceRecord, Origin, SignalBody, TeardownBody, Writer};

use crate::{
    call::word,
    emit::{Scratch, copy, fill_in, now, send, zero},
    filter,
    kernel::{Direct, PidNamespace, Probed, Siginfo, Task},
    layout::{COUNTING, Constant as _},
    maps::{CASCADE, DYING, count},
    syscall,
};

const SIGKILL: i32 = 9;
const SIGCHLD: i32 = 17;
/// `TRACE_SIGNAL_DELIVERED`.
const DELIVERED: i32 = 0;
/// `CLD_EXITED` to `CLD_DUMPED`: a parent is notified of a child's death.
const CHILD_DEATH: core::ops::RangeInclusive<i32> = 1..=3;

/// `SI_TIMER`, `SI_MESGQ`, `SI_ASYNCIO`, `SI_SIGIO`, `SI_DETHREAD`, `SI_ASYNCNL`: like every code above 0, these mark a
/// signal as sent by the kernel. The current process is the sender only if it built the siginfo itself
/// (rt_sigqueueinfo).
const KERNEL_CODES: [i32; 6] = [-2, -3, -4, -5, -7, -60];

#[map]
static SCRATCH_SIGNAL: PerCpuArray<Scratch<NamespaceRecord<SignalBody>>> =
    PerCpuArray::with_max_entries(1, 0);
#[map]
static SCRATCH_TEARDOWN: PerCpuArray<Scratch<NamespaceRecord<TeardownBody>>> =
    PerCpuArray::with_max_entries(1, 0);

#[btf_tracepoint(function = "signal_generate")]
fn signal_generate(ctx: BtfTracePointContext) -> i32 {
    // Called with the target's siglock held and interrupts off, so no other program can run on this CPU meanwhile.
    generated(&ctx);
    0
}

#[inline(always)]
fn generated(ctx: &BtfTracePointContext) {
    let signal: i32 = ctx.arg(0);
    let info = Siginfo::<Direct>::of(ctx.arg(1));
    let target = Task::<Direct>::of(ctx.arg(2));
    let result: i32 = ctx.arg(4);

    let current = Task::current_typed();
    if may_be_an_init(current) {
        let sender_tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
        if let Some(dying) = DYING.get_ptr_mut(&sender_tgid)
            && target.tgid() != sender_tgid
        {
            // SAFETY: a map value that only the dying init's thread writes.
            unsafe { from_dying_init(signal, info, target, result, sender_tgid, dying) };
        }
    }
    // Nearly all signals are SIGCHLD for a dead child, and the exit hook already reports those. The dead process itself
    // is the sender, so its state is enough to recognize them: neither the target nor si_code is read.
    if signal == SIGCHLD && info.is_pointer() && current.is_some_and(Task::has_ended) {
        return;
    }

    let level = target.thread_pid().level();
    if level == 0 && !(wants_fatal_signals() && filter::wants_level(0)) {
        return;
    }
    let leader = target.group_leader();
    let leader_pid = leader.thread_pid();
    let is_init = level > 0 && leader_pid.innermost_number() == 1;
    if is_init {
        if !filter::wants(Kind::InitSignal) {
            return;
        }
    } else if !wants_fatal_signals()
        || signal == SIGCHLD
        || result != DELIVERED
        || !is_wanted_kill(target, leader, level, signal)
    {
        return;
    }
    let code = info.code();
    if signal == SIGCHLD && code > 0 {
        return;
    }
    let sender = Task::current();
    // zap_pid_ns_processes() (kernel/pid_namespace.c) also sends SIGKILL to the init's own remaining threads. That does
    // not count as a signal to the init.
    if info.is_private() && sender.is_exiting() && sender.tgid() == leader.tgid() {
        return;
    }
    let (_, ns) = leader_pid.innermost();
    if !filter::wants_namespace(ns) {
        return;
    }
    let Some(scratch) = Scratch::of(&SCRATCH_SIGNAL) else { return };
    let kernels_code = code > 0 || KERNEL_CODES.contains(&code);
    let from_kernel = info.is_private()
        || sender.is_kernel_thread()
        || (kernels_code && !syscall::sends_own_siginfo(sender, signal));
    let origin = if from_kernel {
        Origin::Kernel
    } else if sender.is_exiting() && word(ctx, 1) == 0 {
        // An exiting task sends only parent-death signals with SEND_SIG_NOINFO (forget_original_parent(),
        // kernel/exit.c). The raw word is compared, because newer verifiers assume that the pointer is never null and
        // drop the check.
        Origin::ParentDeath
    } else if is_member(sender, ns) {
        Origin::Inside
    } else {
        Origin::Ancestor
    };
    debug!(ctx, "signal {} to the init of {}, result {}", signal, ns.inum(), result);
    let body = SignalBody { signal: signal as u32, code, fate: result as u32, origin: origin as u32 };
    let other = (!from_kernel).then(|| sender.group_leader());
    // SAFETY: this CPU's scratch memory, and the task pointers of the hook.
    unsafe {
        let (pids, other_pids) = fill_in(scratch, is_init.then_some(ns), Some(leader), other, body);
        if is_init {
            send(Writer::Signal, Kind::InitSignal, 0, now(), scratch, pids, other_pids);
        } else {
            send(Writer::Signal, Kind::ProcessSignal, 0, now(), scratch, pids, other_pids);
        }
    }
}

/// Whether to report signals that kill processes, so that exits can name their sender.
#[inline(always)]
fn wants_fatal_signals() -> bool {
    filter::wants(Kind::ProcessSignal) && !COUNTING.is_on()
}

/// Whether the process passes the filter and the signal kills it. Members that a teardown kills are excluded, because
/// their exit records name the teardown.
#[inline(always)]
fn is_wanted_kill(target: Task<Direct>, leader: Task<Direct>, level: u32, signal: i32) -> bool {
    let tgid = leader.tgid();
    filter::wants_level(level)
        && filter::wants_process(tgid, tgid)
        && target.is_ended_by(signal)
        && (level == 0 || CASCADE.get_ptr(&leader.key()).is_none())
}

/// Whether the running process may be a namespace's init. Most signals are SIGCHLD from a child that is no init, and
/// this check is cheaper than a lookup in the map.
#[inline(always)]
fn may_be_an_init(current: Option<Task<Direct>>) -> bool {
    match current {
        Some(task) => {
            let pid = task.group_leader().thread_pid();
            pid.level() > 0 && pid.innermost_number() == 1
        }
        None => true,
    }
}

/// Whether the task's namespace is `ns` or below it.
#[inline(always)]
fn is_member(task: Task<Probed>, ns: PidNamespace<Probed>) -> bool {
    let mut at = task.thread_pid().innermost().1;
    let level = ns.level();
    for _ in 0..=pidns_ebpf::abi::MAX_LEVEL {
        if at.address() == ns.address() {
            return true;
        }
        if at.is_null() || at.level() <= level {
            return false;
        }
        at = at.parent();
    }
    false
}

/// Handles a signal of an exiting init: it sends SIGKILL to each member, and its exit signal to its parent when all
/// members are gone.
///
/// # Safety
/// `dying` must be valid, and no other CPU may write it.
#[inline(always)]
unsafe fn from_dying_init(
    signal: i32,
    info: Siginfo<Direct>,
    target: Task<Direct>,
    result: i32,
    tgid: u32,
    dying: *mut Dying,
) {
    let init = Task::current().group_leader();
    // SAFETY: `dying` is valid per this function's contract.
    if init.start_boottime() != unsafe { (*dying).init_start_boot_ns } {
        // Another process has reused the PID. No hook saw the end of this teardown.
        return;
    }
    if signal == SIGKILL && info.is_private() {
        if result == DELIVERED {
            // SAFETY: `dying` is valid per this function's contract.
            let inum = unsafe {
                (*dying).killed += 1;
                (*dying).ns.inum
            };
            // In counting mode only the exits of inits are reported.
            let is_reported = !COUNTING.is_on() || target.group_leader().thread_pid().innermost().0 == 1;
            if is_reported && CASCADE.insert(&target.group_leader().key(), &inum, 0).is_err() {
                count(|counters| counters.cascades_untracked += 1);
            }
        }
    } else if CHILD_DEATH.contains(&info.code())
        // Skip the signal about a zombie that the init was tracing. The kernel sends it to the zombie's parent before
        // it kills the members (exit_ptrace()).
        && target.tgid() == init.parent().tgid()
        && let Some(scratch) = Scratch::of(&SCRATCH_TEARDOWN)
    {
        // SAFETY: `dying` is valid per this function's contract; this CPU's scratch memory.
        unsafe { report_teardown(Writer::Signal, 0, scratch, tgid, dying) };
    }
}

/// Reports the end of a teardown and removes its entry.
///
/// # Safety
/// `scratch` and `dying` must be valid.
#[inline(always)]
pub(super) unsafe fn report_teardown(
    writer: Writer,
    flags: u8,
    scratch: *mut Scratch<NamespaceRecord<TeardownBody>>,
    init_tgid: u32,
    dying: *const Dying,
) {
    // SAFETY: `scratch` and `dying` are valid per this function's contract.
    unsafe {
        let record = &raw mut (*scratch).record;
        copy(&raw const (*dying).ns, &raw mut (*record).ns);
        zero(&raw mut (*record).process);
        zero(&raw mut (*record).other);
        (&raw mut (*record).body).write(TeardownBody {
            began_boot_ns: (*dying).began_boot_ns,
            killed: (*dying).killed,
            reserved: 0,
        });
        send(writer, Kind::NamespaceTeardown, flags, now(), scratch, 0, 0);
    }
    let _ = DYING.remove(&init_tgid);
}
