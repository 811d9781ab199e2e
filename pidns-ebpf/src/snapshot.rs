//! The eBPF object for snapshots: one iterator lists the processes, others list the holders of namespaces. It is
//! separate from the live stream's object so that neither waits for the other to load.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
#[expect(dead_code, reason = "shared with the object of the live stream, which uses more of it")]
mod access;
#[cfg(target_arch = "bpf")]
mod holders;
#[cfg(target_arch = "bpf")]
#[expect(dead_code, reason = "shared with the object of the live stream, which uses more of it")]
mod kernel;
#[cfg(target_arch = "bpf")]
#[expect(dead_code, reason = "shared with the object of the live stream, which uses more of it")]
mod layout;
#[cfg(target_arch = "bpf")]
#[expect(dead_code, reason = "shared with the object of the live stream, which uses more of it")]
mod namespace;
#[cfg(target_arch = "bpf")]
#[expect(dead_code, reason = "shared with the object of the live stream, which uses more of it")]
mod pid;

/// As in the object of the live stream.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Offsets that only snapshots need.
#[cfg(target_arch = "bpf")]
mod offsets {
    use pidns_ebpf::abi::symbols::placeholder;

    use crate::layout::FilledIn;

    macro_rules! offsets {
        ($(($symbol:ident, $need:ident, $what:ident, $structure:literal, $field:literal),)*) => { $(
            pub(crate) const $symbol: FilledIn<{ placeholder(stringify!($symbol)) }> = FilledIn;
        )* };
    }
    pidns_ebpf::for_each_snapshot_offset!(offsets);
}

#[cfg(target_arch = "bpf")]
mod iterator {
    use core::ffi::c_void;

    use aya_ebpf::{bindings::seq_file, helpers::generated::bpf_seq_write, macros::map, maps::PerCpuArray};
    use pidns_ebpf::abi::{MAX_PIDS, PIDS_ROOM, snapshot::SnapshotRecord};

    use crate::{
        access::Access as _,
        kernel::{Direct, Probed, Task},
        layout::{
            CGROUP_NODE, Constant as _, KERNFS_NODE_ID, TASK_CGROUPS, TASK_EXIT_STATE, TASK_FLAGS, present,
        },
        offsets::{
            CSS_SET_DEFAULT_CGROUP, SIGNAL_SUBREAPER, TASK_JOBCTL, TASK_LAST_ARRIVAL, TASK_PTRACE, TASK_RAN,
            TASK_RAN_BEFORE, TASK_STATE, TASK_STATE_BEFORE_5_14,
        },
    };

    /// The record and room for its tail.
    #[repr(C)]
    struct Scratch {
        record: SnapshotRecord,
        pids: [u32; PIDS_ROOM],
    }

    /// Only one reader loads this object at a time, so nothing else writes here.
    #[map]
    static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

    /// `struct bpf_iter__task` (kernel/bpf/task_iter.c): `{ struct bpf_iter_meta *meta; struct task_struct *task; }`,
    /// where `meta` starts with the `struct seq_file *`. The task is null once, at the end.
    /// <https://github.com/torvalds/linux/blob/v6.18/kernel/bpf/task_iter.c#L145>
    #[repr(C)]
    struct Context {
        meta: *const *mut seq_file,
        task: *const c_void,
    }

    #[unsafe(no_mangle)]
    #[unsafe(link_section = "iter/task")]
    extern "C" fn process_snapshot(context: *const Context) -> i32 {
        // SAFETY: the verifier checks accesses to the iterator's context.
        let (meta, task) = unsafe {
            ((&raw const (*context).meta).read_volatile(), (&raw const (*context).task).read_volatile())
        };
        if task.is_null() {
            return 0;
        }
        let task = Task::<Direct>::of(task);
        if task.pid() != task.tgid() {
            return 0;
        }
        let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
        // SAFETY: this CPU's map value, and the file that the kernel passed.
        unsafe {
            describe(task, scratch);
            let size = (*scratch).record.size;
            if size as usize <= size_of::<SnapshotRecord>() + 4 * MAX_PIDS {
                // If the buffer is full, the kernel passes the same task again on the next read.
                bpf_seq_write(meta.read_volatile(), scratch.cast(), size);
            }
        }
        0
    }

    /// # Safety
    /// `to` must be writable.
    #[inline(always)]
    unsafe fn describe(task: Task<Direct>, to: *mut Scratch) {
        // SAFETY: `to` is writable per this function's contract; the tail has room for MAX_PIDS.
        unsafe {
            let record = &raw mut (*to).record;
            task.describe(&raw mut (*record).process);
            let signal = task.signal();
            (*record).threads = signal.threads();
            (*record).threads_live = signal.live_threads();
            (*record).task_flags = task.field(TASK_FLAGS);
            (*record).exit_state = task.field(TASK_EXIT_STATE);
            (*record).state = if present(TASK_STATE) {
                task.field(TASK_STATE)
            } else if present(TASK_STATE_BEFORE_5_14) {
                task.field(TASK_STATE_BEFORE_5_14)
            } else {
                0
            };
            (*record).tracer = tracer(task);
            (*record).cgroup_id = cgroup_id(task);
            let chain = task.thread_pid().copy_pids((&raw mut (*to).pids).cast());
            chain.ns.describe(&raw mut (*record).ns);
            (*record).ns_dying = u32::from(chain.ns.is_dead());
            (*record).subreaper = if present(SIGNAL_SUBREAPER) {
                // It is a bit-field before 7.2 and a byte since then.
                u32::from(signal.field::<u8>(SIGNAL_SUBREAPER) & 1)
            } else {
                2
            };
            (*record).jobctl = if present(TASK_JOBCTL) { task.field(TASK_JOBCTL) } else { 0 };
            (*record).reserved = 0;
            (*record).cgroups = if present(TASK_CGROUPS) { task.field(TASK_CGROUPS) } else { 0 };
            let is_timed = present(TASK_LAST_ARRIVAL) && present(TASK_RAN) && present(TASK_RAN_BEFORE);
            ((*record).last_arrival, (*record).last_ran) = if is_timed {
                let (ran, before) = (task.field::<u64>(TASK_RAN), task.field::<u64>(TASK_RAN_BEFORE));
                (task.field(TASK_LAST_ARRIVAL), ran.wrapping_sub(before))
            } else {
                (0, 0)
            };
            (*record).process.ns_inum = (*record).ns.inum;
            (*record).pids = chain.pids;
            (*record).size = size_of::<SnapshotRecord>() as u32 + 4 * chain.pids;
        }
    }

    /// The tracer of this thread; 0: none. As `ptrace_parent()` (include/linux/ptrace.h): `parent` is a thread of the
    /// tracer as long as `ptrace` has flags. Read through a helper: tracers are rare, and a typed pointer costs
    /// verification time.
    #[inline(always)]
    fn tracer(task: Task<Direct>) -> u32 {
        if task.field::<u32>(TASK_PTRACE) == 0 {
            return 0;
        }
        Task::<Probed>::at(task.0).parent().tgid()
    }

    /// The cgroup v2 id, as bpf_get_current_cgroup_id() returns it: the inode number of the cgroup's directory
    /// (`cgroup_id()`, include/linux/cgroup.h). 0 if this kernel lacks the fields. Read through a helper: a typed
    /// pointer costs verification time.
    #[inline(always)]
    fn cgroup_id(task: Task<Direct>) -> u64 {
        if !present(TASK_CGROUPS)
            || !present(CSS_SET_DEFAULT_CGROUP)
            || !present(CGROUP_NODE)
            || !present(KERNFS_NODE_ID)
        {
            return 0;
        }
        // SAFETY: three pointers and an integer; any bytes are a valid value of either.
        unsafe {
            let set: *const u8 = Task::<Probed>::at(task.0).field(TASK_CGROUPS);
            let cgroup: *const u8 = Probed::read(set.add(CSS_SET_DEFAULT_CGROUP.offset()));
            let node: *const u8 = Probed::read(cgroup.add(CGROUP_NODE.offset()));
            Probed::read(node.add(KERNFS_NODE_ID.offset()))
        }
    }
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: `cargo xtask build` refuses an object that can panic.
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
