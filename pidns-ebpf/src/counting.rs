//! Counts forks, execs and exits of processes by namespace, in the mode that sends no records of them. This happens
//! before a hook describes a task or copies a PID. [`pidns_ebpf::abi::namespace_counters`] describes the tables.

use core::{arch::asm, ptr};

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_NOEXIST},
    helpers::bpf_get_smp_processor_id,
    macros::map,
    maps::{Array, PerCpuHashMap},
};
use pidns_ebpf::abi::namespace_counters::{
    CPU_SLOTS, Counted, CounterSlot, ExitReason, FIRST_SLOT, HOST_SLOT, MORE_NAMESPACES, NamespaceCounters,
    NamespaceId, PROBES, SHARED_SLOT, SLOTS, first_slot,
};

use crate::{
    emit::zero,
    kernel::{Access, Direct, PidNamespace, Probed, Task, bounded},
    maps::OOM_VICTIMS,
};

/// The tables of all CPUs, one after the other. User space sets the number of elements.
#[map]
static NS_COUNTERS: Array<CounterSlot> = Array::with_max_entries(CPU_SLOTS, BPF_F_MMAPABLE);

/// Births by the [`first_slot`] of the namespace's address. A global variable needs no map lookup.
static mut NS_BIRTHS: [u64; SLOTS as usize] = [0; SLOTS as usize];

#[map]
static NS_COUNTERS_MORE: PerCpuHashMap<NamespaceId, NamespaceCounters> =
    PerCpuHashMap::with_max_entries(MORE_NAMESPACES, BPF_F_NO_PREALLOC);

const SIGKILL: u32 = 9;

/// Counts a fork of a process or thread. Returns whether the child is the first process of its namespace: then the hook
/// reports more.
#[inline(always)]
pub(crate) fn forked(child: Task<Direct>, level: u32) -> bool {
    let what = if child.pid() == child.tgid() { Counted::Forks } else { Counted::ThreadsCreated } as u32;
    if level == 0 {
        add_to_host(what);
        return false;
    }
    // Before a child first runs, the namespace for its children is the one that it was forked into: copy_process
    // allocates its PID there (kernel/fork.c).
    let ns = child.children_ns();
    if ns.is_null() {
        return false;
    }
    let is_init = child.is_reaper_of(ns);
    if is_init {
        born(ns);
    }
    add(ns, what);
    is_init
}

/// Counts a birth: the namespace gets its first process. Slots that have its address belong to an earlier namespace.
#[inline(always)]
fn born(ns: PidNamespace<Direct>) {
    let births = births(first_slot(lower_half(ns.address())));
    // Other CPUs may increment it at the same time, and core has no atomic addition for this target.
    // SAFETY: the pointer is to an element of the array.
    unsafe {
        asm!("lock *(u64 *)({births} + 0) += {one}", births = in(reg) births, one = in(reg) 1u64);
    }
}

/// Counts a program that a process has executed.
#[inline(always)]
pub(crate) fn execed(task: Task<Direct>) {
    let what = Counted::Execs as u32;
    let (level, ns) = own_namespace(task);
    if level == 0 {
        add_to_host(what);
    } else if ns.is_null() {
        add(task.thread_pid().innermost().1, what);
    } else {
        add(ns, what);
    }
}

/// Counts the end of a thread, or of its process if this is the last thread. Returns whether the hook reports more: a
/// namespace's init has ended, or a member was killed because memory ran out.
#[inline(always)]
pub(crate) fn exited(task: Task<Direct>, group_dead: bool) -> bool {
    let what =
        if group_dead { Counted::Exits as u32 + reason(task) as u32 } else { Counted::ThreadsEnded as u32 };
    // Otherwise the compiler duplicates the following code for each reason.
    let what = bounded(u64::from(what)) as u32;
    let is_oom_kill = what == Counted::Exits as u32 + ExitReason::OomKill as u32;
    let (level, ns) = own_namespace(task);
    if level == 0 {
        add_to_host(what);
        false
    } else if ns.is_null() {
        let (number, ns) = task.group_leader().thread_pid().innermost();
        add(ns, what);
        is_oom_kill || group_dead && number == 1
    } else {
        add(ns, what);
        is_oom_kill || group_dead && ns.is_reaped_by_process_of(task)
    }
}

/// How a process ends; `task` is its last thread.
#[inline(always)]
fn reason(task: Task<Direct>) -> ExitReason {
    let signal = task.signal();
    // As `Task::wait_status`, but the leader is read only if its code counts: this hook runs at each exit.
    let status = if signal.is_group_exit() {
        signal.group_exit_code()
    } else {
        bounded(task.group_leader().exit_code() as u64) as u32
    };
    match status & 0x7f {
        0 if status & 0xff00 == 0 => ExitReason::Ok,
        0 => ExitReason::Error,
        SIGKILL => killed(task.group_leader()),
        _ => ExitReason::Signal,
    }
}

#[inline(always)]
fn killed(leader: Task<Direct>) -> ExitReason {
    let key = leader.key();
    let (_, ns) = leader.thread_pid().innermost();
    if OOM_VICTIMS.get_ptr(&key).is_some() {
        // Below the initial namespace, the exit is reported, and that removes the entry.
        if leader.thread_pid().level() == 0 {
            let _ = OOM_VICTIMS.remove(&key);
        }
        ExitReason::OomKill
    } else if is_dying(ns.address()) != 0 {
        ExitReason::Cascade
    } else {
        ExitReason::Signal
    }
}

/// Returns 1 if the init of this namespace, or of one above it, has died, else 0. It is a separate function in the
/// object, for the same reason as `filter::selects`.
#[inline(never)]
fn is_dying(address: u64) -> u64 {
    let mut ns = PidNamespace::<Probed>::at(address as *const u8);
    for _ in 0..pidns_ebpf::abi::MAX_LEVEL {
        // The initial namespace cannot die.
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

/// The level of a task and its namespace, which is null at level 0 and if it can be found only through the task's PIDs.
///
/// The PIDs are avoided because they are in a cache line that nothing else here reads. If the namespace for children is
/// at the task's level, it is the task's own: unshare and setns lead only to one's own namespace and those below it.
#[inline(always)]
fn own_namespace(task: Task<Direct>) -> (u32, PidNamespace<Direct>) {
    let level = task.thread_pid().level();
    let ns = task.children_ns();
    if level > 0 && !ns.is_null() && ns.level() == level {
        (level, ns)
    } else {
        (level, PidNamespace::at(ptr::null()))
    }
}

#[inline(always)]
fn births(first: u32) -> *mut u64 {
    // SAFETY: the mask keeps the index within the array, and proves it to the verifier.
    unsafe { (&raw mut NS_BIRTHS).cast::<u64>().add((first & (SLOTS - 1)) as usize) }
}

#[inline(always)]
fn slot(number: u32) -> Option<*mut CounterSlot> {
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    NS_COUNTERS.get_ptr_mut(cpu * CPU_SLOTS + number)
}

#[inline(always)]
fn slot_at(first: u32, probe: u32) -> Option<*mut CounterSlot> {
    slot(FIRST_SLOT + ((first + probe) & (SLOTS - 1)))
}

#[inline(always)]
fn add_to_host(what: u32) {
    if let Some(slot) = slot(HOST_SLOT) {
        // SAFETY: a map value of this CPU.
        unsafe { increment(&raw mut (*slot).counters, what) };
    }
}

/// Increments a counter of the namespace on this CPU.
#[inline(always)]
fn add<A: Access>(ns: PidNamespace<A>, what: u32) {
    let first = first_slot(lower_half(ns.address()));
    let Some(slot) = slot(FIRST_SLOT + first) else { return };
    // SAFETY: a slot of this CPU.
    unsafe {
        if is_slot_of(slot, ns.address(), first) {
            increment(&raw mut (*slot).counters, what);
            return;
        }
    }
    add_elsewhere(ns.address(), u64::from(first), u64::from(what));
}

/// Whether the slot belongs to the namespace at this address, and no namespace was born since at an address with this
/// `first`.
///
/// # Safety
/// `slot` must be one of this CPU.
#[inline(always)]
unsafe fn is_slot_of(slot: *const CounterSlot, address: u64, first: u32) -> bool {
    // SAFETY: no other program writes the slot meanwhile. User space writes only slots of namespaces that are gone.
    unsafe {
        (&raw const (*slot).address).read_volatile() == address
            && (&raw const (*slot).births).read_volatile() == births(first).read_volatile()
    }
}

/// Increments a counter of a namespace to which the first slot does not belong, or may not belong. It is a separate
/// function in the object, because most namespaces have their first slot.
#[inline(never)]
fn add_elsewhere(address: u64, first: u64, what: u64) -> u64 {
    let (first, what) = (first as u32 & (SLOTS - 1), what as u32);
    for probe in 1..PROBES {
        let Some(slot) = slot_at(first, probe) else { return 0 };
        // SAFETY: a slot of this CPU.
        unsafe {
            if is_slot_of(slot, address, first) {
                increment(&raw mut (*slot).counters, what);
                return 0;
            }
        }
    }
    let ns = PidNamespace::<Probed>::at(address as *const u8);
    let key = NamespaceId::new(ns.identity(true), ns.inum());
    // SAFETY: an element of the array. The count includes this namespace: its first process was forked earlier.
    let births = unsafe { births(first).read_volatile() };
    for probe in 0..PROBES {
        let Some(slot) = slot_at(first, probe) else { return 0 };
        // SAFETY: a slot of this CPU.
        unsafe {
            let taken = (&raw const (*slot).address).read_volatile();
            if taken == 0 {
                zero(&raw mut (*slot).counters);
                (&raw mut (*slot).key).write_volatile(key);
                (&raw mut (*slot).births).write_volatile(births);
                (&raw mut (*slot).address).write_volatile(address);
            } else if taken != address || (*slot).key.id != key.id || (*slot).key.inum != key.inum {
                continue;
            } else {
                (&raw mut (*slot).births).write_volatile(births);
            }
            increment(&raw mut (*slot).counters, what);
        }
        return 0;
    }
    add_more(key, what);
    0
}

/// The lower half of a pointer. Of the few operations that the verifier allows on a pointer, this one yields a number.
#[inline(always)]
fn lower_half(pointer: u64) -> u64 {
    let half: u64;
    // SAFETY: `w1 = w1` (BPF_ALU | BPF_MOV | BPF_X), which changes only r1.
    unsafe {
        asm!(
            ".byte 0xbc, 0x11, 0, 0",
            ".long 0",
            inlateout("r1") pointer => half,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    half
}

/// Increments a counter in the hash map, or in the shared slot if the hash map is full.
#[inline(always)]
fn add_more(key: NamespaceId, what: u32) {
    let found = NS_COUNTERS_MORE.get_ptr_mut(&key).or_else(|| {
        // This fails if another CPU has inserted it meanwhile.
        let _ = NS_COUNTERS_MORE.insert(&key, &NamespaceCounters::default(), u64::from(BPF_NOEXIST));
        NS_COUNTERS_MORE.get_ptr_mut(&key)
    });
    // SAFETY: a map value of this CPU.
    unsafe {
        match found {
            Some(counters) => increment(counters, what),
            None => {
                if let Some(slot) = slot(SHARED_SLOT) {
                    increment(&raw mut (*slot).counters, what);
                }
            }
        }
    }
}

/// # Safety
/// `counters` must be a map value of this CPU.
#[inline(always)]
unsafe fn increment(counters: *mut NamespaceCounters, what: u32) {
    const LAST: u32 = pidns_ebpf::abi::namespace_counters::COUNTED as u32 - 1;
    let index = bounded(u64::from(what)) as usize;
    // The verifier must see a bound of the number that is added to a pointer.
    if index > LAST as usize {
        return;
    }
    // SAFETY: the caller's promise, and the index is within the array.
    unsafe {
        let counter = counters.cast::<u64>().add(index);
        counter.write_volatile(counter.read_volatile() + 1);
    }
}
