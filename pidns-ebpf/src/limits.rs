//! What may have refused a fork: the limits of its caller, as they stand right after.

use crate::{
    access::{Access, Probed},
    kernel::Task,
    layout::*,
};

/// Deepest nesting of cgroups that is walked.
const MAX_CGROUP_DEPTH: u32 = 32;

impl Task<Probed> {
    /// Whether its user has as many processes as its RLIMIT_NPROC allows, which binds it (copy_process,
    /// kernel/fork.c): root and who has CAP_SYS_RESOURCE or CAP_SYS_ADMIN may have more.
    #[inline(always)]
    pub(crate) fn is_at_nproc_limit(self) -> bool {
        /// `RLIMIT_NPROC`, include/uapi/asm-generic/resource.h.
        const RLIMIT_NPROC: usize = 6;
        const CAP_SYS_ADMIN: u32 = 21;
        const CAP_SYS_RESOURCE: u32 = 24;
        if !present(CRED_CAP_EFFECTIVE) || !present(SIGNAL_RLIMITS) {
            return false;
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
            !exempt && used >= limit
        }
    }

    /// Whether its pids cgroup, or one above it, is at its limit (kernel/cgroup/pids.c). What a refused fork had
    /// charged is given back by then, so that the counter stands at the limit and not above.
    #[inline(always)]
    pub(crate) fn pids_cgroup_is_full(self) -> bool {
        if !present(PIDS_CGROUP_ID) || !present(PIDS_CGROUP_LIMIT) {
            return false;
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
}
