//! Which frequent records user space wants, by kind, level, namespace and process.

use pidns_ebpf::abi::{Kind, MAX_LEVEL};

use crate::{
    kernel::{Access, Pid, PidNamespace, Probed},
    layout::{Constant as _, EVENT_MASK, FILTER_NS, FILTER_PIDS, LEVEL_MASK},
    maps::{FILTER_NS_INUMS, FILTER_PID_SET},
};

/// Whether user space wants records of this kind.
#[inline(always)]
pub(crate) fn wants(kind: Kind) -> bool {
    EVENT_MASK.load() & (1 << kind as u32) != 0
}

#[inline(always)]
pub(crate) fn wants_level(level: u32) -> bool {
    LEVEL_MASK.load() & (1 << (level & 63)) != 0
}

/// Whether user space wants the process with this thread group id, or the `other` one (its parent or sender).
#[inline(always)]
pub(crate) fn wants_process(tgid: u32, other: u32) -> bool {
    !FILTER_PIDS.is_on()
        || FILTER_PID_SET.get_ptr(&tgid).is_some()
        || FILTER_PID_SET.get_ptr(&other).is_some()
}

/// Whether user space wants the process's namespace, or one above it.
#[inline(always)]
pub(crate) fn wants_member<A: Access>(pid: Pid<A>) -> bool {
    !FILTER_NS.is_on() || selects(pid.innermost().1.address(), 1) != 0
}

/// Whether user space wants this namespace, or one above it.
#[inline(always)]
pub(crate) fn wants_namespace<A: Access>(ns: PidNamespace<A>) -> bool {
    !FILTER_NS.is_on() || selects(ns.address(), 0) != 0
}

/// Returns 1 if `FILTER_NS_INUMS` has the namespace at this address, or one above it, else 0. `has_members`: 1 if the
/// namespace has processes, 0 if it may have none.
///
/// It is a separate function in the object. If it were inlined, each number of steps would be a path of its own, which
/// verifiers up to 6.1 follow to the end of the program.
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

/// Whether this is the selected namespace, and not a later one with the same inode number. The first namespace that a
/// program sees with this number is the selected one: the program stores its identity in the map.
#[inline(always)]
fn is_the_one(ns: PidNamespace<Probed>, has_members: bool, identity: *mut u64) -> bool {
    let own = ns.identity(has_members);
    // SAFETY: a map value. If several tasks write it for the first time, all write the same identity.
    unsafe {
        if *identity == 0 {
            *identity = own;
        }
        *identity == own || (own == 0 && (*identity == 0 || ns.is_dead()))
    }
}
