//! Names of the maps and programs of the object, as both sides use them.

/// The ring buffer that carries the records.
pub const MAP_EVENTS: &str = "EVENTS";
/// The per-CPU [`super::Counters`], one element.
pub const MAP_COUNTERS: &str = "COUNTERS";
/// Inode numbers selected by `FILTER_NS`, mapped to the namespace's identity (`u32` to `u64`; 0 until a program first
/// sees the namespace).
pub const MAP_FILTER_NS: &str = "FILTER_NS_INUMS";
/// Set of thread group ids (`u32` to `u8`) that `FILTER_PIDS` selects.
pub const MAP_FILTER_PIDS: &str = "FILTER_PID_SET";
/// Most entries of a filter map.
pub const FILTER_ENTRIES: u32 = 1024;

/// Zombies: [`super::ProcessKey`] to [`super::Zombie`].
pub const MAP_ZOMBIES: &str = "ZOMBIES";
/// Peak thread count by process.
pub const MAP_PEAK_THREADS: &str = "PEAK_THREADS";
/// Dying namespaces: their init's thread group id (`u32`) to [`super::Dying`].
pub const MAP_DYING: &str = "DYING";

/// One `u64`: CLOCK_BOOTTIME, nanoseconds, when the last hook was attached; 0 until then. Earlier processes have an
/// unknown history.
pub const MAP_OBSERVED_SINCE: &str = "OBSERVED_SINCE";

/// One `u32`: [`attached`], which hooks are in place. Written while they are being attached, as it is known only then.
pub const MAP_ATTACHED: &str = "ATTACHED";

/// Bits of [`MAP_ATTACHED`].
pub mod attached {
    /// Some hook reports unshare(2) when it happens.
    pub const UNSHARE_SEEN: u32 = 1 << 0;
    /// Some hook reports setns(2) when it happens.
    pub const SETNS_SEEN: u32 = 1 << 1;
    /// unshare(2) and the clone family are reported by function hooks, not by sys_exit.
    pub const CREATION_BY_FUNCTION: u32 = 1 << 2;
    /// setns(2) is reported by a function hook, not by sys_exit.
    pub const SETNS_BY_FUNCTION: u32 = 1 << 3;
    /// The release of a namespace's last reference is seen.
    pub const RELEASE_SEEN: u32 = 1 << 4;
    /// Reaps and finished teardowns are reported by function hooks, not by sched_process_free.
    pub const ENDS_BY_FUNCTION: u32 = 1 << 5;
}

/// Tasks whose first program has run, for the second program to check. [`DONE_ENTRIES`] entries; one entry if no second
/// programs are loaded.
pub const MAP_DONE: &str = "DONE";
/// 2^16 tasks, with room for four tracepoints each.
pub const DONE_ENTRIES: u32 = 1 << 18;

/// Tables of [`super::namespace_counters::CounterSlot`], one a CPU, that user space maps into its memory.
pub const MAP_NAMESPACE_COUNTERS: &str = "NS_COUNTERS";
/// Per CPU: [`super::namespace_counters::NamespaceId`] to [`super::namespace_counters::NamespaceCounters`], for
/// namespaces that have no slot because the table was full.
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
/// Follows [`PROGRAM_FORK`] if the kernel can skip that.
pub const PROGRAM_FORK_AGAIN: &str = "again_process_fork";
/// Follows [`PROGRAM_EXEC`] if the kernel can skip that.
pub const PROGRAM_EXEC_AGAIN: &str = "again_process_exec";
/// Follows [`PROGRAM_EXIT_GROUP_DEAD`] if the kernel can skip that.
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

/// Program on iter/task of the snapshot's object: the processes.
pub const PROGRAM_SNAPSHOT: &str = "process_snapshot";
/// Program on iter/task of the same object: pid_for_children, and the root and mount namespace of processes.
pub const PROGRAM_TASK_TIES: &str = "task_ties";
/// Program on iter/task_file of the same object: open namespace files.
pub const PROGRAM_FILE_TIES: &str = "file_ties";
