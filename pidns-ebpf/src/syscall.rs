//! Reads system calls that create, join and fork from the caller's registers.
//!
//! Only 64-bit calls on x86-64 are supported. Callers must exclude the calls of 32-bit programs.

use pidns_ebpf::abi::Via;

use crate::{
    access::read_user,
    chosen::Chosen,
    kernel::{Access, Probed, Regs, Task},
};

#[cfg(not(bpf_target_arch = "x86_64"))]
compile_error!("the numbers and registers of system calls are known for x86_64 only");

const SYS_CLONE: u64 = 56;
const SYS_FORK: u64 = 57;
const SYS_VFORK: u64 = 58;
const SYS_UNSHARE: u64 = 272;
const SYS_SETNS: u64 = 308;
const SYS_CLONE3: u64 = 435;
const SYS_RT_SIGQUEUEINFO: u64 = 129;
const SYS_RT_TGSIGQUEUEINFO: u64 = 297;
const SYS_PIDFD_SEND_SIGNAL: u64 = 424;
/// The numbers that differ for 32-bit programs.
const COMPAT_RT_SIGQUEUEINFO: u64 = 178;
const COMPAT_RT_TGSIGQUEUEINFO: u64 = 335;

pub(crate) const CLONE_NEWPID: u64 = 0x2000_0000;
pub(crate) const CLONE_THREAD: u64 = 0x0001_0000;
pub(crate) const CLONE_NEWUSER: u64 = 0x1000_0000;
/// The flags that ask for a namespace of another type.
pub(crate) const CLONE_NEW_OTHERS: u64 =
    0x0000_0080 | 0x0002_0000 | 0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x1000_0000 | 0x4000_0000;

/// The call with this number.
#[inline(always)]
pub(crate) fn via(call: u64) -> Via {
    match call {
        SYS_CLONE => Via::Clone,
        SYS_CLONE3 => Via::Clone3,
        SYS_UNSHARE => Via::Unshare,
        SYS_SETNS => Via::Setns,
        SYS_FORK => Via::Fork,
        SYS_VFORK => Via::Vfork,
        _ => Via::Unknown,
    }
}

/// Whether the running task is in a system call that sends `signal` with a siginfo that the caller built. Its `si_code`
/// can have any value to the caller itself. To other processes do_rt_sigqueueinfo (kernel/signal.c) forbids some
/// values.
#[inline(always)]
pub(crate) fn sends_own_siginfo(task: Task<Probed>, signal: i32) -> bool {
    let regs = task.syscall_regs();
    let call = regs.call();
    if task.in_compat_syscall() {
        return matches!(call, COMPAT_RT_SIGQUEUEINFO | COMPAT_RT_TGSIGQUEUEINFO | SYS_PIDFD_SEND_SIGNAL);
    }
    // A timer can interrupt such a call and send a signal of its own.
    let sent = match call {
        SYS_RT_SIGQUEUEINFO | SYS_PIDFD_SEND_SIGNAL => regs.argument1(),
        SYS_RT_TGSIGQUEUEINFO => regs.argument2(),
        _ => return false,
    };
    sent as i32 == signal
}

/// The arguments of a fork.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Fork {
    /// A [`Via`].
    pub(crate) via: u32,
    /// Number of PIDs that the caller chose.
    pub(crate) set_tid: u32,
    /// `CLONE_*`.
    pub(crate) flags: u64,
}

/// Offsets of `flags`, `set_tid` and `set_tid_size` in clone3's `struct clone_args` (include/uapi/linux/sched.h).
const CLONE_ARGS_FLAGS: u64 = 0;
const CLONE_ARGS_SET_TID: u64 = 64;
const CLONE_ARGS_SET_TID_SIZE: u64 = 72;
/// Size of `struct clone_args` with `set_tid_size` (5.5 and later).
const CLONE_ARGS_SIZE_VER1: u64 = 80;

impl Fork {
    /// A call about which nothing is known, such as a 32-bit one.
    pub(crate) const UNKNOWN: Self = Self { via: Via::Unknown as u32, set_tid: 0, flags: 0 };

    /// Reads the call from the caller's registers. The arguments of clone3 are in user memory, where another thread
    /// could have changed them since the kernel read them.
    #[inline(always)]
    pub(crate) fn of<A: Access>(regs: Regs<A>) -> Self {
        let via = via(regs.call());
        match via {
            Via::Clone => Self { via: via as u32, set_tid: 0, flags: regs.argument0() },
            Via::Clone3 => {
                let (at, size) = (regs.argument0(), regs.argument1());
                let flags = read_user(at + CLONE_ARGS_FLAGS).unwrap_or_default();
                Self { via: via as u32, set_tid: set_tid_size(at, size) as u32, flags }
            }
            _ => Self { via: via as u32, ..Self::UNKNOWN },
        }
    }
}

/// Number of PIDs in the `set_tid` of the `struct clone_args` with this address and size.
#[inline(always)]
fn set_tid_size(at: u64, size: u64) -> u64 {
    if size < CLONE_ARGS_SIZE_VER1 {
        return 0;
    }
    read_user(at + CLONE_ARGS_SET_TID_SIZE).unwrap_or_default()
}

impl Chosen {
    /// Reads the PIDs that a call chose from the caller's registers.
    #[inline(always)]
    pub(crate) fn of<A: Access>(regs: Regs<A>) -> Self {
        if !matches!(via(regs.call()), Via::Clone3) {
            return Self::NONE;
        }
        let (args, size) = (regs.argument0(), regs.argument1());
        let count = set_tid_size(args, size);
        let at = if count == 0 { 0 } else { read_user(args + CLONE_ARGS_SET_TID).unwrap_or_default() };
        Self { at, count, in_kernel: false }
    }
}
