//! What of the high-rate records user space wants: by kind, level, namespace, process.

use pidns_ebpf::abi::{Kind, MAX_LEVEL};

use crate::{
    kernel::{Access, Pid, PidNamespace, Probed},
    layout::{Constant as _, EVENT_MASK, FILTER_NS, FILTER_PIDS, LEVEL_MASK},
    maps::{FILTER_NS_INUMS, FILTER_PID_SET},
};

/// Whether records of this kind are wanted at all.
#[inline(always)]
pub(crate) fn wants(kind: Kind) -> bool {
    EVENT_MASK.load() & (1 << kind as u32) != 0
}

#[inline(always)]
pub(crate) fn wants_level(level: u32) -> bool {
    LEVEL_MASK.load() & (1 << (level & 63)) != 0
}

/// Whether the process with this thread group id, or its `other` (parent, sender), is wanted.
#[inline(always)]
pub(crate) fn wants_process(tgid: u32, other: u32) -> bool {
    !FILTER_PIDS.is_on()
        || FILTER_PID_SET.get_ptr(&tgid).is_some()
        || FILTER_PID_SET.get_ptr(&other).is_some()
}

/// Whether a wanted namespace is among the process's own and its ancestors.
#[inline(always)]
pub(crate) fn wants_member<A: Access>(pid: Pid<A>) -> bool {
    !FILTER_NS.is_on() || selects(pid.innermost().1.address(), 1) != 0
}

/// Whether a wanted namespace is this one or above it.
#[inline(always)]
pub(crate) fn wants_namespace<A: Access>(ns: PidNamespace<A>) -> bool {
    !FILTER_NS.is_on() || selects(ns.address(), 0) != 0
}

/// Whether one was found from the namespace at this address upwards, which has members (1) or may have none (0): 1 or 0.
///
/// A function of its own in the object: inlined, each number of steps would be a path of its own to the verifier, which
/// up to 6.1 it follows to the program's end.
#[inline(never)]
fn selects(address: u64, has_members: u64) -> u64 {
    let mut ns = PidNamespace::<Probed>::at(address as *const u8);
    for _ in 0..=MAX_LEVEL {
        if ns.is_null() {
            return 0;
        }
        let inum = ns.inum();
        if let Some(identity) = FILTER_NS_INUMS.get_ptr_mut(&inum)
            && is_the_one(ns, has_members != 0, identity)
        {
            return 1;
        }
        ns = ns.parent();
    }
    0
}

/// Whether this is the namespace that was asked for, not a later one that got its number: the first that is met is
/// the one, and leaves its identity.
#[inline(always)]
fn is_the_one(ns: PidNamespace<Probed>, has_members: bool, identity: *mut u64) -> bool {
    let own = ns.identity(has_members);
    // SAFETY: a map value. That of the first meeting is written by the first task; all write the same.
    unsafe {
        if *identity == 0 {
            *identity = own;
        }
        *identity == own || (own == 0 && (*identity == 0 || ns.is_dead()))
    }
}
