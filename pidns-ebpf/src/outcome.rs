//! What a call of unshare, setns or clone came to: the records of it, whichever hook saw the call return.
//!
//! sys_exit sees the result and the registers, and reads off the kernel's state why it was refused. The function
//! hooks know in addition which function inside refused: they pass the [`Call`] with it.

use pidns_ebpf::abi::{
    CreateBody, FLAG_INEXACT, FLAG_THREAD, JoinBody, Kind, MAX_LEVEL, NamespaceRecord, Reason, RefusalBody,
    Via, Writer, names::attached::RELEASE_SEEN,
};

use crate::{
    call::Call,
    emit::{Scratch, send_namespaced},
    filter,
    kernel::{Access, PidNamespace, Probed, Regs, Task},
    limits::Limit,
    maps::{CHILDREN_NS, ChildrenNs, attached, observed_since, without_init},
    syscall::{CLONE_NEW_OTHERS, CLONE_NEWPID, CLONE_NEWUSER, CLONE_THREAD, Fork},
};

const EPERM: u32 = 1;
const EAGAIN: u32 = 11;
const ENOMEM: u32 = 12;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
const ENOSYS: u32 = 38;
/// Above are the kernel's own codes (ERESTARTNOINTR…): the call is repeated, nobody sees it fail.
const MAX_USER_ERRNO: u32 = 511;

pub(crate) type CreateScratch = Scratch<NamespaceRecord<CreateBody>>;
pub(crate) type JoinScratch = Scratch<NamespaceRecord<JoinBody>>;
pub(crate) type RefusalScratch = Scratch<NamespaceRecord<RefusalBody>>;

/// The errno of a call's result, 0 for none; `None` where its caller does not get to see it: the call is repeated, or `task`, the
/// caller, is being killed, which interrupts a fork with various codes.
#[inline(always)]
pub(crate) fn errno(task: Task<Probed>, result: i64) -> Option<u32> {
    if result >= 0 {
        return Some(0);
    }
    let errno = -result as u32;
    (errno <= MAX_USER_ERRNO && !task.is_being_killed()).then_some(errno)
}

/// Why, which limit is reached, and the flag that says that the hook does not know the reason precisely.
#[derive(Clone, Copy)]
struct Refusal {
    reason: Reason,
    inexact: u8,
    limit: Limit,
}

impl Refusal {
    #[inline(always)]
    fn exact(reason: Reason) -> Self {
        Self { reason, inexact: 0, limit: Limit::NONE }
    }

    #[inline(always)]
    fn inexact(reason: Reason) -> Self {
        Self { inexact: FLAG_INEXACT, ..Self::exact(reason) }
    }

    #[inline(always)]
    fn limit(reason: Reason, limit: Limit) -> Self {
        Self { limit, ..Self::exact(reason) }
    }

    /// EPERM of a call with these `CLONE_*` flags. A seccomp filter answers so too, before the kernel looks at the call; then
    /// no function is called that has a hook.
    #[inline(always)]
    fn not_permitted(task: Task<Probed>, flags: u64, needs_admin: bool, call: Option<Call>) -> Self {
        if call.is_some() || !task.has_seccomp_filter() {
            Self::exact(if needs_admin { Reason::Permission } else { Reason::Other })
        } else if flags & CLONE_NEWUSER != 0 {
            // With a user namespace of its own the caller needs no capability, but the kernel has other reasons to refuse one: a
            // chroot, a user that is not mapped, a switch of the distribution.
            Self::inexact(Reason::Seccomp)
        } else if needs_admin && !task.is_admin() {
            Self::exact(Reason::Permission)
        } else {
            Self::exact(Reason::Seccomp)
        }
    }
}

/// unshare(CLONE_NEWPID) succeeded.
///
/// # Safety
/// `scratch` must be valid, `task` be the running one.
#[inline(always)]
pub(crate) unsafe fn unshared(writer: Writer, task: Task<Probed>, scratch: *mut CreateScratch) {
    let ns = task.children_ns();
    replace_children_ns(task, ns.inum(), 1);
    if !filter::wants_namespace(ns) {
        return;
    }
    let body = CreateBody { via: Via::Unshare as u32, reserved: 0 };
    // SAFETY: the caller's promise.
    unsafe {
        let (process, other) = (Some(task.group_leader()), None::<Task<Probed>>);
        send_namespaced(writer, Kind::NamespaceCreate, 0, scratch, Some(ns), process, other, body);
        if attached(RELEASE_SEEN) {
            without_init(writer, &raw const (*scratch).record.ns);
        }
    }
}

/// Notes that the thread's children go to `inum` now; returns where they went before, 0 where that is not known.
#[inline(always)]
fn replace_children_ns(task: Task<Probed>, inum: u32, unshared: u32) -> u32 {
    let tid = task.pid();
    let start_boot_ns = task.start_boottime();
    // SAFETY: a map value, copied at once.
    let before = match unsafe { CHILDREN_NS.get(&tid) }.copied() {
        Some(known) if known.start_boot_ns == start_boot_ns => known.inum,
        _ if observed_since(start_boot_ns) => task.thread_pid().innermost().1.inum(),
        _ => 0,
    };
    // An LRU map always has room.
    let _ = CHILDREN_NS.insert(&tid, &ChildrenNs { start_boot_ns, inum, unshared }, 0);
    before
}

/// Whether the thread was seen to create the namespace that its children go to. (It may have joined that, too.)
#[inline(always)]
fn has_unshared(task: Task<Probed>) -> bool {
    // SAFETY: a map value, copied at once.
    unsafe { CHILDREN_NS.get(&task.pid()) }
        .copied()
        .is_some_and(|known| known.unshared != 0 && known.start_boot_ns == task.start_boottime())
}

/// A call that was to create a namespace was refused.
///
/// # Safety
/// `scratch` must be valid, `task` be the running one.
#[inline(always)]
pub(crate) unsafe fn not_created(
    writer: Writer,
    task: Task<Probed>,
    via: Via,
    flags: u64,
    errno: u32,
    call: Option<Call>,
    scratch: *mut RefusalScratch,
) {
    let own = task.thread_pid().innermost().1;
    let children = task.children_ns();
    if !filter::wants_namespace(children) {
        return;
    }
    let at_fault = call.is_none_or(|call| call.create_errno == errno);
    let refusal = match errno {
        EPERM => Refusal::not_permitted(task, flags, true, call),
        ENOSYS if call.is_none() && task.has_seccomp_filter() => Refusal::exact(Reason::Seccomp),
        ENOMEM => Refusal::exact(Reason::NoMemory),
        ENOSPC if !at_fault => Refusal::exact(Reason::Other),
        ENOSPC if children.level() >= MAX_LEVEL => Refusal::exact(Reason::DepthLimit),
        // Another of the namespaces asked for may be the one at its limit.
        ENOSPC if call.is_none() && flags & CLONE_NEW_OTHERS != 0 => Refusal::inexact(Reason::CountLimit),
        ENOSPC => Refusal::exact(Reason::CountLimit),
        EINVAL if at_fault && own.address() != children.address() => Refusal::exact(if has_unshared(task) {
            Reason::AlreadyUnshared
        } else {
            Reason::ChildrenElsewhere
        }),
        _ => Refusal::exact(Reason::Other),
    };
    // SAFETY: the caller's promise.
    unsafe { refuse(writer, Kind::NamespaceCreateFailed, 0, None, task, via, errno, refusal, scratch) };
}

/// A fork was refused.
///
/// # Safety
/// `scratch` must be valid, `task` be the running one.
#[inline(always)]
pub(crate) unsafe fn not_forked(
    writer: Writer,
    task: Task<Probed>,
    fork: Fork,
    errno: u32,
    call: Option<Call>,
    scratch: *mut RefusalScratch,
) {
    let leader = task.group_leader();
    if !filter::wants(Kind::ForkFailed) || !filter::wants_process(leader.tgid(), leader.tgid()) {
        return;
    }
    let children = task.children_ns();
    if !filter::wants_namespace(children) {
        return;
    }
    let Fork { via, flags, set_tid } = fork;
    let may_be_pid = call.is_none_or(|call| call.pid_errno == errno);
    let is_thread = flags & CLONE_THREAD != 0;
    let refusal = match errno {
        ENOMEM if may_be_pid && children.is_dead() => Refusal::exact(Reason::NamespaceDead),
        ENOMEM => Refusal::exact(Reason::NoMemory),
        EAGAIN => over_limit(task, children, call),
        EPERM => {
            let needs_admin = set_tid || flags & CLONE_NEW_OTHERS != 0;
            Refusal::not_permitted(task, flags, needs_admin, call)
        }
        ENOSYS if call.is_none() && task.has_seccomp_filter() => Refusal::exact(Reason::Seccomp),
        // copy_process, kernel/fork.c.
        EINVAL if is_thread && task.thread_pid().innermost().1.address() != children.address() => {
            Refusal::exact(Reason::ChildrenElsewhere)
        }
        _ => Refusal::exact(Reason::Other),
    };
    let thread = if is_thread { FLAG_THREAD } else { 0 };
    // SAFETY: the caller's promise.
    unsafe {
        refuse(writer, Kind::ForkFailed, thread, Some(children), task, via, errno, refusal, scratch);
    }
}

/// EAGAIN of a fork: which limit is reached.
#[inline(always)]
fn over_limit(task: Task<Probed>, children: PidNamespace<Probed>, call: Option<Call>) -> Refusal {
    if call.is_some_and(|call| call.pid_errno == EAGAIN) {
        // alloc_pid has no other reason for this one.
        return Refusal::limit(Reason::PidMax, children.full_pids().unwrap_or(Limit::NONE));
    }
    // In the order in which copy_process checks them.
    if let Some(limit) = task.reached_nproc_limit() {
        return Refusal::limit(Reason::NprocLimit, limit);
    }
    if call.is_none()
        && let Some(limit) = children.full_pids()
    {
        return Refusal::limit(Reason::PidMax, limit);
    }
    match task.full_pids_cgroup() {
        Some(limit) => Refusal::limit(Reason::PidsCgroup, limit),
        None => Refusal::exact(Reason::Other),
    }
}

/// What setns(2) was asked to join, as far as it is about PID namespaces.
pub(crate) enum Target {
    /// Nothing of the kind.
    Other,
    /// This one.
    Known(PidNamespace<Probed>),
    /// One that the call named through a pidfd, or a file that is no namespace.
    Unknown,
}

impl Target {
    /// Reads the call from the registers of its caller.
    #[inline(always)]
    pub(crate) fn of<A: Access>(task: Task<Probed>, regs: Regs<A>) -> Self {
        match task.namespace_file(regs.argument0() as u32) {
            // The file of a namespace, of this type or another.
            Some(common) => common.pid_namespace().map_or(Self::Other, Self::Known),
            // A pidfd, or no namespace at all: the types asked for tell.
            None if regs.argument1() & CLONE_NEWPID != 0 => Self::Unknown,
            None => Self::Other,
        }
    }
}

/// setns(2) into a PID namespace succeeded.
///
/// # Safety
/// `scratch` must be valid, `task` be the running one.
#[inline(always)]
pub(crate) unsafe fn joined(writer: Writer, task: Task<Probed>, scratch: *mut JoinScratch) {
    let ns = task.children_ns();
    let from_inum = replace_children_ns(task, ns.inum(), 0);
    if !filter::wants_namespace(ns) {
        return;
    }
    let body = JoinBody { from_inum, reserved: 0 };
    // SAFETY: the caller's promise.
    unsafe {
        let (process, other) = (Some(task.group_leader()), None::<Task<Probed>>);
        send_namespaced(writer, Kind::NamespaceJoin, 0, scratch, Some(ns), process, other, body);
    }
}

/// setns(2), asked to join `target` among these `types`, was refused.
///
/// # Safety
/// `scratch` must be valid, `task` be the running one.
#[inline(always)]
pub(crate) unsafe fn not_joined(
    writer: Writer,
    task: Task<Probed>,
    target: Option<PidNamespace<Probed>>,
    types: u64,
    errno: u32,
    call: Option<Call>,
    scratch: *mut RefusalScratch,
) {
    if !filter::wants_namespace(target.unwrap_or_else(|| task.children_ns())) {
        return;
    }
    let at_fault = call.is_none_or(|call| call.join_errno == errno);
    let refusal = match (errno, target) {
        (EPERM, Some(target)) => not_permitted_to_join(task, target, call),
        (EPERM, None) => Refusal::exact(Reason::Permission),
        (EINVAL, Some(target)) if at_fault && !is_below(target, task.thread_pid().innermost().1) => {
            Refusal::exact(Reason::NotDescendant)
        }
        _ => Refusal::exact(Reason::Other),
    };
    // Another of the namespaces asked for may be the one that was refused.
    let inexact = if call.is_none() && types & CLONE_NEW_OTHERS != 0 { FLAG_INEXACT } else { 0 };
    let refusal = Refusal { inexact, ..refusal };
    // SAFETY: the caller's promise.
    unsafe {
        refuse(writer, Kind::NamespaceJoinFailed, 0, target, task, Via::Setns, errno, refusal, scratch);
    }
}

/// EPERM of a join: where a capability is missing, or that a seccomp filter refused.
#[inline(always)]
fn not_permitted_to_join(task: Task<Probed>, target: PidNamespace<Probed>, call: Option<Call>) -> Refusal {
    let place = task.lacks_admin_to_join(target);
    if place == 0 && call.is_none() && task.has_seccomp_filter() {
        return Refusal::exact(Reason::Seccomp);
    }
    Refusal::limit(Reason::Permission, Limit { place, ..Limit::NONE })
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

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "a record has that many parts, and each call names them all")]
unsafe fn refuse(
    writer: Writer,
    kind: Kind,
    flags: u8,
    ns: Option<PidNamespace<Probed>>,
    task: Task<Probed>,
    via: Via,
    errno: u32,
    refusal: Refusal,
    scratch: *mut RefusalScratch,
) {
    let Refusal { reason, inexact, limit: Limit { place, value, current, cgroup } } = refusal;
    let body =
        RefusalBody { errno, via: via as u32, reason: reason as u32, place, limit: value, current, cgroup };
    // SAFETY: the caller's promise.
    unsafe {
        let (process, other) = (Some(task.group_leader()), None::<Task<Probed>>);
        send_namespaced(writer, kind, flags | inexact, scratch, ns, process, other, body);
    }
}
