//! Reads a caller's limits and capabilities right after a call was refused, to find the reason.

use pidns_ebpf::abi::{CURRENT_UNKNOWN, MAX_LEVEL, Resource};

use crate::{
    access::{Access as _, Probed},
    kernel::{NsCommon, PidNamespace, Task},
    layout::*,
};

/// Maximum number of cgroups on the way up to the root.
const MAX_CGROUP_DEPTH: u32 = 32;
/// Maximum number of user namespaces from the deepest one upwards: they have levels 0 to 33 (create_user_ns,
/// kernel/user_namespace.c: level 32 may have a child).
const MAX_USER_NAMESPACES: u32 = MAX_LEVEL + 2;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_CHECKPOINT_RESTORE: u32 = 40;
/// The capability to create and join namespaces.
pub(crate) const ADMIN: u64 = 1 << CAP_SYS_ADMIN;
/// The capabilities to choose PIDs, one of which is enough (`checkpoint_restore_ns_capable()`,
/// include/linux/capability.h).
pub(crate) const CHECKPOINT_RESTORE: u64 = 1 << CAP_CHECKPOINT_RESTORE | ADMIN;

/// A reached limit. [`pidns_ebpf::abi::RefusalBody`] describes the fields.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Limit {
    pub(crate) value: u64,
    pub(crate) current: u64,
    pub(crate) cgroup: u64,
    pub(crate) place: u32,
    pub(crate) detail: u32,
    pub(crate) number: u32,
    /// Makes padding explicit, because the structure is copied word by word.
    pub(crate) padding: u32,
}

impl Limit {
    pub(crate) const NONE: Self =
        Self { value: 0, current: 0, cgroup: 0, place: 0, detail: 0, number: 0, padding: 0 };
}

/// State of the limits on the number of namespaces.
pub(crate) enum Room {
    /// This limit is reached.
    Full(Limit),
    /// No limit is reached.
    Left,
    /// No readable limit is reached. The count for this limit, of the caller's own user namespace, cannot be read.
    Unknown(Limit),
}

impl Task<Probed> {
    /// Its user's limit of processes, if it is reached and applies (copy_process, kernel/fork.c). It does not apply to
    /// root, nor to a task with CAP_SYS_RESOURCE or CAP_SYS_ADMIN.
    #[inline(always)]
    pub(crate) fn reached_nproc_limit(self) -> Option<Limit> {
        /// `RLIMIT_NPROC`, include/uapi/asm-generic/resource.h.
        const RLIMIT_NPROC: usize = 6;
        const CAP_SYS_RESOURCE: u32 = 24;
        if !present(CRED_CAP_EFFECTIVE) || !present(SIGNAL_RLIMITS) {
            return None;
        }
        // SAFETY: every read is a pointer or an integer, copied by a helper.
        unsafe {
            let cred: *const u8 = self.field(TASK_REAL_CRED);
            let uid: u32 = Probed::read(cred.add(CRED_UID.offset()));
            let capabilities: u64 = Probed::read(cred.add(CRED_CAP_EFFECTIVE.offset()));
            let exempt = uid == 0 || capabilities & (1 << CAP_SYS_ADMIN | 1 << CAP_SYS_RESOURCE) != 0;
            let used: u64 = if present(CRED_UCOUNTS) && present(UCOUNTS_RLIMIT) {
                let ucounts: *const u8 = Probed::read(cred.add(CRED_UCOUNTS.offset()));
                // `UCOUNT_RLIMIT_NPROC` is the first element.
                Probed::read(ucounts.add(UCOUNTS_RLIMIT.offset()))
            } else if present(USER_PROCESSES) {
                // Before 5.14.
                let user: *const u8 = Probed::read(cred.add(CRED_USER.offset()));
                u64::from(Probed::read::<u32>(user.add(USER_PROCESSES.offset())))
            } else {
                0
            };
            let signal: *const u8 = self.field(TASK_SIGNAL);
            // A `struct rlimit` has two words; the first one is the soft limit.
            let limit: u64 = Probed::read(signal.add(SIGNAL_RLIMITS.offset() + RLIMIT_NPROC * 16));
            (!exempt && used >= limit).then_some(Limit {
                place: uid,
                value: limit,
                current: used,
                ..Limit::NONE
            })
        }
    }

    /// The limit of the innermost pids cgroup that is at its limit: its own, or one above it (kernel/cgroup/pids.c). By
    /// now the kernel has uncharged the refused fork, so the counter is at the limit and not above it.
    #[inline(always)]
    pub(crate) fn full_pids_cgroup(self) -> Option<Limit> {
        if !present(PIDS_CGROUP_ID) || !present(PIDS_CGROUP_LIMIT) {
            return None;
        }
        // SAFETY: every read is a pointer or an integer, copied by a helper.
        unsafe {
            let css_set: *const u8 = self.field(TASK_CGROUPS);
            let slot = CSS_SET_SUBSYS.load() + PIDS_CGROUP_ID.load() * size_of::<u64>() as u32;
            let mut css: *const u8 = Probed::read(css_set.add(slot as usize));
            for _ in 0..MAX_CGROUP_DEPTH {
                let parent: *const u8 = Probed::read(css.add(CSS_PARENT.offset()));
                if css.is_null() || parent.is_null() {
                    // The root cgroup has no limit.
                    return None;
                }
                let cgroup = css.sub(PIDS_CGROUP_CSS.offset());
                let used: i64 = Probed::read(cgroup.add(PIDS_CGROUP_COUNTER.offset()));
                let limit: i64 = Probed::read(cgroup.add(PIDS_CGROUP_LIMIT.offset()));
                if used >= limit {
                    let cgroup = cgroup_number(css);
                    return Some(Limit { value: limit as u64, current: used as u64, cgroup, ..Limit::NONE });
                }
                css = parent;
            }
        }
        None
    }

    /// Whether it has a seccomp filter.
    #[inline(always)]
    pub(crate) fn has_seccomp_filter(self) -> bool {
        /// `SECCOMP_MODE_FILTER`, include/uapi/linux/seccomp.h.
        const FILTER: u32 = 2;
        present(TASK_SECCOMP_MODE) && self.field::<u32>(TASK_SECCOMP_MODE) == FILTER
    }

    /// The reached limit on namespaces of this kind, of its own user namespace or of one above it. A user namespace
    /// above counts for the user who created the next one below it (inc_ucount, kernel/ucount.c).
    #[inline(always)]
    pub(crate) fn room_for(self, kind: Resource) -> Room {
        if !present(USERNS_UCOUNTS)
            || !present(USERNS_UCOUNT_MAX)
            || !present(UCOUNT_SIZE)
            || !present(UCOUNTS_NS)
            || !present(UCOUNTS_UID)
            || !present(UCOUNTS_COUNTS)
            || !present(UCOUNT_PID_NAMESPACES)
            || !present(UCOUNT_USER_NAMESPACES)
        {
            return Room::Unknown(Limit::NONE);
        }
        let resource = match kind {
            Resource::PidNamespaces => UCOUNT_PID_NAMESPACES.load(),
            Resource::UserNamespaces => UCOUNT_USER_NAMESPACES.load(),
        };
        let skip = (resource * UCOUNT_SIZE.load()) as usize;
        // SAFETY: every read is a pointer or an integer, copied by a helper.
        unsafe {
            let cred: *const u8 = self.field(TASK_REAL_CRED);
            let mut ns: *const u8 = Probed::read(cred.add(CRED_USER_NS.offset()));
            let mut uid: u32 = Probed::read(cred.add(CRED_EUID.offset()));
            let (own, own_uid) = (ns, uid);
            let mut counts = own_counts(cred, own, uid);
            let is_known = !counts.is_null();
            for _ in 0..MAX_USER_NAMESPACES {
                if ns.is_null() {
                    break;
                }
                let most = count_at(ns.add(USERNS_UCOUNT_MAX.offset() + skip));
                // A count that cannot be read is 0 here. Then only a limit of 0 is reached.
                let used = count_at(counts.wrapping_add(UCOUNTS_COUNTS.offset() + skip));
                if used >= most {
                    return Room::Full(limit_at(ns, uid, kind, most, counts, used));
                }
                counts = Probed::read(ns.add(USERNS_UCOUNTS.offset()));
                if counts.is_null() {
                    break;
                }
                ns = Probed::read(counts.add(UCOUNTS_NS.offset()));
                uid = Probed::read(counts.add(UCOUNTS_UID.offset()));
            }
            if is_known {
                return Room::Left;
            }
            let most = count_at(own.add(USERNS_UCOUNT_MAX.offset() + skip));
            Room::Unknown(limit_at(own, own_uid, kind, most, core::ptr::null(), 0))
        }
    }

    /// Whether it has one of these capabilities in its own user namespace. Returns true if they cannot be read on this
    /// kernel.
    #[inline(always)]
    pub(crate) fn has_one_of(self, capabilities: u64) -> bool {
        if !present(CRED_CAP_EFFECTIVE) {
            return true;
        }
        let cred: *const u8 = self.field(TASK_REAL_CRED);
        // SAFETY: an integer, copied by a helper.
        let effective: u64 = unsafe { Probed::read(cred.add(CRED_CAP_EFFECTIVE.offset())) };
        effective & capabilities != 0
    }

    /// Inode number of the user namespace in which it lacks CAP_SYS_ADMIN to join `target`; 0: none. It needs the
    /// capability in the target's owner, which is checked first, and in its own user namespace (pidns_install,
    /// kernel/pid_namespace.c).
    #[inline(always)]
    pub(crate) fn lacks_admin_to_join(self, target: PidNamespace<Probed>) -> u32 {
        let lacking = self.lacks_in_owner_of(target, ADMIN);
        if lacking != 0 || self.has_one_of(ADMIN) {
            return lacking;
        }
        let cred: *const u8 = self.field(TASK_REAL_CRED);
        // SAFETY: a pointer to a user namespace, copied by a helper.
        unsafe { user_namespace_number(Probed::read(cred.add(CRED_USER_NS.offset()))) }
    }

    /// Inode number of the user namespace that owns `target`, if it has none of these capabilities there; 0: it has
    /// one.
    #[inline(always)]
    pub(crate) fn lacks_in_owner_of(self, target: PidNamespace<Probed>, capabilities: u64) -> u32 {
        let has_own = self.has_one_of(capabilities);
        let owner = target.owner();
        // SAFETY: every read is a pointer or an integer, copied by a helper.
        unsafe {
            let cred: *const u8 = self.field(TASK_REAL_CRED);
            let own: *const u8 = Probed::read(cred.add(CRED_USER_NS.offset()));
            let euid: u32 = Probed::read(cred.add(CRED_EUID.offset()));
            // As cap_capable (security/commoncap.c): a task with a capability in a user namespace has it in all below.
            // A task in the parent of a user namespace that it owns has all capabilities there and below.
            let mut at = owner;
            let mut is_capable = false;
            for _ in 0..MAX_USER_NAMESPACES {
                if at.is_null() {
                    break;
                }
                if at as u64 == own as u64 {
                    is_capable = has_own;
                    break;
                }
                let parent: *const u8 = Probed::read(at.add(USERNS_PARENT.offset()));
                let made_by: u32 = Probed::read(at.add(USERNS_OWNER.offset()));
                if parent as u64 == own as u64 && made_by == euid {
                    is_capable = true;
                    break;
                }
                at = parent;
            }
            if is_capable { 0 } else { user_namespace_number(owner) }
        }
    }
}

impl PidNamespace<Probed> {
    /// The limit of the innermost namespace without a free PID: this one, or one above it. The kernel takes a PID from
    /// each, in that order. It uses PIDs below 300 only once (`RESERVED_PIDS`, kernel/pid.c). `None` on kernels before
    /// 6.14, where namespaces have no limits of their own.
    #[inline(always)]
    pub(crate) fn full_pids(self) -> Option<Limit> {
        const RESERVED_PIDS: u32 = 300;
        if !present(PIDNS_PID_MAX) {
            return None;
        }
        let mut ns = self;
        for _ in 0..=MAX_LEVEL {
            if ns.is_null() {
                return None;
            }
            let (value, current) = (ns.field::<u32>(PIDNS_PID_MAX), ns.pids_in_use());
            if current + RESERVED_PIDS >= value {
                return Some(Limit {
                    place: ns.inum(),
                    value: value.into(),
                    current: current.into(),
                    ..Limit::NONE
                });
            }
            ns = ns.parent();
        }
        None
    }
}

/// The counts for the limits of its own user namespace (`struct ucounts`); null if no pointer leads there. That is so
/// before 5.14, and if the effective user, who creates namespaces, is not the user whose processes are counted.
///
/// # Safety
/// The arguments must be a `struct cred`, its user namespace and its effective user.
#[inline(always)]
unsafe fn own_counts(cred: *const u8, ns: *const u8, euid: u32) -> *const u8 {
    if !present(CRED_UCOUNTS) {
        return core::ptr::null();
    }
    // SAFETY: every read is a pointer or an integer, copied by a helper.
    unsafe {
        let counts: *const u8 = Probed::read(cred.add(CRED_UCOUNTS.offset()));
        let of: *const u8 = Probed::read(counts.add(UCOUNTS_NS.offset()));
        let uid: u32 = Probed::read(counts.add(UCOUNTS_UID.offset()));
        if of as u64 == ns as u64 && uid == euid { counts } else { core::ptr::null() }
    }
}

/// The limit on namespaces of this kind in this user namespace. The user may have `most` of them and has `used`; if
/// `counts` is null, `used` is unknown.
///
/// # Safety
/// `ns` must be a `struct user_namespace`.
#[inline(always)]
unsafe fn limit_at(
    ns: *const u8,
    uid: u32,
    kind: Resource,
    most: i64,
    counts: *const u8,
    used: i64,
) -> Limit {
    Limit {
        // SAFETY: the caller's promise.
        place: unsafe { user_namespace_number(ns) },
        value: most as u64,
        current: if counts.is_null() { CURRENT_UNKNOWN } else { used as u64 },
        detail: kind as u32,
        number: uid,
        cgroup: 0,
        padding: 0,
    }
}

/// Reads an element of `ucount` or `ucount_max`. Both have the same size, which is 4 bytes before 5.14.
///
/// # Safety
/// `at` must be the address of one.
#[inline(always)]
unsafe fn count_at(at: *const u8) -> i64 {
    // SAFETY: an integer, copied by a helper.
    unsafe {
        if UCOUNT_SIZE.offset() == size_of::<u32>() {
            Probed::read::<i32>(at).into()
        } else {
            Probed::read(at)
        }
    }
}

/// Inode number of a user namespace.
///
/// # Safety
/// `at` must be a `struct user_namespace`.
#[inline(always)]
unsafe fn user_namespace_number(at: *const u8) -> u32 {
    // SAFETY: the address of a member.
    NsCommon::<Probed>::at(unsafe { at.add(USERNS_NS.offset()) }).inum()
}

/// The id of the cgroup to which this `struct cgroup_subsys_state` belongs; 0 if this kernel's BTF lacks the fields.
///
/// # Safety
/// `css` must be one.
#[inline(always)]
unsafe fn cgroup_number(css: *const u8) -> u64 {
    if !present(CSS_CGROUP) || !present(CGROUP_NODE) || !present(KERNFS_NODE_ID) {
        return 0;
    }
    // SAFETY: every read is a pointer or an integer, copied by a helper.
    unsafe {
        let cgroup: *const u8 = Probed::read(css.add(CSS_CGROUP.offset()));
        let node: *const u8 = Probed::read(cgroup.add(CGROUP_NODE.offset()));
        Probed::read(node.add(KERNFS_NODE_ID.offset()))
    }
}
