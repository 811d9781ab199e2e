//! Names of the maps and programs of the object, as both sides use them.

/// The ring buffer that carries the records.
pub const MAP_EVENTS: &str = "EVENTS";
/// The per-CPU [`super::Counters`], one element.
pub const MAP_COUNTERS: &str = "COUNTERS";
/// Namespace inode numbers that `FILTER_NS` selects (`u32` to `u64`: 0, until the kernel side has met it).
pub const MAP_FILTER_NS: &str = "FILTER_NS_INUMS";
/// Set of thread group ids (`u32` to `u8`) that `FILTER_PIDS` selects.
pub const MAP_FILTER_PIDS: &str = "FILTER_PID_SET";
/// Most entries of a filter map.
pub const FILTER_ENTRIES: u32 = 1024;

/// Zombies: [`super::ProcessKey`] to [`super::Zombie`].
pub const MAP_ZOMBIES: &str = "ZOMBIES";
/// Dying namespaces: their init's thread group id (`u32`) to [`super::Dying`].
pub const MAP_DYING: &str = "DYING";

/// One `u64`: CLOCK_BOOTTIME, nanoseconds, when the last hook was in place, 0 until then. What started before has a
/// history that was not observed.
pub const MAP_OBSERVED_SINCE: &str = "OBSERVED_SINCE";

/// aya-log's ring buffer.
pub const MAP_LOG: &str = "AYA_LOGS";

/// Program on tp_btf/sched_process_fork.
pub const PROGRAM_FORK: &str = "process_fork";
/// Program on tp_btf/sched_process_exec.
pub const PROGRAM_EXEC: &str = "process_exec";
/// Program on tp_btf/sched_process_exit where that has `group_dead` (6.16 and later).
pub const PROGRAM_EXIT_GROUP_DEAD: &str = "process_exit_group_dead";
/// Program on tp_btf/sched_process_exit where it has not.
pub const PROGRAM_EXIT_LIVE: &str = "process_exit_live";
/// Program on tp_btf/sched_process_free.
pub const PROGRAM_FREE: &str = "process_free";
/// Program on tp_btf/signal_generate.
pub const PROGRAM_SIGNAL: &str = "signal_generate";
/// Program on tp_btf/sys_exit.
pub const PROGRAM_SYSCALL: &str = "syscall_exit";
