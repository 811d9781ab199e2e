//! Typed pointers to the kernel's structures, with an accessor for each field. Offsets come from [`crate::layout`].
//!
//! If a hook passes the pointer, plain loads read the memory behind it ([`Direct`]). For all other pointers, a helper
//! copies the memory ([`Probed`]).

use core::{marker::PhantomData, ptr};

use aya_ebpf::helpers::{bpf_get_current_task, generated};
use pidns_ebpf::abi::{COMM_LEN, ProcessKey, ProcessPart};

pub(crate) use crate::access::{Access, Direct, Probed};
use crate::layout::*;

macro_rules! pointers {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => { $(
        $(#[$doc])*
        pub(crate) struct $name<A>(pub(crate) *const u8, PhantomData<A>);

        impl<A> Clone for $name<A> {
            #[inline(always)]
            fn clone(&self) -> Self { *self }
        }
        impl<A> Copy for $name<A> {}

        impl<A: Access> $name<A> {
            #[inline(always)]
            pub(crate) fn at(pointer: *const u8) -> Self { Self(pointer, PhantomData) }

            #[inline(always)]
            pub(crate) fn field<T: Copy>(self, offset: impl Constant) -> T {
                // SAFETY: all fields read are integers and pointers; any bytes are a valid value.
                unsafe { A::read(self.0.add(offset.offset())) }
            }
        }
    )* };
}

pointers! {
    /// `struct task_struct` (include/linux/sched.h).
    Task,
    /// `struct signal_struct` (include/linux/sched/signal.h): data that the threads of a process share.
    Signal,
    /// `struct pid` (include/linux/pid.h).
    Pid,
    /// `struct pid_namespace` (include/linux/pid_namespace.h).
    PidNamespace,
    /// `struct kernel_siginfo` (include/linux/signal_types.h). signal_generate can pass 0 or 1 instead of a pointer.
    Siginfo,
    /// `struct linux_binprm` (include/linux/binfmts.h).
    Binprm,
    /// `struct pt_regs` of a system call (arch/x86/include/asm/ptrace.h).
    Regs,
    /// `struct ns_common` (include/linux/ns_common.h).
    NsCommon,
    /// `struct kernel_clone_args` (include/linux/sched/task.h): the arguments of a fork.
    CloneArgs,
    /// `struct file` (include/linux/fs.h).
    File,
}

/// Pointers that hooks pass.
macro_rules! arguments {
    ($($name:ident),*) => { $(
        impl $name<Direct> {
            /// A hook's argument, which must be a pointer of this type.
            #[inline(always)]
            pub(crate) fn of(argument: *const core::ffi::c_void) -> Self { Self::at(argument.cast()) }
        }
    )* };
}
arguments!(Task, Siginfo, Binprm, Regs, CloneArgs, PidNamespace);

/// Pointers that programs compare, or that may be null.
macro_rules! addresses {
    ($($name:ident),*) => { $(
        impl<A: Access> $name<A> {
            /// The address as a number.
            #[inline(always)]
            pub(crate) fn address(self) -> u64 { self.0 as u64 }

            #[inline(always)]
            pub(crate) fn is_null(self) -> bool { self.0.is_null() }
        }
    )* };
}
addresses!(PidNamespace, Siginfo);

/// `task.flags`: the task is in do_exit (`PF_EXITING`).
const PF_EXITING: u32 = 0x4;
/// `task.flags`: a kernel thread (`PF_KTHREAD`).
const PF_KTHREAD: u32 = 0x0020_0000;
/// `signal.flags`: the group's exit code is set.
const SIGNAL_GROUP_EXIT: u32 = 0x4;
/// `thread_info.status`: the task is in a 32-bit system call (`TS_COMPAT`).
const TS_COMPAT: u32 = 0x2;

impl Task<Probed> {
    /// The running task.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        // SAFETY: the helper has no preconditions.
        Self::at(unsafe { bpf_get_current_task() } as *const u8)
    }

    /// The namespace that the task has open as descriptor `number` (`task.files.fdt.fd[number]`); `None` if that is not
    /// a file in nsfs.
    #[inline(always)]
    pub(crate) fn namespace_file(self, number: u32) -> Option<NsCommon<Probed>> {
        // SAFETY: every read is a pointer or an integer, copied by a helper.
        unsafe {
            #[inline(always)]
            unsafe fn read(base: *const u8, offset: impl Constant) -> *const u8 {
                // SAFETY: a pointer; any bytes are a valid value.
                unsafe { Probed::read(base.add(offset.offset())) }
            }
            let table = read(self.field(TASK_FILES), FILES_FDT);
            let most: u32 = Probed::read(table.add(FDTABLE_MAX.offset()));
            if number >= most {
                return None;
            }
            let slots = read(table, FDTABLE_FD);
            let file: *const u8 = Probed::read(slots.add(number as usize * size_of::<u64>()));
            File::<Probed>::at(file).namespace()
        }
    }
}

impl<A: Access> File<A> {
    /// The namespace of the file; `None` if it is not a file in nsfs.
    #[inline(always)]
    pub(crate) fn namespace(self) -> Option<NsCommon<Probed>> {
        const NSFS_MAGIC: u64 = 0x6e73_6673;
        let inode: *const u8 = self.field(FILE_INODE);
        // SAFETY: pointers and an integer; any bytes are a valid value.
        unsafe {
            let superblock: *const u8 = A::read(inode.add(INODE_SB.offset()));
            let magic: u64 = A::read(superblock.add(SUPER_MAGIC.offset()));
            let ns: *const u8 = A::read(inode.add(INODE_PRIVATE.offset()));
            (magic == NSFS_MAGIC && !ns.is_null()).then(|| NsCommon::at(ns))
        }
    }
}

impl<A: Access> Task<A> {
    #[inline(always)]
    pub(crate) fn pid(self) -> u32 {
        self.field(TASK_PID)
    }

    #[inline(always)]
    pub(crate) fn tgid(self) -> u32 {
        self.field(TASK_TGID)
    }

    /// Whether it is a zombie or dead. exit_notify (kernel/exit.c) sets this state before it notifies the parent.
    #[inline(always)]
    pub(crate) fn has_ended(self) -> bool {
        self.field::<u32>(TASK_EXIT_STATE) != 0
    }

    /// Whether it is in a 32-bit system call, whose numbers have other meanings.
    #[inline(always)]
    pub(crate) fn in_compat_syscall(self) -> bool {
        present(TASK_THREAD_STATUS) && self.field::<u32>(TASK_THREAD_STATUS) & TS_COMPAT != 0
    }

    /// CLOCK_BOOTTIME, nanoseconds.
    #[inline(always)]
    pub(crate) fn start_boottime(self) -> u64 {
        self.field(TASK_START_BOOTTIME)
    }

    /// Whether a pending SIGKILL ends it before it returns to user space (`__fatal_signal_pending`,
    /// include/linux/sched/signal.h).
    #[inline(always)]
    pub(crate) fn is_being_killed(self) -> bool {
        const SIGKILL: u32 = 9;
        self.field::<u64>(TASK_PENDING_SIGNALS) & 1 << (SIGKILL - 1) != 0
    }

    #[inline(always)]
    pub(crate) fn is_exiting(self) -> bool {
        self.field::<u32>(TASK_FLAGS) & PF_EXITING != 0
    }

    #[inline(always)]
    pub(crate) fn is_kernel_thread(self) -> bool {
        self.field::<u32>(TASK_FLAGS) & PF_KTHREAD != 0
    }

    #[inline(always)]
    pub(crate) fn group_leader(self) -> Self {
        Self::at(self.field(TASK_GROUP_LEADER))
    }

    /// The identity of the process that this task leads.
    #[inline(always)]
    pub(crate) fn key(self) -> ProcessKey {
        ProcessKey::new(self.tgid(), self.start_boottime())
    }

    /// The process that the kernel notifies of its death: its tracer, or else its real parent.
    #[inline(always)]
    pub(crate) fn parent(self) -> Self {
        Self::at(self.field(TASK_PARENT))
    }

    #[inline(always)]
    pub(crate) fn real_parent(self) -> Self {
        Self::at(self.field(TASK_REAL_PARENT))
    }

    #[inline(always)]
    pub(crate) fn thread_pid(self) -> Pid<A> {
        Pid::at(self.field(TASK_THREAD_PID))
    }

    /// The namespace that its children go to; null in an exiting task.
    #[inline(always)]
    pub(crate) fn children_ns(self) -> PidNamespace<A> {
        let proxy: *const u8 = self.field(TASK_NSPROXY);
        if proxy.is_null() {
            return PidNamespace::at(ptr::null());
        }
        // SAFETY: a pointer; any bytes are a valid value.
        PidNamespace::at(unsafe { A::read(proxy.add(NSPROXY_PID_FOR_CHILDREN.offset())) })
    }

    /// Whether it adopts the orphans of `ns`, as the first process there. The kernel sets this before
    /// sched_process_fork.
    #[inline(always)]
    pub(crate) fn is_reaper_of(self, ns: PidNamespace<A>) -> bool {
        !ns.is_null() && ns.field::<u64>(PIDNS_CHILD_REAPER) == self.0 as u64
    }

    #[inline(always)]
    pub(crate) fn signal(self) -> Signal<A> {
        Signal::at(self.field(TASK_SIGNAL))
    }

    /// The status that wait(2) will return for its process. kernel/exit.c stores it in one of two fields.
    #[inline(always)]
    pub(crate) fn wait_status(self, signal: Signal<A>) -> u32 {
        // Both fields are loaded. Otherwise the compiler emits one load through either pointer, and old verifiers
        // confuse the two types.
        let of_group = signal.group_exit_code();
        let of_task = self.exit_code();
        if signal.is_group_exit() { of_group } else { of_task }
    }

    /// Whether this signal, which was just delivered to its process, kills the process. complete_signal
    /// (kernel/signal.c) has already decided that, except for signals that dump core: those count if the process has no
    /// handler for them. Other signals do not count if all threads block them.
    #[inline(always)]
    pub(crate) fn is_ended_by(self, signal: i32) -> bool {
        /// SIGQUIT, SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGXCPU, SIGXFSZ, SIGSYS. SIGTRAP is left out: debuggers
        /// use it, and it is too frequent.
        const DUMP_CORE: u64 =
            1 << 3 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 11 | 1 << 24 | 1 << 25 | 1 << 31;
        let shared = self.signal();
        if shared.field::<u32>(SIGNAL_FLAGS) & SIGNAL_GROUP_EXIT != 0 {
            return shared.field::<u32>(SIGNAL_GROUP_EXIT_CODE) == signal as u32;
        }
        if DUMP_CORE & 1 << (signal & 63) == 0 {
            return false;
        }
        let handlers: *const u8 = self.field(TASK_SIGHAND);
        let action =
            SIGHAND_ACTION.load() + (signal as u32 - 1) * SIGACTION_SIZE.load() + SIGACTION_HANDLER.load();
        // SAFETY: an integer (SIG_DFL is 0), copied by a helper.
        unsafe { Probed::read::<u64>(handlers.add(action as usize)) == 0 }
    }

    #[inline(always)]
    pub(crate) fn exit_code(self) -> u32 {
        self.field(TASK_EXIT_CODE)
    }

    #[inline(always)]
    fn uid(self) -> u32 {
        let cred: *const u8 = self.field(TASK_REAL_CRED);
        // SAFETY: an integer; any bytes are a valid value.
        unsafe { A::read(cred.add(CRED_UID.offset())) }
    }

    #[inline(always)]
    fn comm(self) -> [u8; COMM_LEN] {
        // SAFETY: two integers that cover comm; any bytes are a valid value.
        let halves: [u64; 2] = unsafe {
            let comm = self.0.add(TASK_COMM.offset());
            [A::read(comm), A::read(comm.add(8))]
        };
        // SAFETY: both are 16 bytes of integers.
        unsafe { core::mem::transmute::<[u64; 2], [u8; COMM_LEN]>(halves) }
    }

    /// Start and end of the arguments in its user memory; zeros if it has no user memory.
    #[inline(always)]
    pub(crate) fn argument_range(self) -> (u64, u64) {
        let mm: *const u8 = self.field(TASK_MM);
        if mm.is_null() {
            return (0, 0);
        }
        // SAFETY: integers; any bytes are a valid value.
        unsafe { (A::read(mm.add(MM_ARG_START.offset())), A::read(mm.add(MM_ARG_END.offset()))) }
    }

    /// Describes the process that this task leads, except its PIDs and namespace, which [`Pid::copy_pids`] finds.
    ///
    /// Call it once, and before that loop. For each load of a pointer from a task that the verifier trusts, the
    /// verifier needs half a millisecond on every path: it searches all of BTF by name for the types that it may trust
    /// next.
    ///
    /// # Safety
    /// `to` must be writable.
    #[inline(always)]
    pub(crate) unsafe fn describe(self, to: *mut ProcessPart) {
        let part = ProcessPart {
            start_boot_ns: self.start_boottime(),
            pid: self.tgid(),
            parent_pid: self.real_parent().tgid(),
            uid: self.uid(),
            ns_inum: 0,
            comm: self.comm(),
        };
        // SAFETY: the caller's promise.
        unsafe { to.write(part) };
    }
}

impl<A: Access> Signal<A> {
    #[inline(always)]
    pub(crate) fn is_group_exit(self) -> bool {
        self.field::<u32>(SIGNAL_FLAGS) & SIGNAL_GROUP_EXIT != 0
    }

    #[inline(always)]
    pub(crate) fn group_exit_code(self) -> u32 {
        self.field(SIGNAL_GROUP_EXIT_CODE)
    }

    /// Number of threads that have not begun to exit.
    #[inline(always)]
    pub(crate) fn live_threads(self) -> u32 {
        self.field(SIGNAL_LIVE)
    }

    /// Number of threads that have not been released.
    #[inline(always)]
    pub(crate) fn threads(self) -> u32 {
        self.field(SIGNAL_NR_THREADS)
    }
}

impl Task<Probed> {
    /// Whether it still has its PIDs. A task that is being released has lost them, and so has memory that is no task
    /// any more.
    #[inline(always)]
    pub(crate) fn is_numbered(self) -> bool {
        let (pid, tgid) = (self.thread_pid(), self.tgid());
        tgid != 0 && Pid::<Probed>::number::<u32>(pid.0.wrapping_add(PID_NUMBERS.offset()), UPID_NR) == tgid
    }
}

impl Task<Direct> {
    /// The running task as a typed pointer; `None` on kernels before 5.15. (The helper exists since 5.11, but user
    /// space looks only for one of 5.15.)
    #[inline(always)]
    pub(crate) fn current_typed() -> Option<Self> {
        if !HAVE_TASK_PT_REGS.is_on() {
            return None;
        }
        // SAFETY: the helper has no preconditions.
        Some(Self::at(unsafe { generated::bpf_get_current_task_btf() } as *const u8))
    }
}

/// Returns the same number, and keeps the compiler from computing it again.
///
/// The compiler tends to compute a minimum at each use. Verifiers before 6.8 then also follow impossible paths on which
/// the results differ, and refuse the code there. The number has eight bytes, because verifiers forget the bounds of
/// smaller ones on the stack.
#[inline(always)]
pub(crate) fn bounded(number: u64) -> u64 {
    core::hint::black_box(number)
}

impl Siginfo<Direct> {
    /// `si_code`; 0 if the kernel passed a constant instead of a siginfo.
    #[inline(always)]
    pub(crate) fn code(self) -> i32 {
        if !self.is_pointer() {
            return 0;
        }
        // A plain load is refused: the argument may be a constant, so newer verifiers treat it as a number.
        Siginfo::<Probed>::at(self.0).field(SIGINFO_CODE)
    }

    /// Whether this is a siginfo and not one of the kernel's constants.
    #[inline(always)]
    pub(crate) fn is_pointer(self) -> bool {
        !self.is_null() && !self.is_private()
    }

    /// Whether this is `SEND_SIG_PRIV`: the kernel itself is the sender.
    #[inline(always)]
    pub(crate) fn is_private(self) -> bool {
        self.address() == 1
    }
}

impl<A: Access> Binprm<A> {
    /// Address of the file name in kernel memory.
    #[inline(always)]
    pub(crate) fn filename(self) -> *const u8 {
        self.field(BINPRM_FILENAME)
    }
}
