//! Reports successful calls of unshare and setns, for every hook that sees them return. [`crate::refusal`] reports
//! refused ones.

use pidns_ebpf::abi::{
    CreateBody, JoinBody, Kind, NamespaceRecord, Via, Writer, names::attached::RELEASE_SEEN,
};

use crate::{
    emit::{Scratch, send_namespaced},
    filter,
    kernel::{Access, PidNamespace, Probed, Regs, Task},
    maps::{CHILDREN_NS, ChildrenNs, attached, observed_since, without_init},
    syscall::CLONE_NEWPID,
};

/// Larger numbers are internal codes of the kernel (ERESTARTNOINTR…): it repeats the call, and the caller sees no
/// error.
const MAX_USER_ERRNO: u32 = 511;

pub(crate) type CreateScratch = Scratch<NamespaceRecord<CreateBody>>;
pub(crate) type JoinScratch = Scratch<NamespaceRecord<JoinBody>>;

/// The errno of a call's result; 0: success. `None` if the caller, `task`, does not see the result: the kernel repeats
/// the call, or the caller is being killed, which interrupts a fork with various codes.
#[inline(always)]
pub(crate) fn errno(task: Task<Probed>, result: i64) -> Option<u32> {
    if result >= 0 {
        return Some(0);
    }
    let errno = -result as u32;
    (errno <= MAX_USER_ERRNO && !task.is_being_killed()).then_some(errno)
}

/// Reports that unshare(CLONE_NEWPID) succeeded.
///
/// # Safety
/// `scratch` must be valid, and `task` must be the running task.
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

/// Stores that the thread's children go to `inum` from now on. Returns where they went before; 0: unknown.
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

/// Whether a hook saw the thread create the namespace that its children go to. If not, the thread may have joined it.
#[inline(always)]
pub(crate) fn has_unshared(task: Task<Probed>) -> bool {
    // SAFETY: a map value, copied at once.
    unsafe { CHILDREN_NS.get(&task.pid()) }
        .copied()
        .is_some_and(|known| known.unshared != 0 && known.start_boot_ns == task.start_boottime())
}

/// The target of setns(2), as far as PID namespaces are concerned.
pub(crate) enum Target {
    /// The call is not about a PID namespace.
    Other,
    /// The file is a namespace, but its type is not the requested one: this PID namespace, although other types were
    /// requested, or (`None`) a namespace of another type, although a PID namespace was requested.
    WrongType(Option<PidNamespace<Probed>>),
    /// This PID namespace.
    Known(PidNamespace<Probed>),
    /// A PID namespace was requested, but the file is a pidfd or something else that is no namespace.
    Unknown,
}

impl Target {
    /// Reads the target from the caller's registers. The requested type must be the type of the namespace's file, or 0
    /// (setns, kernel/nsproxy.c).
    #[inline(always)]
    pub(crate) fn of<A: Access>(task: Task<Probed>, regs: Regs<A>) -> Self {
        let types = regs.argument1();
        match task.namespace_file(regs.argument0() as u32) {
            // The file is a namespace of any type.
            Some(common) => match common.pid_namespace() {
                Some(ns) if types == 0 || types == CLONE_NEWPID => Self::Known(ns),
                Some(ns) => Self::WrongType(Some(ns)),
                None if types & CLONE_NEWPID != 0 => Self::WrongType(None),
                None => Self::Other,
            },
            // The file is a pidfd or no namespace at all: the requested types decide.
            None if types & CLONE_NEWPID != 0 => Self::Unknown,
            None => Self::Other,
        }
    }

    /// The PID namespace, if it is known.
    #[inline(always)]
    pub(crate) fn ns(&self) -> Option<PidNamespace<Probed>> {
        match *self {
            Self::Known(ns) => Some(ns),
            Self::WrongType(ns) => ns,
            Self::Other | Self::Unknown => None,
        }
    }
}

/// Reports that setns(2) into a PID namespace succeeded.
///
/// # Safety
/// `scratch` must be valid, and `task` must be the running task.
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
