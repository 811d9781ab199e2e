//! Reports refused calls of fork, vfork, clone, clone3, unshare and setns: the reason, and the limit that is reached or
//! the capability that is missing.
//!
//! sys_exit sees the result and the registers. This code finds the reason in the kernel's state. Function hooks also
//! know which function inside the call refused it, and pass that as a [`Call`].
//!
//! Each program calls [`refused`] in only one place, because the verifier follows every loop in here once for each
//! place.

use aya_ebpf::{helpers::generated, maps::PerCpuArray};
use pidns_ebpf::abi::{
    FLAG_INEXACT, FLAG_THREAD, Kind, MAX_CHOSEN, MAX_LEVEL, NamespaceRecord, PIDS_ROOM, Reason, RefusalBody,
    Resource, Via, Writer,
};

use crate::{
    call::Call,
    chosen::{Chosen, Taken, taken},
    emit::{self, Scratch, fill_in, now, send_with},
    filter,
    kernel::{PidNamespace, Probed, Task, bounded},
    limits::{ADMIN, CHECKPOINT_RESTORE, Limit, Room},
    outcome::{Target, has_unshared},
    syscall::{CLONE_NEW_OTHERS, CLONE_NEWPID, CLONE_NEWUSER, CLONE_THREAD},
};

const EPERM: u32 = 1;
const EAGAIN: u32 = 11;
const ENOMEM: u32 = 12;
const EEXIST: u32 = 17;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
const ENOSYS: u32 = 38;

/// Scratch memory for a refusal. Its tail also has room for the PIDs that the caller chose.
#[repr(C)]
pub(crate) struct RefusalScratch {
    scratch: Scratch<NamespaceRecord<RefusalBody>>,
    /// Continues the tail.
    more_tail: [u32; PIDS_ROOM],
    /// The PIDs that the caller chose, until their place in the tail is known.
    chosen: [u32; PIDS_ROOM],
    attempt: Attempt,
    refusal: Refusal,
}

impl RefusalScratch {
    /// This CPU's scratch memory.
    #[inline(always)]
    pub(crate) fn of(map: &PerCpuArray<Self>) -> Option<*mut Self> {
        map.get_ptr_mut(0)
    }
}

/// The arguments of a call that matter for a refusal.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Attempt {
    /// A [`Via`].
    via: u32,
    /// Number of PIDs that the caller chose.
    chosen: u32,
    /// `CLONE_*`; for setns the requested types of namespaces.
    flags: u64,
    /// Address of the PID namespace to join; 0 if unknown, or if there is none.
    target: u64,
    /// For setns: whether the file is a namespace that is not of the requested type.
    is_wrong_type: u64,
}

impl Attempt {
    /// Records a call of fork, vfork, clone or clone3 with these chosen PIDs.
    ///
    /// # Safety
    /// `scratch` must be valid.
    #[inline(always)]
    pub(crate) unsafe fn fork(via: Via, flags: u64, chosen: Chosen, scratch: *mut RefusalScratch) {
        // SAFETY: the caller's promise, and there is room for MAX_CHOSEN.
        unsafe {
            let chosen = chosen.copy((&raw mut (*scratch).chosen).cast());
            let attempt = Self { via: via as u32, chosen, flags, target: 0, is_wrong_type: 0 };
            emit::copy(&raw const attempt, &raw mut (*scratch).attempt);
        }
    }

    /// Records a call of unshare(CLONE_NEWPID) with these flags.
    ///
    /// # Safety
    /// `scratch` must be valid.
    #[inline(always)]
    pub(crate) unsafe fn unshare(flags: u64, scratch: *mut RefusalScratch) {
        // SAFETY: the caller's promise.
        unsafe { Self::fork(Via::Unshare, flags, Chosen::NONE, scratch) }
    }

    /// Records a call of setns. `types` are the requested types of namespaces.
    ///
    /// # Safety
    /// `scratch` must be valid.
    #[inline(always)]
    pub(crate) unsafe fn setns(target: Target, types: u64, scratch: *mut RefusalScratch) {
        let attempt = Self {
            via: Via::Setns as u32,
            chosen: 0,
            flags: types,
            target: target.ns().map_or(0, PidNamespace::address),
            is_wrong_type: matches!(target, Target::WrongType(_)).into(),
        };
        // SAFETY: the caller's promise.
        unsafe { emit::copy(&raw const attempt, &raw mut (*scratch).attempt) }
    }

    #[inline(always)]
    fn kind(&self) -> Kind {
        if self.via == Via::Setns as u32 {
            Kind::NamespaceJoinFailed
        } else if self.flags & CLONE_NEWPID != 0 {
            Kind::NamespaceCreateFailed
        } else {
            Kind::ForkFailed
        }
    }

    #[inline(always)]
    fn target(&self) -> Option<PidNamespace<Probed>> {
        (self.target != 0).then(|| PidNamespace::at(self.target as *const u8))
    }
}

/// Sends the record of a call that was refused with this errno. The scratch memory has its [`Attempt`].
///
/// # Safety
/// `scratch` must be valid, and `task` must be the running task.
#[inline(always)]
pub(crate) unsafe fn refused(
    writer: Writer,
    task: Task<Probed>,
    errno: u32,
    call: Option<Call>,
    scratch: *mut RefusalScratch,
) {
    // The attempt is loaded from memory, so that the verifier does not know its values. Otherwise it would follow the
    // rest once for each kind of call. SAFETY: the caller's promise.
    let attempt = unsafe { (&raw const (*scratch).attempt).read_volatile() };
    let kind = attempt.kind();
    let leader = task.group_leader();
    if matches!(kind, Kind::ForkFailed)
        && (!filter::wants(kind) || !filter::wants_process(leader.tgid(), leader.tgid()))
    {
        return;
    }
    let children = task.children_ns();
    let ns = match kind {
        Kind::NamespaceJoinFailed => attempt.target(),
        Kind::NamespaceCreateFailed => None,
        _ => Some(children),
    };
    if !filter::wants_namespace(ns.unwrap_or(children)) {
        return;
    }
    let refusal = if matches!(kind, Kind::NamespaceJoinFailed) {
        Refusal::of_join(task, attempt, errno, call)
    } else {
        // SAFETY: the caller's promise, and `scratch` has the chosen PIDs.
        unsafe { Refusal::of_fork(task, attempt, children, errno, call, scratch) }
    };
    // SAFETY: the caller's promise.
    unsafe {
        emit::copy(&raw const refusal, &raw mut (*scratch).refusal);
        send(writer, task, errno, scratch);
    }
}

/// The reason, the limit that is reached, and the flag for an imprecise reason.
#[derive(Clone, Copy)]
#[repr(C)]
struct Refusal {
    /// A [`Reason`].
    reason: u32,
    inexact: u32,
    limit: Limit,
    /// Whether the missing capability is for choosing PIDs.
    for_chosen: u64,
    /// Address of the task that has the PID that the caller chose; 0: none.
    holder: u64,
}

impl Refusal {
    #[inline(always)]
    fn exact(reason: Reason) -> Self {
        Self { reason: reason as u32, inexact: 0, limit: Limit::NONE, for_chosen: 0, holder: 0 }
    }

    #[inline(always)]
    fn inexact(reason: Reason) -> Self {
        Self { inexact: FLAG_INEXACT.into(), ..Self::exact(reason) }
    }

    #[inline(always)]
    fn limit(reason: Reason, limit: Limit) -> Self {
        Self { limit, ..Self::exact(reason) }
    }

    /// The reason for a refused fork or unshare. The child would have been born in `children`, or in a new namespace
    /// below it.
    ///
    /// # Safety
    /// `scratch` must be valid and have the PIDs that the caller chose.
    #[inline(always)]
    unsafe fn of_fork(
        task: Task<Probed>,
        attempt: Attempt,
        children: PidNamespace<Probed>,
        errno: u32,
        call: Option<Call>,
        scratch: *mut RefusalScratch,
    ) -> Self {
        let Attempt { flags, chosen, .. } = attempt;
        let creates = flags & CLONE_NEWPID != 0;
        // Whether copy_pid_ns may have refused the call, and whether alloc_pid may have.
        let of_creation = creates && call.is_none_or(|call| call.create_errno == errno);
        let of_pid = !creates && call.is_none_or(|call| call.pid_errno == errno);
        match errno {
            EPERM => Self::not_permitted_to_fork(task, flags, chosen, children, call),
            EAGAIN if attempt.via != Via::Unshare as u32 => Self::over_limit(task, children, call),
            ENOMEM if of_pid && children.is_dead() => Self::exact(Reason::NamespaceDead),
            ENOMEM => Self::exact(Reason::NoMemory),
            // The first of the chosen PIDs is for the new namespace, if there is one.
            // SAFETY: the caller's promise.
            EEXIST if chosen != 0 => unsafe { Self::taken(scratch, chosen, creates.into(), children) },
            ENOSYS if call.is_none() && task.has_seccomp_filter() => Self::exact(Reason::Seccomp),
            ENOSPC if of_creation && children.level() >= MAX_LEVEL => Self::exact(Reason::DepthLimit),
            ENOSPC if creates => Self::too_many(task, flags, call.is_some() && of_creation, !of_creation),
            EINVAL if task.thread_pid().innermost().1.address() != children.address() => {
                if of_creation && has_unshared(task) {
                    Self::exact(Reason::AlreadyUnshared)
                } else if of_creation || !creates && flags & CLONE_THREAD != 0 {
                    // copy_process() checks this for threads (kernel/fork.c).
                    Self::exact(Reason::ChildrenElsewhere)
                } else {
                    Self::exact(Reason::Other)
                }
            }
            _ => Self::exact(Reason::Other),
        }
    }

    /// The reason for EPERM of a call with these `CLONE_*` flags, which chose `chosen` PIDs; `ns` is the namespace of
    /// the first one that is not for a new namespace. A seccomp filter can refuse with EPERM too, before the kernel
    /// handles the call. Then the kernel calls no hooked function.
    #[inline(always)]
    fn not_permitted_to_fork(
        task: Task<Probed>,
        flags: u64,
        chosen: u32,
        ns: PidNamespace<Probed>,
        call: Option<Call>,
    ) -> Self {
        // The kernel creates namespaces before it takes PIDs (copy_process, kernel/fork.c).
        let needs_admin = flags & (CLONE_NEW_OTHERS | CLONE_NEWPID) != 0;
        let is_for_chosen = match call {
            Some(call) => call.pid_errno == EPERM,
            None => chosen != 0 && (!needs_admin || flags & CLONE_NEWUSER != 0 || task.has_one_of(ADMIN)),
        };
        if !is_for_chosen {
            return Self::not_permitted(task, flags, needs_admin, call);
        }
        let place = task.lacks_in_owner_of(ns, CHECKPOINT_RESTORE);
        if place == 0 && call.is_none() && task.has_seccomp_filter() {
            // The capability may still be missing in a namespace further out.
            return if chosen > 1 { Self::inexact(Reason::Seccomp) } else { Self::exact(Reason::Seccomp) };
        }
        Self { for_chosen: 1, ..Self::limit(Reason::Permission, Limit { place, ..Limit::NONE }) }
    }

    /// The reason for EPERM of a call with these `CLONE_*` flags, if it is not about chosen PIDs.
    #[inline(always)]
    fn not_permitted(task: Task<Probed>, flags: u64, needs_admin: bool, call: Option<Call>) -> Self {
        if call.is_some() || !task.has_seccomp_filter() {
            Self::exact(if needs_admin { Reason::Permission } else { Reason::Other })
        } else if flags & CLONE_NEWUSER != 0 {
            // A caller that creates a user namespace needs no capability. But the kernel can have other reasons to
            // refuse the user namespace: a chroot, an unmapped user, a sysctl of the distribution.
            Self::inexact(Reason::Seccomp)
        } else if needs_admin && !task.has_one_of(ADMIN) {
            Self::exact(Reason::Permission)
        } else {
            Self::exact(Reason::Seccomp)
        }
    }

    /// The reason for EAGAIN of a fork: the limit that is reached.
    #[inline(always)]
    fn over_limit(task: Task<Probed>, children: PidNamespace<Probed>, call: Option<Call>) -> Self {
        // alloc_pid returns EAGAIN for no other reason.
        let is_pid_max = call.is_some_and(|call| call.pid_errno == EAGAIN);
        // The order is that of the checks in copy_process.
        if !is_pid_max && let Some(limit) = task.reached_nproc_limit() {
            return Self::limit(Reason::NprocLimit, limit);
        }
        if is_pid_max || call.is_none() {
            match children.full_pids() {
                Some(limit) => return Self::limit(Reason::PidMax, limit),
                None if is_pid_max => return Self::exact(Reason::PidMax),
                None => {}
            }
        }
        match task.full_pids_cgroup() {
            Some(limit) => Self::limit(Reason::PidsCgroup, limit),
            None => Self::exact(Reason::Other),
        }
    }

    /// The reason for EEXIST of a call that chose PIDs: one of them is in use. The first `skip` PIDs are for namespaces
    /// within `ns`.
    ///
    /// # Safety
    /// `scratch` must be valid and have `chosen` PIDs.
    #[inline(always)]
    unsafe fn taken(scratch: *mut RefusalScratch, chosen: u32, skip: u32, ns: PidNamespace<Probed>) -> Self {
        // SAFETY: the caller's promise; `scratch` has room for PIDS_ROOM.
        let found = unsafe { taken((&raw const (*scratch).chosen).cast(), chosen, skip, ns) };
        match found {
            Some(Taken { number, ns: place, by, holder }) => {
                let limit = Limit { place, number, detail: by as u32, ..Limit::NONE };
                Self {
                    holder: holder.map_or(0, |task| task.0 as u64),
                    ..Self::limit(Reason::PidTaken, limit)
                }
            }
            None => Self::exact(Reason::PidTaken),
        }
    }

    /// The reason for ENOSPC of a call with these flags, if the nesting is not too deep. `is_known`: copy_pid_ns
    /// refused. `is_other`: another function did. If both are false, that is unknown.
    #[inline(always)]
    fn too_many(task: Task<Probed>, flags: u64, is_known: bool, is_other: bool) -> Self {
        // The kernel creates the user namespace first.
        if !is_known
            && flags & CLONE_NEWUSER != 0
            && let Room::Full(limit) = task.room_for(Resource::UserNamespaces)
        {
            return Self::limit(Reason::CountLimit, limit);
        }
        if is_other {
            return Self::exact(Reason::Other);
        }
        // The namespace at its limit may be another one that the call requested.
        let inexact = if !is_known && flags & CLONE_NEW_OTHERS != 0 { u32::from(FLAG_INEXACT) } else { 0 };
        match task.room_for(Resource::PidNamespaces) {
            Room::Full(limit) => Self { inexact, ..Self::limit(Reason::CountLimit, limit) },
            Room::Unknown(limit) if inexact == 0 => Self::limit(Reason::CountLimit, limit),
            Room::Unknown(_) => Self::inexact(Reason::CountLimit),
            // A namespace has ended meanwhile.
            Room::Left if inexact == 0 => Self::exact(Reason::CountLimit),
            // The limit allows one more PID namespace, so a namespace of another type was refused.
            Room::Left => Self::exact(Reason::Other),
        }
    }

    /// The reason for a refused setns.
    #[inline(always)]
    fn of_join(task: Task<Probed>, attempt: Attempt, errno: u32, call: Option<Call>) -> Self {
        let is_wrong_type = attempt.is_wrong_type != 0;
        let at_fault = call.is_none_or(|call| call.join_errno == errno);
        let refusal = match (errno, attempt.target()) {
            (EINVAL, _) if is_wrong_type => Self::exact(Reason::WrongType),
            (EPERM, Some(target)) => Self::not_permitted_to_join(task, target, call),
            (EPERM, None) => Self::exact(Reason::Permission),
            (EINVAL, Some(target)) if at_fault && !is_below(target, task.thread_pid().innermost().1) => {
                Self::exact(Reason::NotDescendant)
            }
            _ => Self::exact(Reason::Other),
        };
        // The kernel may have refused another namespace that the call requested.
        let may_be_another = call.is_none() && attempt.flags & CLONE_NEW_OTHERS != 0 && !is_wrong_type;
        Self { inexact: if may_be_another { u32::from(FLAG_INEXACT) } else { 0 }, ..refusal }
    }

    /// The reason for EPERM of a join: a missing capability, and in which user namespace, or a seccomp filter.
    #[inline(always)]
    fn not_permitted_to_join(task: Task<Probed>, target: PidNamespace<Probed>, call: Option<Call>) -> Self {
        let place = task.lacks_admin_to_join(target);
        if place == 0 && call.is_none() && task.has_seccomp_filter() {
            return Self::exact(Reason::Seccomp);
        }
        Self::limit(Reason::Permission, Limit { place, ..Limit::NONE })
    }
}

/// Whether `ns` is `top` or below it.
#[inline(always)]
fn is_below(mut ns: PidNamespace<Probed>, top: PidNamespace<Probed>) -> bool {
    for _ in 0..=MAX_LEVEL {
        if ns.address() == top.address() {
            return true;
        }
        if ns.is_null() {
            return false;
        }
        ns = ns.parent();
    }
    false
}

/// Sends the record of the attempt and the refusal in the scratch memory.
///
/// # Safety
/// `scratch` must be valid, and `task` must be the running task.
#[inline(always)]
unsafe fn send(writer: Writer, task: Task<Probed>, errno: u32, scratch: *mut RefusalScratch) {
    // As in `refused`, both are loaded from memory, so that the verifier does not follow this once for each reason.
    // SAFETY: the caller's promise.
    let (attempt, refusal) = unsafe {
        ((&raw const (*scratch).attempt).read_volatile(), (&raw const (*scratch).refusal).read_volatile())
    };
    let kind = attempt.kind();
    let ns = match kind {
        Kind::NamespaceJoinFailed => attempt.target(),
        Kind::NamespaceCreateFailed => None,
        _ => Some(task.children_ns()),
    };
    let is_thread = matches!(kind, Kind::ForkFailed) && attempt.flags & CLONE_THREAD != 0;
    let flags = if is_thread { FLAG_THREAD } else { 0 } | refusal.inexact as u8;
    let holder = (refusal.holder != 0).then(|| Task::<Probed>::at(refusal.holder as *const u8));
    let Limit { place, value, current, cgroup, detail, number, padding: _ } = refusal.limit;
    let chosen = bounded(u64::from(attempt.chosen).min(MAX_CHOSEN as u64)) as u32;
    let body = RefusalBody {
        errno,
        via: attempt.via,
        reason: refusal.reason,
        place,
        limit: value,
        current,
        cgroup,
        detail,
        number,
        chosen,
        for_chosen: refusal.for_chosen as u32,
    };
    // SAFETY: the caller's promise; the tail and its continuation have room for three lists.
    unsafe {
        let list = (&raw const (*scratch).chosen).cast();
        let scratch: *mut Scratch<NamespaceRecord<RefusalBody>> = scratch.cast();
        let (pids, mut other_pids) = fill_in(scratch, ns, Some(task.group_leader()), holder, body);
        let other = &raw mut (*scratch).record.other;
        if other_pids != 0 && emit::tail(scratch, pids).read() != (*other).pid {
            // The holder has just lost its PIDs.
            emit::zero(other);
            other_pids = 0;
        }
        if chosen != 0 {
            let to = emit::tail(scratch, pids + other_pids);
            generated::bpf_probe_read_kernel(to.cast(), 4 * chosen, list);
        }
        send_with(writer, kind, flags, now(), scratch, (pids, other_pids), chosen);
    }
}
