//! Reads the kernel's data about a PID namespace.

use pidns_ebpf::abi::NamespacePart;

use crate::{
    access::{Access, Direct, Probed},
    kernel::{NsCommon, PidNamespace, Task},
    layout::*,
};

/// Bit of `pid_namespace.pid_allocated`: the namespace's init is alive, and PIDs can be allocated (`PIDNS_ADDING`).
const PIDNS_ADDING: u32 = 1 << 31;

impl<A: Access> PidNamespace<A> {
    #[inline(always)]
    pub(crate) fn inum(self) -> u32 {
        NsCommon::<A>::at(self.common()).inum()
    }

    #[inline(always)]
    fn common(self) -> *const u8 {
        // SAFETY: the address of a member.
        unsafe { self.0.add(PIDNS_NS.offset()) }
    }

    #[inline(always)]
    pub(crate) fn level(self) -> u32 {
        self.field(PIDNS_LEVEL)
    }

    #[inline(always)]
    pub(crate) fn parent(self) -> Self {
        Self::at(self.field(PIDNS_PARENT))
    }

    /// Whether its init is dead: no PID can be allocated any more.
    #[inline(always)]
    pub(crate) fn is_dead(self) -> bool {
        self.field::<u32>(PIDNS_PID_ALLOCATED) & PIDNS_ADDING == 0
    }

    /// Number of PIDs in use by processes, threads and zombies.
    #[inline(always)]
    pub(crate) fn pids_in_use(self) -> u32 {
        self.field::<u32>(PIDNS_PID_ALLOCATED) & !PIDNS_ADDING
    }

    /// The kernel's `ns_id`; 0 before 6.18.
    #[inline(always)]
    fn kernel_id(self) -> u64 {
        if present(NS_COMMON_ID) { NsCommon::<A>::at(self.common()).field(NS_COMMON_ID) } else { 0 }
    }

    /// When its init started: CLOCK_BOOTTIME, nanoseconds; 0 if it has no init yet, or no longer has one. The kernel
    /// does not clear `child_reaper`, but the pointer is valid as long as the namespace has members: the init waits for
    /// them before it ends (zap_pid_ns_processes, kernel/pid_namespace.c).
    #[inline(always)]
    fn init_start_boottime(self, has_members: bool) -> u64 {
        let reaper: *const u8 = self.field(PIDNS_CHILD_REAPER);
        if reaper.is_null() || (!has_members && self.is_dead()) {
            return 0;
        }
        Task::<A>::at(reaper).group_leader().start_boottime()
    }

    /// Distinguishes it from earlier and later namespaces with the same inode number; 0 if nothing does at this moment.
    #[inline(always)]
    pub(crate) fn identity(self, has_members: bool) -> u64 {
        if present(NS_COMMON_ID) { self.kernel_id() } else { self.init_start_boottime(has_members) }
    }

    /// The user namespace that owns it.
    #[inline(always)]
    pub(crate) fn owner(self) -> *const u8 {
        self.field(PIDNS_USER_NS)
    }

    /// The signal that reboot(2) in the namespace puts into the init's wait status; 0: none.
    #[inline(always)]
    pub(crate) fn reboot_signal(self) -> u32 {
        self.field(PIDNS_REBOOT)
    }

    /// # Safety
    /// `to` must be writable.
    #[inline(always)]
    pub(crate) unsafe fn describe(self, to: *mut NamespacePart) {
        let parent = self.parent();
        let user = self.owner();
        let part = NamespacePart {
            kernel_id: self.kernel_id(),
            init_start_boot_ns: self.init_start_boottime(false),
            inum: self.inum(),
            level: self.level(),
            parent_inum: if parent.is_null() { 0 } else { parent.inum() },
            // SAFETY: integers; any bytes are a valid value.
            user_ns_inum: unsafe { NsCommon::<A>::at(user.add(USERNS_NS.offset())).inum() },
            // SAFETY: as above.
            owner_uid: unsafe { A::read(user.add(USERNS_OWNER.offset())) },
            pid_max: if present(PIDNS_PID_MAX) { self.field(PIDNS_PID_MAX) } else { 0 },
            pids_in_use: self.pids_in_use(),
            reserved: 0,
        };
        // SAFETY: the caller's promise.
        unsafe { to.write(part) };
    }
}

impl<A: Access> NsCommon<A> {
    #[inline(always)]
    pub(crate) fn inum(self) -> u32 {
        self.field(NS_COMMON_INUM)
    }
}

impl NsCommon<Probed> {
    /// The PID namespace that contains this structure. It must be part of one.
    #[inline(always)]
    pub(crate) fn container(self) -> PidNamespace<Probed> {
        // SAFETY: the address of the structure that contains this member.
        PidNamespace::at(unsafe { self.0.sub(PIDNS_NS.offset()) })
    }

    /// The PID namespace that contains this structure, if it is part of one.
    #[inline(always)]
    pub(crate) fn pid_namespace(self) -> Option<PidNamespace<Probed>> {
        const CLONE_NEWPID: u32 = 0x2000_0000;
        let kind: u32 = if present(NS_COMMON_TYPE) {
            self.field(NS_COMMON_TYPE)
        } else {
            // Before 6.18 the type is in the table of operations.
            let operations: *const u8 = self.field(NS_COMMON_OPS);
            // SAFETY: an integer, copied by a helper.
            unsafe { Probed::read(operations.add(PROC_NS_TYPE.offset())) }
        };
        (kind == CLONE_NEWPID).then(|| self.container())
    }
}

impl PidNamespace<Direct> {
    /// Whether the process of this task is the namespace's init, which adopts its orphans.
    #[inline(always)]
    pub(crate) fn is_reaped_by_process_of(self, task: Task<Direct>) -> bool {
        let reaper = Task::<Direct>::at(self.field(PIDNS_CHILD_REAPER));
        reaper.tgid() == task.tgid()
    }
}
