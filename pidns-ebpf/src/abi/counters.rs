//! What the kernel side counts.

use super::{record::KINDS, vocabulary::vocabulary};

vocabulary! {
    /// The program that wrote a counter: no two programs of which one can interrupt the other write the same slot, so
    /// that no update is lost. (The second program of a moment uses the first one's: both keep other tasks away.)
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
        /// zap_pid_ns_processes, its end.
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
    /// A moment that two programs are about, where the kernel can leave one out: the second does what the first could
    /// not.
    Moment {
        /// sched_process_fork.
        Fork = 0,
        /// sched_process_exec.
        Exec = 1,
        /// sched_process_exit.
        Exit = 2,
    }
}

/// How many there are.
pub const MOMENTS: usize = Moment::ALL.len();

/// One CPU's counters. Totals since load; a reader adds up the CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Records that reached the ring buffer, by [`Writer`] and `Kind`.
    pub submitted: [[u64; KINDS]; WRITERS],
    /// Records that did not, because it was full.
    pub lost: [[u64; KINDS]; WRITERS],
    /// Threads (not processes) created; not filtered.
    pub threads_created: u64,
    /// Threads ended that were not their process's last; not filtered.
    pub threads_ended: u64,
    /// Zombies that found no place in the table of zombies: their reaping stays unseen.
    pub zombies_untracked: u64,
    /// Processes that found no place in the table of thread counts: their peak stays unknown.
    pub peaks_untracked: u64,
    /// Members killed by a teardown that found no place in its table: their exit names no cascade.
    pub cascades_untracked: u64,
    /// Dying namespaces that found no place in their table: their teardown stays unseen.
    pub teardowns_untracked: u64,
    /// Namespaces without a living init that found no place in their table: their destruction stays unseen. By
    /// [`Writer`].
    pub destroys_untracked: [u64; WRITERS],
    /// Creations that a record of kind `Kind::NamespaceInit` reports too, of the records that reached the ring buffer.
    pub creations_with_init: u64,
    /// Likewise of those that did not.
    pub creations_with_init_lost: u64,
    /// Times that a second program did what the first was left out of, by [`Moment`].
    pub taken_over: [u64; MOMENTS],
}

/// What both sides, and the verifier, rely on.
const _: () = assert!(size_of::<Counters>() == ((2 * KINDS + 1) * WRITERS + MOMENTS + 8) * 8);
