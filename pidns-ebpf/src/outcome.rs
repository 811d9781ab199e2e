//! What a call of unshare, setns or clone came to: the records of it, whichever hook saw the call return.
//!
//! sys_exit sees the result and the registers, and reads off the kernel's state why it was refused. The function
//! hooks know in addition which function inside refused: they pass the [`Call`] with it.

use aya_ebpf::{helpers::generated, maps::PerCpuArray};
use pidns_ebpf::abi::{
    CreateBody, FLAG_INEXACT, FLAG_THREAD, JoinBody, Kind, MAX_CHOSEN, MAX_LEVEL, NamespaceRecord, PIDS_ROOM,
    Reason, RefusalBody, Resource, Via, Writer, names::attached::RELEASE_SEEN,
};

use crate::{
    call::Call,
    chosen::{Chosen, Taken, taken},
    emit::{self, Scratch, fill_in, now, send_namespaced, send_with},
    filter,
    kernel::{Access, PidNamespace, Probed, Regs, Task, bounded},
    limits::{ADMIN, CHECKPOINT_RESTORE, Limit, Room},
    maps::{CHILDREN_NS, ChildrenNs, attached, observed_since, without_init},
    syscall::{CLONE_NEW_OTHERS, CLONE_NEWPID, CLONE_NEWUSER, CLONE_THREAD, Fork},
};

const EPERM: u32 = 1;
const EAGAIN: u32 = 11;
const ENOMEM: u32 = 12;
const EEXIST: u32 = 17;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
const ENOSYS: u32 = 38;
/// Above are the kernel's own codes (ERESTARTNOINTR…): the call is repeated, nobody sees it fail.
const MAX_USER_ERRNO: u32 = 511;

pub(crate) type CreateScratch = Scratch<NamespaceRecord<CreateBody>>;
pub(crate) type JoinScratch = Scratch<NamespaceRecord<JoinBody>>;

/// Of a refusal: with room in its tail for PIDs that the caller chose, too.
#[repr(C)]
pub(crate) struct RefusalScratch {
    scratch: Scratch<NamespaceRecord<RefusalBody>>,
    /// Goes on where the tail ends.
    more_tail: [u32; PIDS_ROOM],
    /// The PIDs that the caller chose, until it is known where the tail has them.
    chosen: [u32; PIDS_ROOM],
}

impl RefusalScratch {
    /// This CPU's scratch memory.
    #[inline(always)]
    pub(crate) fn of(map: &PerCpuArray<Self>) -> Option<*mut Self> {
        map.get_ptr_mut(0)
    }
}

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
    /// Of a capability that is missing: whether it is the one that chooses PIDs.
    for_chosen: bool,
    /// Who has the PID that the caller chose.
    holder: Option<Task<Probed>>,
}

impl Refusal {
    #[inline(always)]
    fn exact(reason: Reason) -> Self {
        Self { reason, inexact: 0, limit: Limit::NONE, for_chosen: false, holder: None }
    }

    #[inline(always)]
    fn inexact(reason: Reason) -> Self {
        Self { inexact: FLAG_INEXACT, ..Self::exact(reason) }
    }

    #[inline(always)]
    fn limit(reason: Reason, limit: Limit) -> Self {
        Self { limit, ..Self::exact(reason) }
    }

    /// EPERM of a call with these `CLONE_*` flags, which chose `chosen` PIDs, the first of `ns`. A seccomp filter answers so too,
    /// before the kernel looks at the call; then no function is called that has a hook.
    #[inline(always)]
    fn not_permitted_to_fork(
        task: Task<Probed>,
        flags: u64,
        chosen: u32,
        ns: PidNamespace<Probed>,
        call: Option<Call>,
    ) -> Self {
        // Namespaces are made before PIDs are taken (copy_process, kernel/fork.c).
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
            // Further out it may be missing all the same.
            return if chosen > 1 { Self::inexact(Reason::Seccomp) } else { Self::exact(Reason::Seccomp) };
        }
        Self { for_chosen: true, ..Self::limit(Reason::Permission, Limit { place, ..Limit::NONE }) }
    }

    /// EEXIST of a call that chose PIDs: they are in use. `skip` of them are for namespaces within `ns`.
    ///
    /// # Safety
    /// `scratch` must be valid, and have that many of them.
    #[inline(always)]
    unsafe fn taken(scratch: *mut RefusalScratch, chosen: u32, skip: u32, ns: PidNamespace<Probed>) -> Self {
        // SAFETY: the caller's promise; `scratch` has room for PIDS_ROOM.
        let found = unsafe { taken((&raw const (*scratch).chosen).cast(), chosen, skip, ns) };
        match found {
            Some(Taken { number, ns: place, by, holder }) => {
                let limit = Limit { place, number, detail: by as u32, ..Limit::NONE };
                Self { holder, ..Self::limit(Reason::PidTaken, limit) }
            }
            None => Self::exact(Reason::PidTaken),
        }
    }

    /// ENOSPC of a call with these flags, which is not that namespaces are nested too deep. `is_known`: it is about PID namespaces.
    #[inline(always)]
    fn too_many(task: Task<Probed>, flags: u64, is_known: bool, is_other: bool) -> Self {
        if is_known {
            return match task.room_for(Resource::PidNamespaces) {
                Room::Full(limit) | Room::Unknown(limit) => Self::limit(Reason::CountLimit, limit),
                // Another CPU has made room meanwhile.
                Room::Left => Self::exact(Reason::CountLimit),
            };
        }
        // A user namespace is made first.
        if flags & CLONE_NEWUSER != 0
            && let Room::Full(limit) = task.room_for(Resource::UserNamespaces)
        {
            return Self::limit(Reason::CountLimit, limit);
        }
        if is_other {
            return Self::exact(Reason::Other);
        }
        // Another of the namespaces asked for may be the one at its limit.
        let inexact = if flags & CLONE_NEW_OTHERS != 0 { FLAG_INEXACT } else { 0 };
        match task.room_for(Resource::PidNamespaces) {
            Room::Full(limit) => Self { inexact, ..Self::limit(Reason::CountLimit, limit) },
            Room::Unknown(limit) if inexact == 0 => Self::limit(Reason::CountLimit, limit),
            Room::Unknown(_) => Self::inexact(Reason::CountLimit),
            Room::Left if inexact == 0 => Self::exact(Reason::CountLimit),
            // One more PID namespace would have been allowed.
            Room::Left => Self::exact(Reason::Other),
        }
    }

    /// EPERM of a call with these `CLONE_*` flags.
    #[inline(always)]
    fn not_permitted(task: Task<Probed>, flags: u64, needs_admin: bool, call: Option<Call>) -> Self {
        if call.is_some() || !task.has_seccomp_filter() {
            Self::exact(if needs_admin { Reason::Permission } else { Reason::Other })
        } else if flags & CLONE_NEWUSER != 0 {
            // With a user namespace of its own the caller needs no capability, but the kernel has other reasons to refuse one: a
            // chroot, a user that is not mapped, a switch of the distribution.
            Self::inexact(Reason::Seccomp)
        } else if needs_admin && !task.has_one_of(ADMIN) {
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
    chosen: Chosen,
    scratch: *mut RefusalScratch,
) {
    let own = task.thread_pid().innermost().1;
    let children = task.children_ns();
    if !filter::wants_namespace(children) {
        return;
    }
    // SAFETY: the caller's promise.
    let chosen = unsafe { chosen.copy((&raw mut (*scratch).chosen).cast()) };
    let at_fault = call.is_none_or(|call| call.create_errno == errno);
    let refusal = match errno {
        EPERM => Refusal::not_permitted_to_fork(task, flags, chosen, children, call),
        // The first of them is for the namespace that is to be made.
        // SAFETY: the caller's promise, and that many were copied.
        EEXIST if chosen != 0 => unsafe { Refusal::taken(scratch, chosen, 1, children) },
        ENOSYS if call.is_none() && task.has_seccomp_filter() => Refusal::exact(Reason::Seccomp),
        ENOMEM => Refusal::exact(Reason::NoMemory),
        ENOSPC if at_fault && children.level() >= MAX_LEVEL => Refusal::exact(Reason::DepthLimit),
        ENOSPC => Refusal::too_many(task, flags, call.is_some() && at_fault, !at_fault),
        EINVAL if at_fault && own.address() != children.address() => Refusal::exact(if has_unshared(task) {
            Reason::AlreadyUnshared
        } else {
            Reason::ChildrenElsewhere
        }),
        _ => Refusal::exact(Reason::Other),
    };
    // SAFETY: the caller's promise.
    unsafe {
        refuse(writer, Kind::NamespaceCreateFailed, 0, None, task, via, errno, refusal, chosen, scratch);
    }
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
    chosen: Chosen,
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
    let Fork { via, flags, set_tid: _ } = fork;
    // SAFETY: the caller's promise.
    let chosen = unsafe { chosen.copy((&raw mut (*scratch).chosen).cast()) };
    let may_be_pid = call.is_none_or(|call| call.pid_errno == errno);
    let is_thread = flags & CLONE_THREAD != 0;
    let refusal = match errno {
        ENOMEM if may_be_pid && children.is_dead() => Refusal::exact(Reason::NamespaceDead),
        ENOMEM => Refusal::exact(Reason::NoMemory),
        EAGAIN => over_limit(task, children, call),
        EPERM => Refusal::not_permitted_to_fork(task, flags, chosen, children, call),
        // SAFETY: the caller's promise, and that many were copied.
        EEXIST if chosen != 0 => unsafe { Refusal::taken(scratch, chosen, 0, children) },
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
        let ns = Some(children);
        refuse(writer, Kind::ForkFailed, thread, ns, task, via, errno, refusal, chosen, scratch);
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
    /// This one, or the file of a namespace of another type, where not that type alone was asked for.
    WrongType(Option<PidNamespace<Probed>>),
    /// This one.
    Known(PidNamespace<Probed>),
    /// One that the call named through a pidfd, or a file that is no namespace.
    Unknown,
}

impl Target {
    /// Reads the call from the registers of its caller. A namespace's file is joined by its own type, or by 0 (setns,
    /// kernel/nsproxy.c).
    #[inline(always)]
    pub(crate) fn of<A: Access>(task: Task<Probed>, regs: Regs<A>) -> Self {
        let types = regs.argument1();
        match task.namespace_file(regs.argument0() as u32) {
            // The file of a namespace, of this type or another.
            Some(common) => match common.pid_namespace() {
                Some(ns) if types == 0 || types == CLONE_NEWPID => Self::Known(ns),
                Some(ns) => Self::WrongType(Some(ns)),
                None if types & CLONE_NEWPID != 0 => Self::WrongType(None),
                None => Self::Other,
            },
            // A pidfd, or no namespace at all: the types asked for tell.
            None if types & CLONE_NEWPID != 0 => Self::Unknown,
            None => Self::Other,
        }
    }

    /// The namespace, where it is known.
    #[inline(always)]
    fn ns(&self) -> Option<PidNamespace<Probed>> {
        match *self {
            Self::Known(ns) => Some(ns),
            Self::WrongType(ns) => ns,
            Self::Other | Self::Unknown => None,
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
    target: Target,
    types: u64,
    errno: u32,
    call: Option<Call>,
    scratch: *mut RefusalScratch,
) {
    let is_wrong_type = matches!(target, Target::WrongType(_));
    let target = target.ns();
    if !filter::wants_namespace(target.unwrap_or_else(|| task.children_ns())) {
        return;
    }
    let at_fault = call.is_none_or(|call| call.join_errno == errno);
    let refusal = match (errno, target) {
        (EINVAL, _) if is_wrong_type => Refusal::exact(Reason::WrongType),
        (EPERM, Some(target)) => not_permitted_to_join(task, target, call),
        (EPERM, None) => Refusal::exact(Reason::Permission),
        (EINVAL, Some(target)) if at_fault && !is_below(target, task.thread_pid().innermost().1) => {
            Refusal::exact(Reason::NotDescendant)
        }
        _ => Refusal::exact(Reason::Other),
    };
    // Another of the namespaces asked for may be the one that was refused.
    let may_be_another = call.is_none() && types & CLONE_NEW_OTHERS != 0 && !is_wrong_type;
    let refusal = Refusal { inexact: if may_be_another { FLAG_INEXACT } else { 0 }, ..refusal };
    // SAFETY: the caller's promise.
    unsafe {
        let via = Via::Setns;
        refuse(writer, Kind::NamespaceJoinFailed, 0, target, task, via, errno, refusal, 0, scratch);
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
    chosen: u32,
    scratch: *mut RefusalScratch,
) {
    let Refusal { reason, inexact, limit, for_chosen, holder } = refusal;
    let Limit { place, value, current, cgroup, detail, number } = limit;
    let chosen = bounded(u64::from(chosen).min(MAX_CHOSEN as u64)) as u32;
    let body = RefusalBody {
        errno,
        via: via as u32,
        reason: reason as u32,
        place,
        limit: value,
        current,
        cgroup,
        detail,
        number,
        chosen,
        for_chosen: for_chosen.into(),
    };
    // SAFETY: the caller's promise; the tail and what goes on behind it have room for three lists.
    unsafe {
        let list = (&raw const (*scratch).chosen).cast();
        let scratch: *mut Scratch<NamespaceRecord<RefusalBody>> = scratch.cast();
        let (pids, mut other_pids) = fill_in(scratch, ns, Some(task.group_leader()), holder, body);
        let other = &raw mut (*scratch).record.other;
        if other_pids != 0 && emit::tail(scratch, pids).read() != (*other).pid {
            // It has lost its PIDs just now.
            emit::zero(other);
            other_pids = 0;
        }
        if chosen != 0 {
            let to = emit::tail(scratch, pids + other_pids);
            generated::bpf_probe_read_kernel(to.cast(), 4 * chosen, list);
        }
        send_with(writer, kind, flags | inexact, now(), scratch, (pids, other_pids), chosen);
    }
}
