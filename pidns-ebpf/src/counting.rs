//! Counts forks, execs and ends of processes by namespace, where no record of them is sent: decided before a task is described
//! or a PID is copied. The tables are those of [`pidns_ebpf::abi::namespace_counters`].

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_NOEXIST},
    helpers::bpf_get_smp_processor_id,
    macros::map,
    maps::{Array, PerCpuHashMap},
};
use pidns_ebpf::abi::namespace_counters::{
    CPU_SLOTS, Counted, CounterSlot, ExitReason, FIRST_SLOT, HOST_SLOT, MORE_NAMESPACES, NamespaceCounters,
    NamespaceId, PROBES, SLOTS, TOGETHER_SLOT, first_slot,
};

use crate::{
    emit::zero,
    kernel::{Access, Direct, Pid, PidNamespace, Probed, Task, bounded},
    layout::{NS_COMMON_ID, present},
    maps::OOM_VICTIMS,
};

/// One table after the other, by CPU. User space sets its size.
#[map]
static NS_COUNTERS: Array<CounterSlot> = Array::with_max_entries(CPU_SLOTS, BPF_F_MMAPABLE);

#[map]
static NS_COUNTERS_MORE: PerCpuHashMap<NamespaceId, NamespaceCounters> =
    PerCpuHashMap::with_max_entries(MORE_NAMESPACES, BPF_F_NO_PREALLOC);

const SIGKILL: u32 = 9;

/// A process or thread was forked.
#[inline(always)]
pub(crate) fn forked(child: Task<Direct>, level: u32) {
    let what = if child.pid() == child.tgid() { Counted::Forks } else { Counted::ThreadsCreated } as u32;
    if level == 0 {
        add_to_host(what);
        return;
    }
    // Before it first runs, the namespace for a child's own children is the one that it was forked into: copy_process
    // allocates its PID there (kernel/fork.c).
    let ns = child.children_ns();
    if !ns.is_null() {
        add(ns, what);
    }
}

/// A process has executed a program.
#[inline(always)]
pub(crate) fn execed(pid: Pid<Direct>) {
    if pid.level() == 0 {
        add_to_host(Counted::Execs as u32);
    } else {
        add_to_own(pid, Counted::Execs as u32);
    }
}

/// A thread ends, and with it its process where it is the last. Whether that is a namespace's init, of which more is to be
/// reported.
#[inline(always)]
pub(crate) fn exited(task: Task<Direct>, group_dead: bool) -> bool {
    let leader = task.group_leader();
    let pid = leader.thread_pid();
    let what = if group_dead {
        Counted::Exits as u32 + reason(task, leader) as u32
    } else {
        Counted::ThreadsEnded as u32
    };
    if pid.level() == 0 {
        add_to_host(what);
        return false;
    }
    add_to_own(pid, what);
    group_dead && pid.innermost_number() == 1
}

/// How the process that `task` is the last thread of ends.
#[inline(always)]
fn reason(task: Task<Direct>, leader: Task<Direct>) -> ExitReason {
    let status = leader.wait_status(task.signal());
    match status & 0x7f {
        0 if status & 0xff00 == 0 => ExitReason::Ok,
        0 => ExitReason::Error,
        SIGKILL => killed(leader),
        _ => ExitReason::Signal,
    }
}

#[inline(always)]
fn killed(leader: Task<Direct>) -> ExitReason {
    let key = leader.key();
    let (number, ns) = leader.thread_pid().innermost();
    if OOM_VICTIMS.get_ptr(&key).is_some() {
        // An init's is taken when its end is reported.
        if number != 1 || leader.thread_pid().level() == 0 {
            let _ = OOM_VICTIMS.remove(&key);
        }
        ExitReason::OomKill
    } else if is_dying(ns.address()) != 0 {
        ExitReason::Cascade
    } else {
        ExitReason::Signal
    }
}

/// Whether the init of this namespace, or of one above it, has died: 1 or 0. A function of its own in the object, as
/// `filter::selects` is.
#[inline(never)]
fn is_dying(address: u64) -> u64 {
    let mut ns = PidNamespace::<Probed>::at(address as *const u8);
    for _ in 0..pidns_ebpf::abi::MAX_LEVEL {
        // The initial one cannot die.
        if ns.is_null() || ns.level() == 0 {
            return 0;
        }
        if ns.is_dead() {
            return 1;
        }
        ns = ns.parent();
    }
    0
}

/// Adds one to what is counted of a process's own namespace, below the initial one.
#[inline(always)]
fn add_to_own(pid: Pid<Direct>, what: u32) {
    match pid.level() {
        1 => add(pid.namespace_at(1), what),
        2 => add(pid.namespace_at(2), what),
        _ => add(pid.innermost().1, what),
    }
}

#[inline(always)]
fn slot(number: u32) -> Option<*mut CounterSlot> {
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    NS_COUNTERS.get_ptr_mut(cpu * CPU_SLOTS + number)
}

#[inline(always)]
fn add_to_host(what: u32) {
    if let Some(slot) = slot(HOST_SLOT) {
        // SAFETY: a map value of this CPU.
        unsafe { increment(&raw mut (*slot).counters, what) };
    }
}

/// Adds one in this CPU's slot of the namespace, or in one that is free.
#[inline(always)]
fn add<A: Access>(ns: PidNamespace<A>, what: u32) {
    let id = NamespaceId::new(ns.identity(true), 0).id;
    // Where the kernel numbers namespaces that alone distinguishes them, and nothing else of them need be in the cache.
    let is_unique = present(NS_COMMON_ID);
    let first = first_slot(id);
    for probe in 0..PROBES {
        let Some(slot) = slot(FIRST_SLOT + ((first + probe) & (SLOTS - 1))) else { return };
        // SAFETY: a map value of this CPU. No other program writes it meanwhile; user space writes only those of namespaces
        // that are gone.
        unsafe {
            let key = &raw mut (*slot).key;
            let taken = (&raw const (*key).id).read_volatile();
            if taken == 0 {
                zero(&raw mut (*slot).counters);
                (&raw mut (*key).inum).write_volatile(ns.inum());
                (&raw mut (*key).id).write_volatile(id);
            } else if taken != id || !(is_unique || (*key).inum == ns.inum()) {
                continue;
            }
            increment(&raw mut (*slot).counters, what);
        }
        return;
    }
    add_more(id, u64::from(ns.inum()), u64::from(what));
}

/// Adds one in the hash map, or where that is full to what is counted together. A function of its own in the object: it is
/// needed seldom.
#[inline(never)]
fn add_more(id: u64, inum: u64, what: u64) -> u64 {
    let key = NamespaceId { id, inum: inum as u32, reserved: 0 };
    let found = NS_COUNTERS_MORE.get_ptr_mut(&key).or_else(|| {
        // Another CPU may have been faster.
        let _ = NS_COUNTERS_MORE.insert(&key, &NamespaceCounters::default(), u64::from(BPF_NOEXIST));
        NS_COUNTERS_MORE.get_ptr_mut(&key)
    });
    // SAFETY: a map value of this CPU.
    unsafe {
        match found {
            Some(counters) => increment(counters, what as u32),
            None => {
                if let Some(slot) = slot(TOGETHER_SLOT) {
                    increment(&raw mut (*slot).counters, what as u32);
                }
            }
        }
    }
    0
}

/// # Safety
/// `counters` must be a map value of this CPU.
#[inline(always)]
unsafe fn increment(counters: *mut NamespaceCounters, what: u32) {
    const LAST: u32 = pidns_ebpf::abi::namespace_counters::COUNTED as u32 - 1;
    let index = bounded(u64::from(what)) as usize;
    // For the verifier, which has to see the bound of what is added to a pointer.
    if index > LAST as usize {
        return;
    }
    // SAFETY: the caller's promise, and the index is one of the array's.
    unsafe {
        let counter = counters.cast::<u64>().add(index);
        counter.write_volatile(counter.read_volatile() + 1);
    }
}
