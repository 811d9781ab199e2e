//! Typed pointers to the kernel's structures, one accessor a field. Offsets come from [`crate::layout`].
//!
//! A pointer that a hook hands over is followed with plain loads ([`Direct`]), any other is copied with a helper
//! ([`Probed`]).

use core::{marker::PhantomData, ptr};

use aya_ebpf::helpers::{bpf_get_current_task, generated};
use pidns_ebpf::abi::{COMM_LEN, MAX_LEVEL, NamespacePart, ProcessKey, ProcessPart};

pub(crate) use crate::access::{Access, Direct, Probed, ThroughNumbers, ThroughRegs};
use crate::layout::*;

macro_rules! pointers {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => { $(
        $(#[$doc])*
        pub(crate) struct $name<A>(*const u8, PhantomData<A>);

        impl<A> Clone for $name<A> {
            #[inline(always)]
            fn clone(&self) -> Self { *self }
        }
        impl<A> Copy for $name<A> {}

        impl<A: Access> $name<A> {
            #[inline(always)]
            fn at(pointer: *const u8) -> Self { Self(pointer, PhantomData) }

            #[inline(always)]
            fn field<T: Copy>(self, offset: &aya_ebpf::Global<u32>) -> T {
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
arguments!(Task, Siginfo, Binprm, Regs);

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

/// Deepest nesting of cgroups that is walked.
const MAX_CGROUP_DEPTH: u32 = 32;
/// `task.flags`: a kernel thread (`PF_KTHREAD`).
const PF_KTHREAD: u32 = 0x0020_0000;
/// `signal.flags`: the group's exit code is set.
const SIGNAL_GROUP_EXIT: u32 = 0x4;
/// `pid_namespace.pid_allocated`: the namespace's init lives, PIDs may be allocated (`PIDNS_ADDING`).
const PIDNS_ADDING: u32 = 1 << 31;
/// `thread_info.status`: the task is in a 32-bit system call (`TS_COMPAT`).
const TS_COMPAT: u32 = 0x2;

impl Task<Probed> {
    /// The running task.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        // SAFETY: the helper has no preconditions.
        Self::at(unsafe { bpf_get_current_task() } as *const u8)
    }

    /// Whether its user has as many processes as its RLIMIT_NPROC allows, which binds it (copy_process,
    /// kernel/fork.c): root and who has CAP_SYS_RESOURCE or CAP_SYS_ADMIN may have more.
    #[inline(always)]
    pub(crate) fn is_at_nproc_limit(self) -> bool {
        /// `RLIMIT_NPROC`, include/uapi/asm-generic/resource.h.
        const RLIMIT_NPROC: usize = 6;
        const CAP_SYS_ADMIN: u32 = 21;
        const CAP_SYS_RESOURCE: u32 = 24;
        if !present(&CRED_CAP_EFFECTIVE)
            || !present(&CRED_UCOUNTS)
            || !present(&UCOUNTS_RLIMIT)
            || !present(&SIGNAL_RLIMITS)
        {
            return false;
        }
        // SAFETY: every read is a pointer or an integer, copied by helper.
        unsafe {
            let cred: *const u8 = self.field(&TASK_REAL_CRED);
            let uid: u32 = Probed::read(cred.add(CRED_UID.load() as usize));
            let capabilities: u64 = Probed::read(cred.add(CRED_CAP_EFFECTIVE.load() as usize));
            let exempt = uid == 0 || capabilities & (1 << CAP_SYS_ADMIN | 1 << CAP_SYS_RESOURCE) != 0;
            let ucounts: *const u8 = Probed::read(cred.add(CRED_UCOUNTS.load() as usize));
            // `UCOUNT_RLIMIT_NPROC` is the first.
            let used: u64 = Probed::read(ucounts.add(UCOUNTS_RLIMIT.load() as usize));
            let signal: *const u8 = self.field(&TASK_SIGNAL);
            // A `struct rlimit` is two words, the soft limit first.
            let limit: u64 = Probed::read(signal.add(SIGNAL_RLIMITS.load() as usize + RLIMIT_NPROC * 16));
            !exempt && used >= limit
        }
    }

    /// Whether its pids cgroup, or one above it, is at its limit (kernel/cgroup/pids.c). What a refused fork had
    /// charged is given back by then, so that the counter stands at the limit and not above.
    #[inline(always)]
    pub(crate) fn pids_cgroup_is_full(self) -> bool {
        if !present(&PIDS_CGROUP_ID) || !present(&PIDS_CGROUP_LIMIT) {
            return false;
        }
        // SAFETY: every read is a pointer or an integer, copied by helper.
        unsafe {
            let css_set: *const u8 = self.field(&TASK_CGROUPS);
            let slot = CSS_SET_SUBSYS.load() + PIDS_CGROUP_ID.load() * size_of::<u64>() as u32;
            let mut css: *const u8 = Probed::read(css_set.add(slot as usize));
            for _ in 0..MAX_CGROUP_DEPTH {
                let parent: *const u8 = Probed::read(css.add(CSS_PARENT.load() as usize));
                if css.is_null() || parent.is_null() {
                    // The root has no limit.
                    return false;
                }
                let cgroup = css.sub(PIDS_CGROUP_CSS.load() as usize);
                let used: i64 = Probed::read(cgroup.add(PIDS_CGROUP_COUNTER.load() as usize));
                let limit: i64 = Probed::read(cgroup.add(PIDS_CGROUP_LIMIT.load() as usize));
                if used >= limit {
                    return true;
                }
                css = parent;
            }
        }
        false
    }

    /// `task.files.fdt.fd[number]`, resolved to the namespace that the file stands for, if it is one of nsfs.
    #[inline(always)]
    pub(crate) fn namespace_file(self, number: u32) -> Option<NsCommon<Probed>> {
        const NSFS_MAGIC: u64 = 0x6e73_6673;
        // SAFETY: every read is a pointer or an integer, copied by helper.
        unsafe {
            let read = |base: *const u8, offset: &aya_ebpf::Global<u32>| -> *const u8 {
                Probed::read(base.add(offset.load() as usize))
            };
            let table = read(self.field(&TASK_FILES), &FILES_FDT);
            let most: u32 = Probed::read(table.add(FDTABLE_MAX.load() as usize));
            if number >= most {
                return None;
            }
            let slots = read(table, &FDTABLE_FD);
            let file: *const u8 = Probed::read(slots.add(number as usize * size_of::<u64>()));
            let inode = read(file, &FILE_INODE);
            let magic: u64 = Probed::read(read(inode, &INODE_SB).add(SUPER_MAGIC.load() as usize));
            let ns = read(inode, &INODE_PRIVATE);
            (magic == NSFS_MAGIC && !ns.is_null()).then(|| NsCommon::at(ns))
        }
    }
}

impl<A: Access> Task<A> {
    #[inline(always)]
    pub(crate) fn pid(self) -> u32 {
        self.field(&TASK_PID)
    }

    #[inline(always)]
    pub(crate) fn tgid(self) -> u32 {
        self.field(&TASK_TGID)
    }

    /// Whether it is inside a 32-bit system call, whose numbers mean something else.
    #[inline(always)]
    pub(crate) fn in_compat_syscall(self) -> bool {
        present(&TASK_THREAD_STATUS) && self.field::<u32>(&TASK_THREAD_STATUS) & TS_COMPAT != 0
    }

    /// CLOCK_BOOTTIME, nanoseconds.
    #[inline(always)]
    pub(crate) fn start_boottime(self) -> u64 {
        self.field(&TASK_START_BOOTTIME)
    }

    #[inline(always)]
    pub(crate) fn is_kernel_thread(self) -> bool {
        self.field::<u32>(&TASK_FLAGS) & PF_KTHREAD != 0
    }

    #[inline(always)]
    pub(crate) fn group_leader(self) -> Self {
        Self::at(self.field(&TASK_GROUP_LEADER))
    }

    /// The identity of the process that it leads.
    #[inline(always)]
    pub(crate) fn key(self) -> ProcessKey {
        ProcessKey::new(self.tgid(), self.start_boottime())
    }

    /// Who is told of its death: its tracer, if it has one, else its real parent.
    #[inline(always)]
    pub(crate) fn parent(self) -> Self {
        Self::at(self.field(&TASK_PARENT))
    }

    #[inline(always)]
    pub(crate) fn real_parent(self) -> Self {
        Self::at(self.field(&TASK_REAL_PARENT))
    }

    #[inline(always)]
    pub(crate) fn thread_pid(self) -> Pid<A> {
        Pid::at(self.field(&TASK_THREAD_PID))
    }

    /// The namespace its children go to; null in an exiting task.
    #[inline(always)]
    pub(crate) fn children_ns(self) -> PidNamespace<A> {
        let proxy: *const u8 = self.field(&TASK_NSPROXY);
        if proxy.is_null() {
            return PidNamespace::at(ptr::null());
        }
        // SAFETY: a pointer, of which any bytes are a value.
        PidNamespace::at(unsafe { A::read(proxy.add(NSPROXY_PID_FOR_CHILDREN.load() as usize)) })
    }

    #[inline(always)]
    pub(crate) fn signal(self) -> Signal<A> {
        Signal::at(self.field(&TASK_SIGNAL))
    }

    /// The status that wait(2) will give for its process: kernel/exit.c keeps it in one of two places.
    #[inline(always)]
    pub(crate) fn wait_status(self, signal: Signal<A>) -> u32 {
        if signal.field::<u32>(&SIGNAL_FLAGS) & SIGNAL_GROUP_EXIT != 0 {
            signal.field(&SIGNAL_GROUP_EXIT_CODE)
        } else {
            self.field(&TASK_EXIT_CODE)
        }
    }

    #[inline(always)]
    fn uid(self) -> u32 {
        let cred: *const u8 = self.field(&TASK_REAL_CRED);
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
        let mm: *const u8 = self.field(&TASK_MM);
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
        self.field(&SIGNAL_LIVE)
    }

    /// Threads that have not been released.
    #[inline(always)]
    pub(crate) fn threads(self) -> u32 {
        self.field(&SIGNAL_NR_THREADS)
    }
}

impl Task<Direct> {
    /// The registers of the system call it is in. It must be the running task, as the helper's result is only
    /// the caller's then on kernels of old.
    #[inline(always)]
    pub(crate) fn user_regs(self) -> Regs<ThroughRegs> {
        if HAVE_TASK_PT_REGS.load() != 0 {
            // SAFETY: a task_struct that the verifier knows as one.
            Regs::at(unsafe { generated::bpf_task_pt_regs(self.0.cast_mut().cast()) } as *const u8)
        } else if present(&TASK_STACK) && present(&THREAD_STACK_SIZE) {
            // The registers are at the top of the kernel stack (task_pt_regs, arch/x86/include/asm/processor.h).
            let stack: u64 = self.field(&TASK_STACK);
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
        self.field(&REGS_CALL)
    }

    /// Its first argument.
    #[inline(always)]
    pub(crate) fn argument0(self) -> u64 {
        self.field(&REGS_ARG0)
    }

    /// Its second argument.
    #[inline(always)]
    pub(crate) fn argument1(self) -> u64 {
        self.field(&REGS_ARG1)
    }
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
        self.field(&PID_LEVEL)
    }

    #[inline(always)]
    fn number<T: Copy>(upid: *const u8, offset: &aya_ebpf::Global<u32>) -> T {
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
            let number: u32 = Self::number(upid, &UPID_NR);
            // SAFETY: index <= MAX_LEVEL, and `to` has room for MAX_LEVEL + 1.
            unsafe { to.add(index as usize).write(number) };
            if index >= level || index >= MAX_LEVEL {
                let ns = PidNamespace::at(Self::number(upid, &UPID_NS));
                // Read anew: on each way out of the loop the verifier knows `index` and `level` exactly, and would
                // follow the rest of the program once for each level. Of this value it knows the bound alone.
                let pids = self.level().min(MAX_LEVEL) + 1;
                return Chain { pids, innermost: number, ns };
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

impl<A: Access> PidNamespace<A> {
    /// The same namespace, read by helper from here on.
    #[inline(always)]
    pub(crate) fn probed(self) -> PidNamespace<Probed> {
        PidNamespace::at(self.0)
    }

    #[inline(always)]
    pub(crate) fn inum(self) -> u32 {
        NsCommon::<A>::at(self.common()).inum()
    }

    #[inline(always)]
    fn common(self) -> *const u8 {
        // SAFETY: a member's address.
        unsafe { self.0.add(PIDNS_NS.load() as usize) }
    }

    #[inline(always)]
    pub(crate) fn level(self) -> u32 {
        self.field(&PIDNS_LEVEL)
    }

    #[inline(always)]
    pub(crate) fn parent(self) -> Self {
        Self::at(self.field(&PIDNS_PARENT))
    }

    /// Whether PIDs can still be allocated: not after its init's death.
    #[inline(always)]
    pub(crate) fn is_dead(self) -> bool {
        self.field::<u32>(&PIDNS_PID_ALLOCATED) & PIDNS_ADDING == 0
    }

    /// PIDs in use: processes, threads, zombies.
    #[inline(always)]
    pub(crate) fn pids_in_use(self) -> u32 {
        self.field::<u32>(&PIDNS_PID_ALLOCATED) & !PIDNS_ADDING
    }

    /// Whether it, or one above it, has given out all its PIDs. Those below 300 it gives out once only
    /// (`RESERVED_PIDS`, kernel/pid.c). Known where each namespace has a limit of its own (6.14 and later).
    #[inline(always)]
    pub(crate) fn has_no_pids(self) -> bool {
        const RESERVED_PIDS: u32 = 300;
        if !present(&PIDNS_PID_MAX) {
            return false;
        }
        let mut ns = self;
        for _ in 0..=MAX_LEVEL {
            if ns.is_null() {
                return false;
            }
            let most: u32 = ns.field(&PIDNS_PID_MAX);
            if ns.pids_in_use() + RESERVED_PIDS >= most {
                return true;
            }
            ns = ns.parent();
        }
        false
    }

    /// The kernel's own number for it; 0 where there is none (before 6.18).
    #[inline(always)]
    fn kernel_id(self) -> u64 {
        if present(&NS_COMMON_ID) { NsCommon::<A>::at(self.common()).field(&NS_COMMON_ID) } else { 0 }
    }

    /// CLOCK_BOOTTIME, nanoseconds; 0 where there is no init yet or any more (`child_reaper` is left dangling).
    #[inline(always)]
    fn init_start_boottime(self) -> u64 {
        let reaper: *const u8 = self.field(&PIDNS_CHILD_REAPER);
        if reaper.is_null() || self.is_dead() {
            return 0;
        }
        Task::<A>::at(reaper).group_leader().start_boottime()
    }

    /// What tells it from others that have had, or will get, its inode number; 0 where nothing does at this moment.
    #[inline(always)]
    pub(crate) fn identity(self) -> u64 {
        if present(&NS_COMMON_ID) { self.kernel_id() } else { self.init_start_boottime() }
    }

    /// The signal that reboot(2) inside leaves for the init's status; 0: none.
    #[inline(always)]
    pub(crate) fn reboot_signal(self) -> u32 {
        self.field(&PIDNS_REBOOT)
    }

    /// # Safety
    /// `to` must be writable.
    #[inline(always)]
    pub(crate) unsafe fn describe(self, to: *mut NamespacePart) {
        let parent = self.parent();
        let user: *const u8 = self.field(&PIDNS_USER_NS);
        let part = NamespacePart {
            kernel_id: self.kernel_id(),
            init_start_boot_ns: self.init_start_boottime(),
            inum: self.inum(),
            level: self.level(),
            parent_inum: if parent.is_null() { 0 } else { parent.inum() },
            // SAFETY: integers, of which any bytes are a value.
            user_ns_inum: unsafe { NsCommon::<A>::at(user.add(USERNS_NS.load() as usize)).inum() },
            // SAFETY: as above.
            owner_uid: unsafe { A::read(user.add(USERNS_OWNER.load() as usize)) },
            reserved: 0,
        };
        // SAFETY: the caller's promise.
        unsafe { to.write(part) };
    }
}

impl<A: Access> NsCommon<A> {
    #[inline(always)]
    pub(crate) fn inum(self) -> u32 {
        self.field(&NS_COMMON_INUM)
    }
}

impl NsCommon<Probed> {
    /// The PID namespace that this is part of, if it is part of one.
    #[inline(always)]
    pub(crate) fn pid_namespace(self) -> Option<PidNamespace<Probed>> {
        const CLONE_NEWPID: u32 = 0x2000_0000;
        let kind: u32 = if present(&NS_COMMON_TYPE) {
            self.field(&NS_COMMON_TYPE)
        } else {
            // Before 6.18 the type stands with the operations.
            let operations: *const u8 = self.field(&NS_COMMON_OPS);
            // SAFETY: an integer, copied by helper.
            unsafe { Probed::read(operations.add(PROC_NS_TYPE.load() as usize)) }
        };
        // SAFETY: the address of the structure that it is a member of.
        (kind == CLONE_NEWPID).then(|| PidNamespace::at(unsafe { self.0.sub(PIDNS_NS.load() as usize) }))
    }
}

impl Siginfo<Direct> {
    /// `si_code`; 0 where the kernel passed one of its constants instead of a siginfo.
    #[inline(always)]
    pub(crate) fn code(self) -> i32 {
        if self.is_null() || self.is_private() {
            return 0;
        }
        Siginfo::<Probed>::at(self.0).field(&SIGINFO_CODE)
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
        self.field(&BINPRM_FILENAME)
    }
}
