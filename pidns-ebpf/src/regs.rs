//! Reads the arguments of a system call.

use core::ptr;

use aya_ebpf::helpers::generated;

use crate::{
    access::{Access, Direct, Probed, ThroughRegs},
    kernel::{CloneArgs, Regs, Task},
    layout::*,
};

impl Task<Probed> {
    /// The registers of the system call that this task is in. It must be the running task.
    #[inline(always)]
    pub(crate) fn syscall_regs(self) -> Regs<ThroughRegs> {
        if HAVE_TASK_PT_REGS.is_on() {
            // SAFETY: the helper has no preconditions. It exists since 5.11, so kernels with bpf_task_pt_regs (5.15)
            // have it.
            Task::<Direct>::at(unsafe { generated::bpf_get_current_task_btf() } as *const u8).user_regs()
        } else {
            self.stacked_regs()
        }
    }
}

impl Task<Direct> {
    /// The registers of the system call that it is in. It must be the running task: on older kernels the registers are
    /// right only for that one.
    #[inline(always)]
    pub(crate) fn user_regs(self) -> Regs<ThroughRegs> {
        if HAVE_TASK_PT_REGS.is_on() {
            // SAFETY: a task_struct that the verifier knows as one.
            Regs::at(unsafe { generated::bpf_task_pt_regs(self.0.cast_mut().cast()) } as *const u8)
        } else {
            self.stacked_regs()
        }
    }
}

impl<A: Access> Task<A> {
    #[inline(always)]
    fn stacked_regs(self) -> Regs<ThroughRegs> {
        if present(TASK_STACK) && present(THREAD_STACK_SIZE) {
            // The registers are at the top of the kernel stack (task_pt_regs, arch/x86/include/asm/processor.h). BTF
            // does not have its size, but it is as large as the stack of interrupts.
            let stack: u64 = self.field(TASK_STACK);
            let regs = stack + u64::from(THREAD_STACK_SIZE.load()) - u64::from(REGS_SIZE.load());
            Regs::at(regs as *const u8)
        } else {
            Regs::at(ptr::null())
        }
    }
}

impl<A: Access> Regs<A> {
    /// The system call's number.
    #[inline(always)]
    pub(crate) fn call(self) -> u64 {
        self.field(REGS_CALL)
    }

    /// Its first argument.
    #[inline(always)]
    pub(crate) fn argument0(self) -> u64 {
        self.field(REGS_ARG0)
    }

    /// Its second argument.
    #[inline(always)]
    pub(crate) fn argument1(self) -> u64 {
        self.field(REGS_ARG1)
    }

    /// Its third argument.
    #[inline(always)]
    pub(crate) fn argument2(self) -> u64 {
        self.field(REGS_ARG2)
    }
}

impl CloneArgs<Direct> {
    /// `CLONE_*`.
    #[inline(always)]
    pub(crate) fn flags(self) -> u64 {
        self.field(KERNEL_CLONE_FLAGS)
    }

    /// Address of the PIDs that the caller chose, in kernel memory.
    #[inline(always)]
    pub(crate) fn set_tid(self) -> u64 {
        self.field(KERNEL_CLONE_SET_TID)
    }

    /// Number of PIDs that the caller chose.
    #[inline(always)]
    pub(crate) fn set_tid_size(self) -> u64 {
        self.field(KERNEL_CLONE_SET_TID_SIZE)
    }
}
