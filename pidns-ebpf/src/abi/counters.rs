//! Counters that the eBPF programs keep.

use super::{kinds::KINDS, vocabulary::vocabulary};

vocabulary! {
    /// Which program wrote a counter. Programs that can interrupt each other have different slots, so no update is
    /// lost. The second program of a [`DoubleHook`] shares the first one's slot: both run with preemption off.
    Writer {
        /// sched_process_fork.
        Fork = 0,
        /// sched_process_exec.
        Exec = 1,
        /// sched_process_exit, whichever variant is loaded.
        Exit = 2,
        /// sched_process_free.
        Free = 3,
        /// signal_generate.
        Signal = 4,
        /// sys_exit.
        Syscall = 5,
        /// kernel_clone.
        Clone = 6,
        /// ksys_unshare.
        Unshare = 7,
        /// __x64_sys_setns.
        Setns = 8,
        /// The return of zap_pid_ns_processes.
        Zap = 9,
        /// release_task.
        Release = 10,
        /// proc_free_inum.
        Destroy = 11,
    }
}

/// Number of writers: the outer dimension of the tables in [`Counters`].
pub const WRITERS: usize = Writer::ALL.len();

vocabulary! {
    /// A tracepoint with two programs. The kernel skips a program that is already running on this CPU; the second then
    /// does its work.
    DoubleHook {
        /// sched_process_fork.
        Fork = 0,
        /// sched_process_exec.
        Exec = 1,
        /// sched_process_exit.
        Exit = 2,
    }
}

/// Number of tracepoints with two programs.
pub const DOUBLE_HOOKS: usize = DoubleHook::ALL.len();

/// One CPU's counters: totals since load. A reader adds up the CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Records that reached the ring buffer, by [`Writer`] and `Kind`.
    pub submitted: [[u64; KINDS]; WRITERS],
    /// Records dropped because the ring buffer was full, by [`Writer`] and `Kind`.
    pub lost: [[u64; KINDS]; WRITERS],
    /// Threads (not processes) created; not filtered.
    pub threads_created: u64,
    /// Threads ended, without the last thread of each process; not filtered.
    pub threads_ended: u64,
    /// Zombies not tracked because their PID is beyond the table; their reaping is not reported.
    pub zombies_untracked: u64,
    /// Processes whose peak number of threads is not tracked because the map was full; it is unknown.
    pub peaks_untracked: u64,
    /// Members killed by a teardown but not tracked because the map was full; their exit does not name the teardown.
    pub cascades_untracked: u64,
    /// Dying namespaces not tracked because their map was full; their teardown is not reported.
    pub teardowns_untracked: u64,
    /// Namespaces without a living init that are not tracked because their map was full; their destruction is not
    /// reported. By [`Writer`].
    pub destroys_untracked: [u64; WRITERS],
    /// Submitted `NamespaceInit` records that also report the creation of their namespace.
    pub creations_with_init: u64,
    /// The same for lost records.
    pub creations_with_init_lost: u64,
    /// How often the second program ran because the kernel skipped the first, by [`DoubleHook`].
    pub second_runs: [u64; DOUBLE_HOOKS],
}

/// Both sides and the verifier rely on this size.
const _: () = assert!(size_of::<Counters>() == ((2 * KINDS + 1) * WRITERS + DOUBLE_HOOKS + 8) * 8);
