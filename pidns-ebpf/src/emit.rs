//! Sends records to the ring buffer, and counts those that were sent and those that were lost.

use aya_ebpf::{
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::bpf_ktime_get_boot_ns,
    maps::PerCpuArray,
};
use pidns_ebpf::abi::{Header, Kind, NamespaceRecord, PIDS_ROOM, ProcessPart, Writer};

use crate::{
    kernel::{Access, Pid, PidNamespace, Task},
    maps::{EVENTS, count},
    pid::Chain,
};

/// Nanoseconds of CLOCK_BOOTTIME.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Scratch memory for a record in a per-CPU map: the fixed part, and room for the PIDs of two processes.
///
/// On the stack it would have to be zeroed first, and would take most of the 512 bytes. A program never interrupts
/// itself on a CPU, but another program can interrupt it, so each program has its own scratch memory. (The two programs
/// on one tracepoint share theirs: both run with preemption off.)
#[repr(C)]
pub(crate) struct Scratch<R> {
    pub(crate) record: R,
    pub(crate) tail: [u32; 2 * PIDS_ROOM],
}

impl<R> Scratch<R> {
    /// This CPU's scratch memory.
    #[inline(always)]
    pub(crate) fn of(map: &PerCpuArray<Self>) -> Option<*mut Self> {
        map.get_ptr_mut(0)
    }
}

/// The tail after its first `skip` PIDs.
///
/// # Safety
/// `scratch` must be valid.
#[inline(always)]
pub(crate) unsafe fn tail<R>(scratch: *mut Scratch<R>, skip: u32) -> *mut u32 {
    // SAFETY: the caller's promise; skip is at most MAX_PIDS.
    unsafe { (&raw mut (*scratch).tail).cast::<u32>().add(skip as usize) }
}

/// Copies a `T` in words of 8 bytes.
///
/// For more than a few words the compiler calls memcpy, which copies byte by byte in an eBPF object. It does not
/// replace volatile accesses.
///
/// # Safety
/// `from` must be readable, `to` writable, both aligned to 8.
#[inline(always)]
pub(crate) unsafe fn copy<T>(from: *const T, to: *mut T) {
    const { assert!(size_of::<T>() % 8 == 0) };
    let (from, to) = (from.cast::<u64>(), to.cast::<u64>());
    let mut index = 0;
    while index < size_of::<T>() / 8 {
        // SAFETY: the caller's promise.
        unsafe { to.add(index).write_volatile(from.add(index).read_volatile()) };
        index += 1;
    }
}

/// Writes zeros over a `T`, in words of 8 bytes: see [`copy`].
///
/// # Safety
/// `to` must be writable and aligned to 8, and zeros must be a valid `T`.
#[inline(always)]
pub(crate) unsafe fn zero<T>(to: *mut T) {
    const { assert!(size_of::<T>() % 8 == 0) };
    let to = to.cast::<u64>();
    let mut index = 0;
    while index < size_of::<T>() / 8 {
        // SAFETY: the caller's promise.
        unsafe { to.add(index).write_volatile(0) };
        index += 1;
    }
}

/// Writes the header and sends the record with `pids` + `other_pids` entries of its tail. Returns whether it reached
/// the ring buffer.
///
/// # Safety
/// `scratch` must be valid; its record and that many entries of the tail must be filled in.
#[inline(always)]
pub(crate) unsafe fn send<R>(
    writer: Writer,
    kind: Kind,
    flags: u8,
    boot_ns: u64,
    scratch: *mut Scratch<R>,
    pids: u32,
    other_pids: u32,
) -> bool {
    // SAFETY: the caller's promise.
    unsafe { send_with(writer, kind, flags, boot_ns, scratch, (pids, other_pids), 0) }
}

/// Like [`send`], with `more` entries in the tail after the PIDs of the two processes.
///
/// # Safety
/// As for [`send`].
#[inline(always)]
pub(crate) unsafe fn send_with<R>(
    writer: Writer,
    kind: Kind,
    flags: u8,
    boot_ns: u64,
    scratch: *mut Scratch<R>,
    (pids, other_pids): (u32, u32),
    more: u32,
) -> bool {
    let size = size_of::<R>() as u32 + 4 * (pids + other_pids + more);
    // SAFETY: every record begins with a Header.
    unsafe {
        scratch.cast::<Header>().write(Header {
            boot_ns,
            size,
            kind: kind as u8,
            flags,
            pids: pids as u8,
            other_pids: other_pids as u8,
        });
        output(writer, kind, scratch.cast(), size)
    }
}

/// Sends `size` bytes, which start with a header. Returns whether they reached the ring buffer.
///
/// # Safety
/// They must be readable.
#[inline(always)]
pub(crate) unsafe fn output(writer: Writer, kind: Kind, record: *const u8, size: u32) -> bool {
    // SAFETY: the caller's promise.
    let bytes = unsafe { core::slice::from_raw_parts(record, size as usize) };
    // Waking the reader costs more than everything else here. So only rare records wake it. The frequent records of
    // processes do not: the reader polls every 20 ms anyway.
    let wake = match kind {
        Kind::ProcessFork
        | Kind::ProcessExec
        | Kind::ProcessExit
        | Kind::ProcessReap
        | Kind::ProcessSignal => BPF_RB_NO_WAKEUP,
        _ => BPF_RB_FORCE_WAKEUP,
    };
    let sent = EVENTS.output::<[u8]>(bytes, u64::from(wake)).is_ok();
    count(|counters| {
        let rows = if sent { &mut counters.submitted } else { &mut counters.lost };
        rows[writer as usize][kind as usize] += 1;
    });
    sent
}

/// Fills in and sends a record about a namespace.
///
/// # Safety
/// `scratch` must be valid, `ns` must be a PID namespace, and the tasks must lead their thread groups.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "a record has that many parts, and each call names them all")]
pub(crate) unsafe fn send_namespaced<B, N: Access, P: Access, O: Access>(
    writer: Writer,
    kind: Kind,
    flags: u8,
    scratch: *mut Scratch<NamespaceRecord<B>>,
    ns: Option<PidNamespace<N>>,
    process: Option<Task<P>>,
    other: Option<Task<O>>,
    body: B,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let (pids, other_pids) = fill_in(scratch, ns, process, other, body);
        send(writer, kind, flags, now(), scratch, pids, other_pids);
    }
}

/// Fills in a record about a namespace, except its header. Returns how many PIDs the process and the other process
/// have.
///
/// # Safety
/// As for [`send_namespaced`].
#[inline(always)]
pub(crate) unsafe fn fill_in<B, N: Access, P: Access, O: Access>(
    scratch: *mut Scratch<NamespaceRecord<B>>,
    ns: Option<PidNamespace<N>>,
    process: Option<Task<P>>,
    other: Option<Task<O>>,
    body: B,
) -> (u32, u32) {
    // SAFETY: the caller's promise, and the tail has room for two processes.
    unsafe {
        let record = &raw mut (*scratch).record;
        let part = &raw mut (*record).ns;
        match ns {
            Some(ns) => ns.describe(part),
            None => zero(part),
        }
        let process_pid = describe(process, &raw mut (*record).process);
        let other_pid = describe(other, &raw mut (*record).other);
        (&raw mut (*record).body).write(body);
        let pids = number(process_pid, &raw mut (*record).process, tail(scratch, 0));
        let other_pids = number(other_pid, &raw mut (*record).other, tail(scratch, pids));
        (pids, other_pids)
    }
}

/// Describes the task's process except its PIDs and namespace, which [`number`] adds. Writes zeros if there is no task.
///
/// # Safety
/// `part` must be writable, and the task must lead its thread group.
#[inline(always)]
unsafe fn describe<A: Access>(task: Option<Task<A>>, part: *mut ProcessPart) -> Option<Pid<A>> {
    // SAFETY: the caller's promise; zeros are a valid ProcessPart.
    unsafe {
        match task {
            Some(task) => {
                task.describe(part);
                Some(task.thread_pid())
            }
            None => {
                zero(part);
                None
            }
        }
    }
}

/// Writes the PIDs to `pids` and the namespace to `part`. Returns the number of PIDs.
///
/// # Safety
/// `part` must be writable, and `pids` must have room for `MAX_PIDS`.
#[inline(always)]
unsafe fn number<A: Access>(pid: Option<Pid<A>>, part: *mut ProcessPart, pids: *mut u32) -> u32 {
    let Some(pid) = pid else { return 0 };
    // SAFETY: the caller's promise.
    unsafe {
        let Chain { pids: count, ns, .. } = pid.copy_pids(pids);
        (&raw mut (*part).ns_inum).write(ns.inum());
        count
    }
}
