//! The system calls that create, join and fork, as their caller's registers show them.
//!
//! x86-64 only, and its 64-bit calls only: a 32-bit program's are not distinguished.

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
/// The same, as 32-bit programs number them.
const COMPAT_RT_SIGQUEUEINFO: u64 = 178;
const COMPAT_RT_TGSIGQUEUEINFO: u64 = 335;

pub(crate) const CLONE_NEWPID: u64 = 0x2000_0000;
pub(crate) const CLONE_THREAD: u64 = 0x0001_0000;
pub(crate) const CLONE_NEWUSER: u64 = 0x1000_0000;
/// The flags that ask for a namespace of another type.
pub(crate) const CLONE_NEW_OTHERS: u64 =
    0x0000_0080 | 0x0002_0000 | 0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x1000_0000 | 0x4000_0000;

/// Which of the calls it is.
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

/// Whether the running task is in a system call that sends `signal` with a siginfo of its caller's making: its `si_code` may be
/// any but for those that do_rt_sigqueueinfo (kernel/signal.c) keeps from others, and any at all to the caller itself.
#[inline(always)]
pub(crate) fn sends_own_siginfo(task: Task<Probed>, signal: i32) -> bool {
    let regs = task.syscall_regs();
    let call = regs.call();
    if task.in_compat_syscall() {
        return matches!(call, COMPAT_RT_SIGQUEUEINFO | COMPAT_RT_TGSIGQUEUEINFO | SYS_PIDFD_SEND_SIGNAL);
    }
    // What interrupts such a call may be a timer with a signal of its own.
    let sent = match call {
        SYS_RT_SIGQUEUEINFO | SYS_PIDFD_SEND_SIGNAL => regs.argument1(),
        SYS_RT_TGSIGQUEUEINFO => regs.argument2(),
        _ => return false,
    };
    sent as i32 == signal
}

/// What a fork was asked for.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Fork {
    /// A [`Via`].
    pub(crate) via: u32,
    /// How many PIDs were chosen by the caller.
    pub(crate) set_tid: u32,
    /// `CLONE_*`.
    pub(crate) flags: u64,
}

/// Where clone3's `struct clone_args` (include/uapi/linux/sched.h) has `flags`, `set_tid` and `set_tid_size`.
const CLONE_ARGS_FLAGS: u64 = 0;
const CLONE_ARGS_SET_TID: u64 = 64;
const CLONE_ARGS_SET_TID_SIZE: u64 = 72;
/// Its size since it has `set_tid_size` (5.5).
const CLONE_ARGS_SIZE_VER1: u64 = 80;

impl Fork {
    /// A call of which nothing is known, such as a 32-bit one.
    pub(crate) const UNKNOWN: Self = Self { via: Via::Unknown as u32, set_tid: 0, flags: 0 };

    /// Reads the call from the registers of its caller. clone3's arguments are in user memory: they are read as
    /// they are now, which another thread could have changed since the kernel read them.
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

/// How many PIDs the `struct clone_args` of this address and size chooses.
#[inline(always)]
fn set_tid_size(at: u64, size: u64) -> u64 {
    if size < CLONE_ARGS_SIZE_VER1 {
        return 0;
    }
    read_user(at + CLONE_ARGS_SET_TID_SIZE).unwrap_or_default()
}

impl Chosen {
    /// Reads from the registers of a call's caller which PIDs it chose.
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
