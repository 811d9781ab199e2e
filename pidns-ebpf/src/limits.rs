//! Limits and privileges of a caller, read right after a call was refused: they may be the reason.

use pidns_ebpf::abi::{CURRENT_UNKNOWN, MAX_LEVEL, Resource};

use crate::{
    access::{Access as _, Probed},
    kernel::{NsCommon, PidNamespace, Task},
    layout::*,
};

/// Deepest nesting of cgroups that is walked.
const MAX_CGROUP_DEPTH: u32 = 32;
/// Deepest nesting of user namespaces (create_user_ns, kernel/user_namespace.c: level 32 may have a child).
const MAX_USER_NAMESPACES: u32 = MAX_LEVEL + 2;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_CHECKPOINT_RESTORE: u32 = 40;
/// The capability to create and join namespaces.
pub(crate) const ADMIN: u64 = 1 << CAP_SYS_ADMIN;
/// The capabilities to choose PIDs (`checkpoint_restore_ns_capable()`, include/linux/capability.h): one of these.
pub(crate) const CHECKPOINT_RESTORE: u64 = 1 << CAP_CHECKPOINT_RESTORE | ADMIN;

/// A reached limit, in the terms of [`pidns_ebpf::abi::RefusalBody`].
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Limit {
    pub(crate) value: u64,
    pub(crate) current: u64,
    pub(crate) cgroup: u64,
    pub(crate) place: u32,
    pub(crate) detail: u32,
    pub(crate) number: u32,
    /// None: it is copied word by word.
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
    /// None is.
    Left,
    /// No readable limit is reached. The current count of this one, of the caller's own user namespace, cannot be read.
    Unknown(Limit),
}

impl Task<Probed> {
    /// The limit of the processes of its user, if it is reached and binds it (copy_process, kernel/fork.c): root and who has
    /// CAP_SYS_RESOURCE or CAP_SYS_ADMIN may have more.
    #[inline(always)]
    pub(crate) fn reached_nproc_limit(self) -> Option<Limit> {
        /// `RLIMIT_NPROC`, include/uapi/asm-generic/resource.h.
        const RLIMIT_NPROC: usize = 6;
        const CAP_SYS_RESOURCE: u32 = 24;
        if !present(CRED_CAP_EFFECTIVE) || !present(SIGNAL_RLIMITS) {
            return None;
        }
        // SAFETY: every read is a pointer or an integer, copied by helper.
        unsafe {
            let cred: *const u8 = self.field(TASK_REAL_CRED);
            let uid: u32 = Probed::read(cred.add(CRED_UID.load() as usize));
            let capabilities: u64 = Probed::read(cred.add(CRED_CAP_EFFECTIVE.load() as usize));
            let exempt = uid == 0 || capabilities & (1 << CAP_SYS_ADMIN | 1 << CAP_SYS_RESOURCE) != 0;
            let used: u64 = if present(CRED_UCOUNTS) && present(UCOUNTS_RLIMIT) {
                let ucounts: *const u8 = Probed::read(cred.add(CRED_UCOUNTS.load() as usize));
                // `UCOUNT_RLIMIT_NPROC` is the first.
                Probed::read(ucounts.add(UCOUNTS_RLIMIT.load() as usize))
            } else if present(USER_PROCESSES) {
                // Before 5.14.
                let user: *const u8 = Probed::read(cred.add(CRED_USER.load() as usize));
                u64::from(Probed::read::<u32>(user.add(USER_PROCESSES.load() as usize)))
            } else {
                0
            };
            let signal: *const u8 = self.field(TASK_SIGNAL);
            // A `struct rlimit` is two words, the soft limit first.
            let limit: u64 = Probed::read(signal.add(SIGNAL_RLIMITS.load() as usize + RLIMIT_NPROC * 16));
            (!exempt && used >= limit).then_some(Limit {
                place: uid,
                value: limit,
                current: used,
                ..Limit::NONE
            })
        }
    }

    /// The limit of its pids cgroup, or of the innermost one above it that is at its limit (kernel/cgroup/pids.c). What a refused
    /// fork had charged is given back by then, so that the counter stands at the limit and not above.
    #[inline(always)]
    pub(crate) fn full_pids_cgroup(self) -> Option<Limit> {
        if !present(PIDS_CGROUP_ID) || !present(PIDS_CGROUP_LIMIT) {
            return None;
        }
        // SAFETY: every read is a pointer or an integer, copied by helper.
        unsafe {
            let css_set: *const u8 = self.field(TASK_CGROUPS);
            let slot = CSS_SET_SUBSYS.load() + PIDS_CGROUP_ID.load() * size_of::<u64>() as u32;
            let mut css: *const u8 = Probed::read(css_set.add(slot as usize));
            for _ in 0..MAX_CGROUP_DEPTH {
                let parent: *const u8 = Probed::read(css.add(CSS_PARENT.load() as usize));
                if css.is_null() || parent.is_null() {
                    // The root has no limit.
                    return None;
                }
                let cgroup = css.sub(PIDS_CGROUP_CSS.load() as usize);
                let used: i64 = Probed::read(cgroup.add(PIDS_CGROUP_COUNTER.load() as usize));
                let limit: i64 = Probed::read(cgroup.add(PIDS_CGROUP_LIMIT.load() as usize));
                if used >= limit {
                    let cgroup = cgroup_number(css);
                    return Some(Limit { value: limit as u64, current: used as u64, cgroup, ..Limit::NONE });
                }
                css = parent;
            }
        }
        None
    }

    /// Whether a seccomp filter filters its system calls.
    #[inline(always)]
    pub(crate) fn has_seccomp_filter(self) -> bool {
        /// `SECCOMP_MODE_FILTER`, include/uapi/linux/seccomp.h.
        const FILTER: u32 = 2;
        present(TASK_SECCOMP_MODE) && self.field::<u32>(TASK_SECCOMP_MODE) == FILTER
    }

    /// The limit on namespaces of this kind that is reached: of its own user namespace, or of one around it, each of which counts
    /// those of the user who made the one within (inc_ucount, kernel/ucount.c).
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
        // SAFETY: every read is a pointer or an integer, copied by helper.
        unsafe {
            let cred: *const u8 = self.field(TASK_REAL_CRED);
            let mut ns: *const u8 = Probed::read(cred.add(CRED_USER_NS.load() as usize));
            let mut uid: u32 = Probed::read(cred.add(CRED_EUID.load() as usize));
            let (own, own_uid) = (ns, uid);
            let mut counts = own_counts(cred, own, uid);
            let is_known = !counts.is_null();
            for _ in 0..MAX_USER_NAMESPACES {
                if ns.is_null() {
                    break;
                }
                let most = count_at(ns.add(USERNS_UCOUNT_MAX.load() as usize + skip));
                // What cannot be read counts as none: of what may not be at all that is too many.
                let used = count_at(counts.wrapping_add(UCOUNTS_COUNTS.load() as usize + skip));
                if used >= most {
                    return Room::Full(limit_at(ns, uid, kind, most, counts, used));
                }
                counts = Probed::read(ns.add(USERNS_UCOUNTS.load() as usize));
                if counts.is_null() {
                    break;
                }
                ns = Probed::read(counts.add(UCOUNTS_NS.load() as usize));
                uid = Probed::read(counts.add(UCOUNTS_UID.load() as usize));
            }
            if is_known {
                return Room::Left;
            }
            let most = count_at(own.add(USERNS_UCOUNT_MAX.load() as usize + skip));
            Room::Unknown(limit_at(own, own_uid, kind, most, core::ptr::null(), 0))
        }
    }

    /// Whether it has one of these capabilities in its own user namespace; so it is taken where this kernel's cannot be read.
    #[inline(always)]
    pub(crate) fn has_one_of(self, capabilities: u64) -> bool {
        if !present(CRED_CAP_EFFECTIVE) {
            return true;
        }
        let cred: *const u8 = self.field(TASK_REAL_CRED);
        // SAFETY: an integer, copied by helper.
        let effective: u64 = unsafe { Probed::read(cred.add(CRED_CAP_EFFECTIVE.load() as usize)) };
        effective & capabilities != 0
    }

    /// Inode number of the user namespace in which it lacks the CAP_SYS_ADMIN that joining `target` takes: the target's owner
    /// first, then its own (pidns_install, kernel/pid_namespace.c). 0: it has both.
    #[inline(always)]
    pub(crate) fn lacks_admin_to_join(self, target: PidNamespace<Probed>) -> u32 {
        let lacking = self.lacks_in_owner_of(target, ADMIN);
        if lacking != 0 || self.has_one_of(ADMIN) {
            return lacking;
        }
        let cred: *const u8 = self.field(TASK_REAL_CRED);
        // SAFETY: a pointer to a user namespace, copied by helper.
        unsafe { user_namespace_number(Probed::read(cred.add(CRED_USER_NS.load() as usize))) }
    }

    /// Inode number of the user namespace that owns `target`, where it has none of these capabilities there. 0: it has one.
    #[inline(always)]
    pub(crate) fn lacks_in_owner_of(self, target: PidNamespace<Probed>, capabilities: u64) -> u32 {
        let has_own = self.has_one_of(capabilities);
        let owner = target.owner();
        // SAFETY: every read is a pointer or an integer, copied by helper.
        unsafe {
            let cred: *const u8 = self.field(TASK_REAL_CRED);
            let own: *const u8 = Probed::read(cred.add(CRED_USER_NS.load() as usize));
            let euid: u32 = Probed::read(cred.add(CRED_EUID.load() as usize));
            // As cap_capable (security/commoncap.c): who is capable in a namespace, or has made it, is so in all below.
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
                let parent: *const u8 = Probed::read(at.add(USERNS_PARENT.load() as usize));
                let made_by: u32 = Probed::read(at.add(USERNS_OWNER.load() as usize));
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
    /// The limit of the innermost namespace, of itself and those above it, that has given out all its PIDs: the kernel takes one
    /// from each, in that order. Those below 300 it gives out once only (`RESERVED_PIDS`, kernel/pid.c). Known where each
    /// namespace has a limit of its own (6.14 and later).
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

/// What counts against the limits of its own user namespace (`struct ucounts`); null where no pointer leads there: before 5.14, and
/// where the user who creates namespaces (the effective one) is not the one whose processes are counted.
///
/// # Safety
/// It must be a `struct cred`, its user namespace and its effective user.
#[inline(always)]
unsafe fn own_counts(cred: *const u8, ns: *const u8, euid: u32) -> *const u8 {
    if !present(CRED_UCOUNTS) {
        return core::ptr::null();
    }
    // SAFETY: every read is a pointer or an integer, copied by helper.
    unsafe {
        let counts: *const u8 = Probed::read(cred.add(CRED_UCOUNTS.load() as usize));
        let of: *const u8 = Probed::read(counts.add(UCOUNTS_NS.load() as usize));
        let uid: u32 = Probed::read(counts.add(UCOUNTS_UID.load() as usize));
        if of as u64 == ns as u64 && uid == euid { counts } else { core::ptr::null() }
    }
}

/// The limit on namespaces of this kind in this user namespace: of `most` of this user `used` are there, unless `counts` leads nowhere.
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

/// A `ucount` or `ucount_max`: they are of one size, 4 bytes before 5.14.
///
/// # Safety
/// It must be one.
#[inline(always)]
unsafe fn count_at(at: *const u8) -> i64 {
    // SAFETY: an integer, copied by helper.
    unsafe {
        if UCOUNT_SIZE.load() as usize == size_of::<u32>() {
            Probed::read::<i32>(at).into()
        } else {
            Probed::read(at)
        }
    }
}

/// # Safety
/// It must be a `struct user_namespace`.
#[inline(always)]
unsafe fn user_namespace_number(at: *const u8) -> u32 {
    // SAFETY: a member's address.
    NsCommon::<Probed>::at(unsafe { at.add(USERNS_NS.load() as usize) }).inum()
}

/// The number of the cgroup that this `struct cgroup_subsys_state` is of; 0 where the kernel's BTF does not lead to it.
///
/// # Safety
/// It must be one.
#[inline(always)]
unsafe fn cgroup_number(css: *const u8) -> u64 {
    if !present(CSS_CGROUP) || !present(CGROUP_NODE) || !present(KERNFS_NODE_ID) {
        return 0;
    }
    // SAFETY: every read is a pointer or an integer, copied by helper.
    unsafe {
        let cgroup: *const u8 = Probed::read(css.add(CSS_CGROUP.load() as usize));
        let node: *const u8 = Probed::read(cgroup.add(CGROUP_NODE.load() as usize));
        Probed::read(node.add(KERNFS_NODE_ID.load() as usize))
    }
}
