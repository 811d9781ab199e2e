//! Typed pointers to the kernel's structures, one accessor a field. Offsets come from [`crate::layout`].
//!
//! A pointer that a hook hands over is followed with plain loads ([`Direct`]), any other is copied with a helper
//! ([`Probed`]).

use core::{marker::PhantomData, ptr};

use aya_ebpf::helpers::{bpf_get_current_task, generated};
use pidns_ebpf::abi::{COMM_LEN, MAX_LEVEL, ProcessKey, ProcessPart};

pub(crate) use crate::access::{Access, Direct, Probed, ThroughNumbers, ThroughRegs};
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
                // SAFETY: all fields read are integers and pointers, of which any bytes are a value.
                unsafe { A::read(self.0.add(offset.load() as usize)) }
            }
        }
    )* };
}

pointers! {
    /// `struct task_struct` (include/linux/sched.h).
    Task,
    /// `struct signal_struct` (include/linux/sched/signal.h): what the threads of a process share.
    Signal,
    /// `struct pid` (include/linux/pid.h).
    Pid,
    /// `struct pid_namespace` (include/linux/pid_namespace.h).
    PidNamespace,
    /// `struct kernel_siginfo` (include/linux/signal_types.h); signal_generate also passes 0 and 1 for one.
    Siginfo,
    /// `struct linux_binprm` (include/linux/binfmts.h).
    Binprm,
    /// `struct pt_regs` of a system call (arch/x86/include/asm/ptrace.h).
    Regs,
    /// `struct ns_common` (include/linux/ns_common.h).
    NsCommon,
    /// `struct kernel_clone_args` (include/linux/sched/task.h): what a fork was asked for.
    CloneArgs,
    /// `struct file` (include/linux/fs.h).
    File,
}

/// Pointers that hooks hand over.
macro_rules! arguments {
    ($($name:ident),*) => { $(
        impl $name<Direct> {
            /// A hook's argument, which must be such a pointer.
            #[inline(always)]
            pub(crate) fn of(argument: *const core::ffi::c_void) -> Self { Self::at(argument.cast()) }
        }
    )* };
}
arguments!(Task, Siginfo, Binprm, Regs, CloneArgs, PidNamespace);

/// Pointers that are compared, or may be null.
macro_rules! addresses {
    ($($name:ident),*) => { $(
        impl<A: Access> $name<A> {
            /// The address, as a number.
            #[inline(always)]
            pub(crate) fn address(self) -> u64 { self.0 as u64 }

            #[inline(always)]
            pub(crate) fn is_null(self) -> bool { self.0.is_null() }
        }
    )* };
}
addresses!(PidNamespace, Siginfo);

/// `task.flags`: it is in do_exit (`PF_EXITING`).
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

    /// `task.files.fdt.fd[number]`, resolved to the namespace that the file stands for, if it is one of nsfs.
    #[inline(always)]
    pub(crate) fn namespace_file(self, number: u32) -> Option<NsCommon<Probed>> {
        // SAFETY: every read is a pointer or an integer, copied by helper.
        unsafe {
            #[inline(always)]
            unsafe fn read(base: *const u8, offset: impl Constant) -> *const u8 {
                // SAFETY: a pointer, of which any bytes are a value.
                unsafe { Probed::read(base.add(offset.load() as usize)) }
            }
            let table = read(self.field(TASK_FILES), FILES_FDT);
            let most: u32 = Probed::read(table.add(FDTABLE_MAX.load() as usize));
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
    /// The namespace that it stands for, if it is one of nsfs.
    #[inline(always)]
    pub(crate) fn namespace(self) -> Option<NsCommon<Probed>> {
        const NSFS_MAGIC: u64 = 0x6e73_6673;
        let inode: *const u8 = self.field(FILE_INODE);
        // SAFETY: pointers and an integer, of which any bytes are a value.
        unsafe {
            let superblock: *const u8 = A::read(inode.add(INODE_SB.load() as usize));
            let magic: u64 = A::read(superblock.add(SUPER_MAGIC.load() as usize));
            let ns: *const u8 = A::read(inode.add(INODE_PRIVATE.load() as usize));
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

    /// Whether it is a zombie, or dead: exit_notify (kernel/exit.c) sets that before it notifies the parent.
    #[inline(always)]
    pub(crate) fn has_ended(self) -> bool {
        self.field::<u32>(TASK_EXIT_STATE) != 0
    }

    /// Whether it is inside a 32-bit system call, whose numbers mean something else.
    #[inline(always)]
    pub(crate) fn in_compat_syscall(self) -> bool {
        present(TASK_THREAD_STATUS) && self.field::<u32>(TASK_THREAD_STATUS) & TS_COMPAT != 0
    }

    /// CLOCK_BOOTTIME, nanoseconds.
    #[inline(always)]
    pub(crate) fn start_boottime(self) -> u64 {
        self.field(TASK_START_BOOTTIME)
    }

    /// Whether a fatal signal ends it before it is back in its program (`__fatal_signal_pending`, include/linux/sched/signal.h).
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

    /// The identity of the process that it leads.
    #[inline(always)]
    pub(crate) fn key(self) -> ProcessKey {
        ProcessKey::new(self.tgid(), self.start_boottime())
    }

    /// The process that is notified of its death: its tracer, if it has one, else its real parent.
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

    /// The namespace its children go to; null in an exiting task.
    #[inline(always)]
    pub(crate) fn children_ns(self) -> PidNamespace<A> {
        let proxy: *const u8 = self.field(TASK_NSPROXY);
        if proxy.is_null() {
            return PidNamespace::at(ptr::null());
        }
        // SAFETY: a pointer, of which any bytes are a value.
        PidNamespace::at(unsafe { A::read(proxy.add(NSPROXY_PID_FOR_CHILDREN.load() as usize)) })
    }

    /// Whether it is the one that adopts the orphans of `ns`: its first process, from before sched_process_fork reports it.
    #[inline(always)]
    pub(crate) fn is_reaper_of(self, ns: PidNamespace<A>) -> bool {
        !ns.is_null() && ns.field::<u64>(PIDNS_CHILD_REAPER) == self.0 as u64
    }

    #[inline(always)]
    pub(crate) fn signal(self) -> Signal<A> {
        Signal::at(self.field(TASK_SIGNAL))
    }

    /// The status that wait(2) will give for its process: kernel/exit.c keeps it in one of two places.
    #[inline(always)]
    pub(crate) fn wait_status(self, signal: Signal<A>) -> u32 {
        // Both are loaded: of one load or the other the compiler makes one load through a pointer that verifiers of old mix up.
        let of_group: u32 = signal.field(SIGNAL_GROUP_EXIT_CODE);
        let of_task: u32 = self.field(TASK_EXIT_CODE);
        if signal.field::<u32>(SIGNAL_FLAGS) & SIGNAL_GROUP_EXIT != 0 { of_group } else { of_task }
    }

    /// Whether this signal, which was just delivered to its process, ends that. complete_signal (kernel/signal.c) has decided so by
    /// then, but of signals that dump core: of those it is what no handler takes. A signal that all threads block is left out.
    #[inline(always)]
    pub(crate) fn is_ended_by(self, signal: i32) -> bool {
        /// SIGQUIT, SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGXCPU, SIGXFSZ, SIGSYS. SIGTRAP is for debuggers, and too frequent.
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
        // SAFETY: an integer (SIG_DFL is 0), copied by helper.
        unsafe { Probed::read::<u64>(handlers.add(action as usize)) == 0 }
    }

    #[inline(always)]
    fn uid(self) -> u32 {
        let cred: *const u8 = self.field(TASK_REAL_CRED);
        // SAFETY: an integer, of which any bytes are a value.
        unsafe { A::read(cred.add(CRED_UID.load() as usize)) }
    }

    #[inline(always)]
    fn comm(self) -> [u8; COMM_LEN] {
        // SAFETY: two integers that cover comm, of which any bytes are a value.
        let halves: [u64; 2] = unsafe {
            let comm = self.0.add(TASK_COMM.load() as usize);
            [A::read(comm), A::read(comm.add(8))]
        };
        // SAFETY: both are 16 bytes of integers.
        unsafe { core::mem::transmute::<[u64; 2], [u8; COMM_LEN]>(halves) }
    }

    /// Start and end of the arguments in its user memory; zeros without one.
    #[inline(always)]
    pub(crate) fn argument_range(self) -> (u64, u64) {
        let mm: *const u8 = self.field(TASK_MM);
        if mm.is_null() {
            return (0, 0);
        }
        // SAFETY: integers, of which any bytes are a value.
        unsafe {
            (A::read(mm.add(MM_ARG_START.load() as usize)), A::read(mm.add(MM_ARG_END.load() as usize)))
        }
    }

    /// Describes the process that this task leads, but for its PIDs and namespace: [`Pid::copy_pids`] finds those.
    ///
    /// Call it once, and before that loop: loading a pointer from a task that the verifier trusts takes it half a
    /// millisecond (it searches all of BTF by name for what else to trust), each time that a path comes by.
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
    /// Threads that have not begun to exit.
    #[inline(always)]
    pub(crate) fn live_threads(self) -> u32 {
        self.field(SIGNAL_LIVE)
    }

    /// Threads that have not been released.
    #[inline(always)]
    pub(crate) fn threads(self) -> u32 {
        self.field(SIGNAL_NR_THREADS)
    }
}

impl Task<Probed> {
    /// Whether it has its PIDs: a task that is being released, or is none any more, has lost them.
    #[inline(always)]
    pub(crate) fn is_numbered(self) -> bool {
        let (pid, tgid) = (self.thread_pid(), self.tgid());
        tgid != 0
            && Pid::<Probed>::number::<u32>(pid.0.wrapping_add(PID_NUMBERS.load() as usize), UPID_NR) == tgid
    }

    /// The registers of the system call that the running task, which this must be, is in.
    #[inline(always)]
    pub(crate) fn syscall_regs(self) -> Regs<ThroughRegs> {
        if HAVE_TASK_PT_REGS.is_on() {
            // SAFETY: the helper (5.11 and later, the other is 5.15's) has no preconditions.
            Task::<Direct>::at(unsafe { generated::bpf_get_current_task_btf() } as *const u8).user_regs()
        } else {
            self.stacked_regs()
        }
    }
}

impl Task<Direct> {
    /// The running task, where the kernel has a helper that gives it with its type (5.11 and later; those of 5.15 are known to
    /// have it).
    #[inline(always)]
    pub(crate) fn current_typed() -> Option<Self> {
        if !HAVE_TASK_PT_REGS.is_on() {
            return None;
        }
        // SAFETY: the helper has no preconditions.
        Some(Self::at(unsafe { generated::bpf_get_current_task_btf() } as *const u8))
    }

    /// The registers of the system call it is in. It must be the running task, as the helper's result is only
    /// the caller's then on kernels of old.
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
            // The registers are at the top of the kernel stack (task_pt_regs, arch/x86/include/asm/processor.h), which
            // is as large as that of interrupts; of its own size BTF knows nothing.
            let stack: u64 = self.field(TASK_STACK);
            let regs = stack + u64::from(THREAD_STACK_SIZE.load()) - u64::from(REGS_SIZE.load());
            Regs::at(regs as *const u8)
        } else {
            Regs::at(ptr::null())
        }
    }
}

impl CloneArgs<Direct> {
    /// `CLONE_*`.
    #[inline(always)]
    pub(crate) fn flags(self) -> u64 {
        self.field(KERNEL_CLONE_FLAGS)
    }

    /// Address of the PIDs that the caller chose, in the kernel's memory.
    #[inline(always)]
    pub(crate) fn set_tid(self) -> u64 {
        self.field(KERNEL_CLONE_SET_TID)
    }

    /// How many PIDs the caller chose.
    #[inline(always)]
    pub(crate) fn set_tid_size(self) -> u64 {
        self.field(KERNEL_CLONE_SET_TID_SIZE)
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

/// The same number, which the compiler has to take as it is.
///
/// It likes to compute a minimum anew at each use. Verifiers before 6.8 then follow a path on which it comes out
/// differently, and refuse what is done there. Eight bytes, as of fewer they forget the bounds on the stack.
#[inline(always)]
pub(crate) fn bounded(number: u64) -> u64 {
    core::hint::black_box(number)
}

/// What a walk along a process's PIDs found.
#[derive(Clone, Copy)]
pub(crate) struct Chain<A: Access> {
    /// PIDs written: the innermost level + 1.
    pub(crate) pids: u32,
    /// The innermost PID.
    pub(crate) innermost: u32,
    /// The innermost namespace.
    pub(crate) ns: PidNamespace<A::BehindNumbers>,
}

impl<A: Access> Chain<A> {
    /// Whether the process is PID 1 of a namespace below the initial one.
    #[inline(always)]
    pub(crate) fn is_init(&self) -> bool {
        self.pids > 1 && self.innermost == 1
    }
}

impl<A: Access> Pid<A> {
    #[inline(always)]
    pub(crate) fn level(self) -> u32 {
        self.field(PID_LEVEL)
    }

    #[inline(always)]
    fn number<T: Copy>(upid: *const u8, offset: impl Constant) -> T {
        // SAFETY: an integer or a pointer, of which any bytes are a value.
        unsafe { A::BehindNumbers::read(upid.add(offset.load() as usize)) }
    }

    /// Writes the PIDs from level 0 to the innermost to `to`.
    ///
    /// # Safety
    /// `to` must have room for `MAX_PIDS`.
    #[inline(always)]
    pub(crate) unsafe fn copy_pids(self, to: *mut u32) -> Chain<A> {
        let level = self.level();
        // The loop counts with constants, so that each step is a load at a constant offset: the verifier takes
        // no other through a pointer whose type it knows.
        // SAFETY: the pointer stays within `pid.numbers`, which has level + 1 elements.
        let mut upid = unsafe { self.0.add(PID_NUMBERS.load() as usize) };
        let mut index = 0;
        loop {
            let number: u32 = Self::number(upid, UPID_NR);
            // SAFETY: index <= MAX_LEVEL, and `to` has room for MAX_LEVEL + 1.
            unsafe { to.add(index as usize).write(number) };
            if index >= level || index >= MAX_LEVEL {
                let ns = PidNamespace::at(Self::number(upid, UPID_NS));
                // Read anew: on each way out of the loop the verifier knows `index` and `level` exactly, and would
                // follow the rest of the program once for each level. Of this value it knows the bound alone.
                let innermost_level = bounded(u64::from(self.level().min(MAX_LEVEL))) as u32;
                return Chain { pids: innermost_level + 1, innermost: number, ns };
            }
            index += 1;
            // SAFETY: as above.
            upid = unsafe { upid.add(UPID_SIZE.load() as usize) };
        }
    }

    /// The PID and the namespace at the innermost level.
    #[inline(always)]
    pub(crate) fn innermost(self) -> (u32, PidNamespace<Probed>) {
        // The mask bounds the sum for the verifier; levels are below 64.
        let offset = PID_NUMBERS.load() + (self.level() & 63) * UPID_SIZE.load();
        // SAFETY: within `pid.numbers`, copied by helper.
        unsafe {
            let upid = self.0.add(offset as usize);
            let number = Probed::read(upid.add(UPID_NR.load() as usize));
            (number, PidNamespace::at(Probed::read(upid.add(UPID_NS.load() as usize))))
        }
    }
}

impl Pid<Direct> {
    /// The element of `pid.numbers` of a level that it has. The verifier takes loads at constant offsets alone.
    #[inline(always)]
    fn upid_at<T: Copy>(self, level: u32, offset: impl Constant) -> T {
        // SAFETY: within `pid.numbers`.
        let upid = unsafe { self.0.add((PID_NUMBERS.load() + level * UPID_SIZE.load()) as usize) };
        Self::number(upid, offset)
    }

    /// The innermost PID. Nearly all namespaces are at level 1.
    #[inline(always)]
    pub(crate) fn innermost_number(self) -> u32 {
        match self.level() {
            0 => self.upid_at(0, UPID_NR),
            1 => self.upid_at(1, UPID_NR),
            2 => self.upid_at(2, UPID_NR),
            _ => self.innermost().0,
        }
    }

    /// Its namespace at a level that it has.
    #[inline(always)]
    pub(crate) fn namespace_at(self, level: u32) -> PidNamespace<ThroughNumbers> {
        PidNamespace::at(self.upid_at(level, UPID_NS))
    }
}

impl Siginfo<Direct> {
    /// `si_code`; 0 where the kernel passed one of its constants instead of a siginfo.
    #[inline(always)]
    pub(crate) fn code(self) -> i32 {
        if !self.is_one() {
            return 0;
        }
        // Not by a plain load: as it may be a constant, newer verifiers take it for a number.
        Siginfo::<Probed>::at(self.0).field(SIGINFO_CODE)
    }

    /// Whether there is a siginfo, not one of the kernel's constants.
    #[inline(always)]
    pub(crate) fn is_one(self) -> bool {
        !self.is_null() && !self.is_private()
    }

    /// `SEND_SIG_PRIV`: the kernel itself sends.
    #[inline(always)]
    pub(crate) fn is_private(self) -> bool {
        self.address() == 1
    }
}

impl<A: Access> Binprm<A> {
    /// Address of the file name, in kernel memory.
    #[inline(always)]
    pub(crate) fn filename(self) -> *const u8 {
        self.field(BINPRM_FILENAME)
    }
}
