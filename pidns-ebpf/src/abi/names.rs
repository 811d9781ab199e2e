//! Names of the eBPF object's maps and programs, for both sides.

/// The ring buffer that carries the records.
pub const MAP_EVENTS: &str = "EVENTS";
/// The per-CPU [`super::Counters`], one element.
pub const MAP_COUNTERS: &str = "COUNTERS";
/// Inode numbers that `FILTER_NS` selects (`u32`), each with the namespace's identity (`u64`): 0 until a program first
/// sees the namespace.
pub const MAP_FILTER_NS: &str = "FILTER_NS_INUMS";
/// Thread group ids that `FILTER_PIDS` selects (`u32`). The value (`u8`) has no meaning.
pub const MAP_FILTER_PIDS: &str = "FILTER_PID_SET";
/// Capacity of each filter map.
pub const FILTER_ENTRIES: u32 = 1024;

/// Pages of notes about processes: a byte per thread group id.
pub const MAP_PROCESS_NOTES: &str = "PROCESS_NOTES";
/// Number of thread group ids in a page.
pub const NOTES_PER_PAGE: u32 = 4096;
/// Peak number of threads of each process: [`super::ProcessKey`] to `u32`.
pub const MAP_PEAK_THREADS: &str = "PEAK_THREADS";
/// Dying namespaces: the init's thread group id (`u32`) to [`super::Dying`].
pub const MAP_DYING: &str = "DYING";

/// One `u64`: when the last hook was attached (CLOCK_BOOTTIME, nanoseconds); 0 until then. If a process started
/// earlier, its history is unknown.
pub const MAP_OBSERVED_SINCE: &str = "OBSERVED_SINCE";

/// One `u32`: which hooks are attached ([`attached`]). User space writes it while it attaches them, because only then
/// it knows which ones the kernel accepts.
pub const MAP_ATTACHED: &str = "ATTACHED";

/// Bits of [`MAP_ATTACHED`].
pub mod attached {
    /// Some hook reports unshare(2) when it happens.
    pub const UNSHARE_SEEN: u32 = 1 << 0;
    /// Some hook reports setns(2) when it happens.
    pub const SETNS_SEEN: u32 = 1 << 1;
    /// Function hooks report unshare(2) and the clone family, so sys_exit does not.
    pub const CREATION_BY_FUNCTION: u32 = 1 << 2;
    /// A function hook reports setns(2), so sys_exit does not.
    pub const SETNS_BY_FUNCTION: u32 = 1 << 3;
    /// A hook sees the release of a namespace's last reference.
    pub const RELEASE_SEEN: u32 = 1 << 4;
    /// Function hooks report reaps and the ends of teardowns, so sched_process_free does not.
    pub const ENDS_BY_FUNCTION: u32 = 1 << 5;
}

/// Tasks whose first program has run. The second program checks it to see whether the kernel skipped the first one.
/// [`DONE_ENTRIES`] entries; one entry if no second programs are loaded.
pub const MAP_DONE: &str = "DONE";
/// Room for 2^16 tasks and four tracepoints each.
pub const DONE_ENTRIES: u32 = 1 << 18;

/// One table of [`super::namespace_counters::CounterSlot`] per CPU. User space maps them into its memory.
pub const MAP_NAMESPACE_COUNTERS: &str = "NS_COUNTERS";
/// Counters of namespaces that have no slot because the table was full, per CPU:
/// [`super::namespace_counters::NamespaceId`] to [`super::namespace_counters::NamespaceCounters`].
pub const MAP_MORE_NAMESPACE_COUNTERS: &str = "NS_COUNTERS_MORE";

/// aya-log's ring buffer.
pub const MAP_LOG: &str = "AYA_LOGS";

/// Program on tp_btf/sched_process_fork.
pub const PROGRAM_FORK: &str = "process_fork";
/// Program on tp_btf/sched_process_exec.
pub const PROGRAM_EXEC: &str = "process_exec";
/// Program on tp_btf/sched_process_exit with `group_dead` (6.16 and later).
pub const PROGRAM_EXIT_GROUP_DEAD: &str = "process_exit_group_dead";
/// Program on tp_btf/sched_process_exit without `group_dead` (before 6.16).
pub const PROGRAM_EXIT_LIVE: &str = "process_exit_live";
/// Program on tp_btf/sched_process_free.
pub const PROGRAM_FREE: &str = "process_free";
/// Program on tp_btf/signal_generate.
pub const PROGRAM_SIGNAL: &str = "signal_generate";
/// Program on tp_btf/sys_exit.
pub const PROGRAM_SYSCALL: &str = "syscall_exit";
/// Runs after [`PROGRAM_FORK`] on kernels that can skip that program.
pub const PROGRAM_FORK_AGAIN: &str = "again_process_fork";
/// Runs after [`PROGRAM_EXEC`] on kernels that can skip that program.
pub const PROGRAM_EXEC_AGAIN: &str = "again_process_exec";
/// Runs after [`PROGRAM_EXIT_GROUP_DEAD`] on kernels that can skip that program.
pub const PROGRAM_EXIT_AGAIN: &str = "again_process_exit";
/// Program on tp_btf/mark_victim.
pub const PROGRAM_VICTIM: &str = "victim_marked";
/// Program on fexit/copy_pid_ns.
pub const PROGRAM_COPY_PID_NS: &str = "namespace_copied";
/// Program on fexit/alloc_pid.
pub const PROGRAM_ALLOC_PID: &str = "pid_allocated";
/// Program on fexit/kernel_clone.
pub const PROGRAM_KERNEL_CLONE: &str = "clone_returned";
/// Program on fexit/ksys_unshare.
pub const PROGRAM_KSYS_UNSHARE: &str = "unshare_returned";
/// Program on fexit/pidns_install.
pub const PROGRAM_PIDNS_INSTALL: &str = "namespace_installed";
/// Program on fexit/__x64_sys_setns.
pub const PROGRAM_SETNS: &str = "setns_returned";
/// Program on fentry/zap_pid_ns_processes.
pub const PROGRAM_ZAP_BEGIN: &str = "zap_begins";
/// Program on fexit/zap_pid_ns_processes.
pub const PROGRAM_ZAP_END: &str = "zap_ends";
/// Program on fentry/release_task.
pub const PROGRAM_RELEASE: &str = "task_released";
/// Program on fentry/proc_free_inum.
pub const PROGRAM_FREE_INUM: &str = "inode_number_freed";
/// Program on fentry/reboot_pid_ns.
pub const PROGRAM_REBOOT: &str = "namespace_reboots";

/// Program on iter/task in the snapshot's object: lists the processes.
pub const PROGRAM_SNAPSHOT: &str = "process_snapshot";
/// Program on iter/task in the same object: lists pid_for_children, and processes' root directories and mount
/// namespaces.
pub const PROGRAM_TASK_HOLDERS: &str = "task_holders";
/// Program on iter/task_file in the same object: lists open namespace files.
pub const PROGRAM_FILE_HOLDERS: &str = "file_holders";
