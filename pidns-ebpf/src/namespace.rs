//! What the kernel knows of a PID namespace.

use pidns_ebpf::abi::NamespacePart;

use crate::{
    access::{Access, Probed},
    kernel::{NsCommon, PidNamespace, Task},
    layout::*,
};

/// `pid_namespace.pid_allocated`: the namespace's init lives, PIDs may be allocated (`PIDNS_ADDING`).
const PIDNS_ADDING: u32 = 1 << 31;

impl<A: Access> PidNamespace<A> {
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
        self.field(PIDNS_LEVEL)
    }

    #[inline(always)]
    pub(crate) fn parent(self) -> Self {
        Self::at(self.field(PIDNS_PARENT))
    }

    /// Whether PIDs can still be allocated: not after its init's death.
    #[inline(always)]
    pub(crate) fn is_dead(self) -> bool {
        self.field::<u32>(PIDNS_PID_ALLOCATED) & PIDNS_ADDING == 0
    }

    /// PIDs in use: processes, threads, zombies.
    #[inline(always)]
    pub(crate) fn pids_in_use(self) -> u32 {
        self.field::<u32>(PIDNS_PID_ALLOCATED) & !PIDNS_ADDING
    }

    /// The kernel's own number for it; 0 where there is none (before 6.18).
    #[inline(always)]
    fn kernel_id(self) -> u64 {
        if present(NS_COMMON_ID) { NsCommon::<A>::at(self.common()).field(NS_COMMON_ID) } else { 0 }
    }

    /// CLOCK_BOOTTIME, nanoseconds; 0 where there is no init yet or any more. `child_reaper` is left dangling, but not
    /// before the last member is gone, for which the init waits (zap_pid_ns_processes, kernel/pid_namespace.c).
    #[inline(always)]
    fn init_start_boottime(self, has_members: bool) -> u64 {
        let reaper: *const u8 = self.field(PIDNS_CHILD_REAPER);
        if reaper.is_null() || (!has_members && self.is_dead()) {
            return 0;
        }
        Task::<A>::at(reaper).group_leader().start_boottime()
    }

    /// Distinguishes it from others that have had, or will get, its inode number; 0 where nothing does at this moment.
    #[inline(always)]
    pub(crate) fn identity(self, has_members: bool) -> u64 {
        if present(NS_COMMON_ID) { self.kernel_id() } else { self.init_start_boottime(has_members) }
    }

    /// The user namespace that owns it.
    #[inline(always)]
    pub(crate) fn owner(self) -> *const u8 {
        self.field(PIDNS_USER_NS)
    }

    /// The signal that reboot(2) inside leaves for the init's status; 0: none.
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
        self.field(NS_COMMON_INUM)
    }
}

impl NsCommon<Probed> {
    /// The PID namespace that this is part of, which it must be.
    #[inline(always)]
    pub(crate) fn container(self) -> PidNamespace<Probed> {
        // SAFETY: the address of the structure that it is a member of.
        PidNamespace::at(unsafe { self.0.sub(PIDNS_NS.load() as usize) })
    }

    /// The PID namespace that this is part of, if it is part of one.
    #[inline(always)]
    pub(crate) fn pid_namespace(self) -> Option<PidNamespace<Probed>> {
        const CLONE_NEWPID: u32 = 0x2000_0000;
        let kind: u32 = if present(NS_COMMON_TYPE) {
            self.field(NS_COMMON_TYPE)
        } else {
            // Before 6.18 the type stands with the operations.
            let operations: *const u8 = self.field(NS_COMMON_OPS);
            // SAFETY: an integer, copied by helper.
            unsafe { Probed::read(operations.add(PROC_NS_TYPE.load() as usize)) }
        };
        (kind == CLONE_NEWPID).then(|| self.container())
    }
}
