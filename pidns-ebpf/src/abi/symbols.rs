//! The numbers that user space fills in before load: kernel offsets, switches, kfuncs.
//!
//! `for_each_offset` is the only list of offsets. The object turns each row into a constant, and user space turns it
//! into a BTF lookup. The numbers are in the instructions themselves: user space replaces a [`placeholder`] there. A
//! number in a global variable would cost a load, and the numbers of one hook would be in more cache lines than
//! everything else that the hook reads.

/// The placeholder in the object's instructions for the number with this name. As an offset it is outside every kernel
/// structure, so the verifier refuses a load at an offset that was not filled in.
pub const fn placeholder(name: &str) -> u32 {
    // FNV-1a, folded so that the number is also positive as an i32.
    let bytes = name.as_bytes();
    let mut hash: u32 = 0x811c_9dc5;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    0x7000_0000 | (hash >> 28 ^ hash) & 0x0fff_ffff
}

/// Value of an optional offset if this kernel lacks the field. The code that would use it is dead.
pub const ABSENT: u32 = u32::MAX;

/// How a number in the object is looked up in BTF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Offset of `structure.field[.field…]`. Anonymous members are searched too.
    Field(&'static str, &'static str),
    /// Size of a structure or union.
    Size(&'static str),
    /// Value of a member of an enumeration.
    Enumerator(&'static str, &'static str),
    /// Size of one element of the array `structure.field`.
    Element(&'static str, &'static str),
}

/// A number of the object that comes from BTF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset {
    /// Its name in the object.
    pub symbol: &'static str,
    /// How it is looked up.
    pub source: Source,
    /// Whether the object can work without it ([`ABSENT`]).
    pub optional: bool,
}

/// Calls `$with!` with every offset: `(SYMBOL, required|optional, field|size|number|element, "structure", "field")`.
#[macro_export]
macro_rules! for_each_offset {
    ($with:path) => {
        $with! {
            (TASK_PID, required, field, "task_struct", "pid"),
            (TASK_TGID, required, field, "task_struct", "tgid"),
            (TASK_COMM, required, field, "task_struct", "comm"),
            (TASK_FLAGS, required, field, "task_struct", "flags"),
            (TASK_START_BOOTTIME, required, field, "task_struct", "start_boottime"),
            (TASK_REAL_PARENT, required, field, "task_struct", "real_parent"),
            (TASK_PARENT, required, field, "task_struct", "parent"),
            (TASK_GROUP_LEADER, required, field, "task_struct", "group_leader"),
            (TASK_THREAD_PID, required, field, "task_struct", "thread_pid"),
            (TASK_SIGNAL, required, field, "task_struct", "signal"),
            (TASK_NSPROXY, required, field, "task_struct", "nsproxy"),
            (TASK_REAL_CRED, required, field, "task_struct", "real_cred"),
            (TASK_SIGHAND, required, field, "task_struct", "sighand"),
            (SIGHAND_ACTION, required, field, "sighand_struct", "action"),
            (SIGACTION_SIZE, required, size, "k_sigaction", ""),
            (SIGACTION_HANDLER, required, field, "k_sigaction", "sa.sa_handler"),
            (TASK_PENDING_SIGNALS, required, field, "task_struct", "pending.signal"),
            (TASK_SECCOMP_MODE, optional, field, "task_struct", "seccomp.mode"),
            (TASK_EXIT_CODE, required, field, "task_struct", "exit_code"),
            (TASK_EXIT_STATE, required, field, "task_struct", "exit_state"),
            (TASK_MM, required, field, "task_struct", "mm"),
            (TASK_FILES, required, field, "task_struct", "files"),
            (TASK_STACK, optional, field, "task_struct", "stack"),
            (TASK_THREAD_STATUS, optional, field, "task_struct", "thread_info.status"),
            (TASK_CGROUPS, optional, field, "task_struct", "cgroups"),
            (CSS_SET_SUBSYS, optional, field, "css_set", "subsys"),
            (CSS_CGROUP, optional, field, "cgroup_subsys_state", "cgroup"),
            (CGROUP_NODE, optional, field, "cgroup", "kn"),
            (KERNFS_NODE_ID, optional, field, "kernfs_node", "id"),
            (CSS_PARENT, optional, field, "cgroup_subsys_state", "parent"),
            (PIDS_CGROUP_ID, optional, number, "cgroup_subsys_id", "pids_cgrp_id"),
            (PIDS_CGROUP_CSS, optional, field, "pids_cgroup", "css"),
            (PIDS_CGROUP_COUNTER, optional, field, "pids_cgroup", "counter"),
            (PIDS_CGROUP_LIMIT, optional, field, "pids_cgroup", "limit"),
            (CRED_CAP_EFFECTIVE, optional, field, "cred", "cap_effective"),
            (CRED_UCOUNTS, optional, field, "cred", "ucounts"),
            (UCOUNTS_RLIMIT, optional, field, "ucounts", "rlimit"),
            (CRED_USER, required, field, "cred", "user"),
            (USER_PROCESSES, optional, field, "user_struct", "processes"),
            (SIGNAL_RLIMITS, optional, field, "signal_struct", "rlim"),
            (CRED_UID, required, field, "cred", "uid"),
            (CRED_EUID, required, field, "cred", "euid"),
            (CRED_USER_NS, required, field, "cred", "user_ns"),
            (USERNS_UCOUNTS, optional, field, "user_namespace", "ucounts"),
            (USERNS_UCOUNT_MAX, optional, field, "user_namespace", "ucount_max"),
            (UCOUNT_SIZE, optional, element, "user_namespace", "ucount_max"),
            (UCOUNTS_NS, optional, field, "ucounts", "ns"),
            (UCOUNTS_UID, optional, field, "ucounts", "uid"),
            (UCOUNTS_COUNTS, optional, field, "ucounts", "ucount"),
            (UCOUNT_PID_NAMESPACES, optional, number, "ucount_type", "UCOUNT_PID_NAMESPACES"),
            (UCOUNT_USER_NAMESPACES, optional, number, "ucount_type", "UCOUNT_USER_NAMESPACES"),
            (SIGNAL_LIVE, required, field, "signal_struct", "live"),
            (SIGNAL_NR_THREADS, required, field, "signal_struct", "nr_threads"),
            (SIGNAL_FLAGS, required, field, "signal_struct", "flags"),
            (SIGNAL_GROUP_EXIT_CODE, required, field, "signal_struct", "group_exit_code"),
            (SIGINFO_CODE, required, field, "kernel_siginfo", "si_code"),
            (PID_LEVEL, required, field, "pid", "level"),
            (PID_NUMBERS, required, field, "pid", "numbers"),
            (PID_TASKS, optional, field, "pid", "tasks"),
            (TASK_PID_LINKS, optional, field, "task_struct", "pid_links"),
            (UPID_NR, required, field, "upid", "nr"),
            (UPID_NS, required, field, "upid", "ns"),
            (UPID_SIZE, required, size, "upid", ""),
            (PIDNS_LEVEL, required, field, "pid_namespace", "level"),
            (PIDNS_PARENT, required, field, "pid_namespace", "parent"),
            (PIDNS_CHILD_REAPER, required, field, "pid_namespace", "child_reaper"),
            (PIDNS_PID_ALLOCATED, required, field, "pid_namespace", "pid_allocated"),
            (PIDNS_PID_MAX, optional, field, "pid_namespace", "pid_max"),
            (PIDNS_PIDS, optional, field, "pid_namespace", "idr.idr_rt.xa_head"),
            (XA_NODE_SHIFT, optional, field, "xa_node", "shift"),
            (XA_NODE_SLOTS, optional, field, "xa_node", "slots"),
            (XA_NODE_TAGS, optional, field, "xa_node", "tags"),
            (PIDNS_USER_NS, required, field, "pid_namespace", "user_ns"),
            (PIDNS_REBOOT, required, field, "pid_namespace", "reboot"),
            (PIDNS_NS, required, field, "pid_namespace", "ns"),
            (NS_COMMON_INUM, required, field, "ns_common", "inum"),
            (NS_COMMON_OPS, required, field, "ns_common", "ops"),
            (NS_COMMON_ID, optional, field, "ns_common", "ns_id"),
            (NS_COMMON_TYPE, optional, field, "ns_common", "ns_type"),
            (PROC_NS_TYPE, optional, field, "proc_ns_operations", "type"),
            (USERNS_NS, required, field, "user_namespace", "ns"),
            (USERNS_OWNER, required, field, "user_namespace", "owner"),
            (USERNS_PARENT, required, field, "user_namespace", "parent"),
            (NSPROXY_PID_FOR_CHILDREN, required, field, "nsproxy", "pid_ns_for_children"),
            (BINPRM_FILENAME, required, field, "linux_binprm", "filename"),
            (MM_ARG_START, required, field, "mm_struct", "arg_start"),
            (MM_ARG_END, required, field, "mm_struct", "arg_end"),
            (FILES_FDT, required, field, "files_struct", "fdt"),
            (FDTABLE_MAX, required, field, "fdtable", "max_fds"),
            (FDTABLE_FD, required, field, "fdtable", "fd"),
            (FILE_INODE, required, field, "file", "f_inode"),
            (INODE_SB, required, field, "inode", "i_sb"),
            (INODE_PRIVATE, required, field, "inode", "i_private"),
            (SUPER_MAGIC, required, field, "super_block", "s_magic"),
            (REGS_CALL, required, field, "pt_regs", "orig_ax"),
            (REGS_ARG0, required, field, "pt_regs", "di"),
            (REGS_ARG1, required, field, "pt_regs", "si"),
            (REGS_ARG2, required, field, "pt_regs", "dx"),
            (REGS_SIZE, required, size, "pt_regs", ""),
            (THREAD_STACK_SIZE, optional, size, "irq_stack", ""),
            (KERNEL_CLONE_FLAGS, required, field, "kernel_clone_args", "flags"),
            (KERNEL_CLONE_SET_TID, required, field, "kernel_clone_args", "set_tid"),
            (KERNEL_CLONE_SET_TID_SIZE, required, field, "kernel_clone_args", "set_tid_size"),
        }
    };
}

/// Like `for_each_offset`: offsets that only the snapshot's object needs. They are a separate list, so that the live
/// stream runs on kernels that lack them.
#[macro_export]
macro_rules! for_each_snapshot_offset {
    ($with:path) => {
        $with! {
            (TASK_STATE, optional, field, "task_struct", "__state"),
            (TASK_STATE_BEFORE_5_14, optional, field, "task_struct", "state"),
            (TASK_PTRACE, required, field, "task_struct", "ptrace"),
            (TASK_JOBCTL, optional, field, "task_struct", "jobctl"),
            (TASK_LAST_ARRIVAL, optional, field, "task_struct", "sched_info.last_arrival"),
            (TASK_RAN, optional, field, "task_struct", "se.sum_exec_runtime"),
            (TASK_RAN_BEFORE, optional, field, "task_struct", "se.prev_sum_exec_runtime"),
            (SIGNAL_SUBREAPER, optional, field, "signal_struct", "is_child_subreaper"),
            (CSS_SET_DEFAULT_CGROUP, optional, field, "css_set", "dfl_cgrp"),
            (TASK_FS, optional, field, "task_struct", "fs"),
            (FS_ROOT_MOUNT, optional, field, "fs_struct", "root.mnt"),
            (FS_ROOT_ENTRY, optional, field, "fs_struct", "root.dentry"),
            (NSPROXY_MOUNT_NS, optional, field, "nsproxy", "mnt_ns"),
            (MOUNT_NS_NS, optional, field, "mnt_namespace", "ns"),
        }
    };
}

/// Offsets of `for_each_offset` that the snapshot's object uses. If it uses one that is missing here, the
/// [`placeholder`] stays and the verifier refuses it.
pub const SNAPSHOT_SHARED: &[&str] = &[
    "TASK_PID",
    "TASK_TGID",
    "TASK_COMM",
    "TASK_FLAGS",
    "TASK_START_BOOTTIME",
    "TASK_EXIT_STATE",
    "TASK_REAL_PARENT",
    "TASK_PARENT",
    "TASK_GROUP_LEADER",
    "TASK_THREAD_PID",
    "TASK_SIGNAL",
    "TASK_NSPROXY",
    "TASK_REAL_CRED",
    "TASK_FILES",
    "TASK_CGROUPS",
    "CGROUP_NODE",
    "KERNFS_NODE_ID",
    "CRED_UID",
    "SIGNAL_LIVE",
    "SIGNAL_NR_THREADS",
    "PID_LEVEL",
    "PID_NUMBERS",
    "UPID_NR",
    "UPID_NS",
    "UPID_SIZE",
    "PIDNS_LEVEL",
    "PIDNS_PARENT",
    "PIDNS_CHILD_REAPER",
    "PIDNS_PID_ALLOCATED",
    "PIDNS_PID_MAX",
    "PIDNS_USER_NS",
    "PIDNS_NS",
    "NS_COMMON_INUM",
    "NS_COMMON_OPS",
    "NS_COMMON_ID",
    "NS_COMMON_TYPE",
    "PROC_NS_TYPE",
    "USERNS_NS",
    "USERNS_OWNER",
    "NSPROXY_PID_FOR_CHILDREN",
    "FILE_INODE",
    "INODE_SB",
    "INODE_PRIVATE",
    "SUPER_MAGIC",
];

macro_rules! source {
    (field, $structure:literal, $field:literal) => {
        Source::Field($structure, $field)
    };
    (size, $structure:literal, $field:literal) => {
        Source::Size($structure)
    };
    (number, $structure:literal, $field:literal) => {
        Source::Enumerator($structure, $field)
    };
    (element, $structure:literal, $field:literal) => {
        Source::Element($structure, $field)
    };
}

macro_rules! table {
    ($table:ident: $(($symbol:ident, $need:ident, $what:ident, $structure:literal, $field:literal),)*) => {
        /// All offsets of the list.
        pub const $table: &[Offset] = &[$(Offset {
            symbol: stringify!($symbol),
            source: source!($what, $structure, $field),
            optional: matches!(stringify!($need).as_bytes(), b"optional"),
        },)*];
    };
}
macro_rules! stream_table {
    ($($row:tt)*) => { table!(OFFSETS: $($row)*); };
}
macro_rules! snapshot_table {
    ($($row:tt)*) => { table!(SNAPSHOT_OFFSETS: $($row)*); };
}
for_each_offset!(stream_table);
for_each_snapshot_offset!(snapshot_table);

/// `u32`: bit mask of the wanted records, by [`super::Kind`]. It applies to records of processes, signals and refused
/// forks. The other records of namespaces are sent whatever the mask.
pub const EVENT_MASK: &str = "EVENT_MASK";
/// `u64`: bit mask of the wanted processes, by level.
pub const LEVEL_MASK: &str = "LEVEL_MASK";
/// `bool`: only the namespaces of [`super::names::MAP_FILTER_NS`] and those below them, with their processes.
pub const FILTER_NS: &str = "FILTER_NS";
/// `bool`: only the processes of [`super::names::MAP_FILTER_PIDS`].
pub const FILTER_PIDS: &str = "FILTER_PIDS";
/// `bool`: forks, execs and exits of processes are counted by namespace ([`super::namespace_counters`]) and not sent as
/// records.
pub const COUNTING: &str = "COUNTING";
/// `bool`: records of execs carry the arguments.
pub const WITH_ARGS: &str = "WITH_ARGS";
/// `bool`: this kernel has the helper bpf_task_pt_regs (5.15 and later).
pub const HAVE_TASK_PT_REGS: &str = "HAVE_TASK_PT_REGS";
/// `bool`: perhaps no hook sees unshare(2) and setns(2) return ([`super::names::attached`] shows that), so a fork is
/// checked for their effects. The verifier needs several times as long for that check as for everything else.
pub const CALLS_MAY_BE_UNSEEN: &str = "CALLS_MAY_BE_UNSEEN";
/// `bool`: this kernel has the kfuncs [`PREEMPT_DISABLE`] and [`PREEMPT_ENABLE`].
pub const HAVE_PREEMPT_KFUNCS: &str = "HAVE_PREEMPT_KFUNCS";
/// `bool`: it has [`IRQ_SAVE`] and [`IRQ_RESTORE`].
pub const HAVE_IRQ_KFUNCS: &str = "HAVE_IRQ_KFUNCS";
/// `bool`: tasks can be preempted in tracepoints (7.0 and later), so a second program follows each program on a busy
/// tracepoint.
pub const SECOND_PROGRAM: &str = "SECOND_PROGRAM";
/// `bool`: the verifier refuses loads past the first element of `pid.numbers` (5.10), so it is copied.
pub const PROBE_NUMBERS: &str = "PROBE_NUMBERS";
/// `u8`: aya-log's level. 0 is off: the log statements are dead code.
pub const LOG_LEVEL: &str = "AYA_LOG_LEVEL";

/// The kfunc that turns preemption off (6.10 and later).
pub const PREEMPT_DISABLE: &str = "bpf_preempt_disable";
/// The kfunc that turns it on again.
pub const PREEMPT_ENABLE: &str = "bpf_preempt_enable";
/// The kfunc that turns interrupts off (6.14 and later).
pub const IRQ_SAVE: &str = "bpf_local_irq_save";
/// The kfunc that turns them on again if they were on before.
pub const IRQ_RESTORE: &str = "bpf_local_irq_restore";

/// The instruction that calls the kfunc with this BTF id (`BPF_PSEUDO_KFUNC_CALL`, include/uapi/linux/bpf.h).
pub const fn kfunc_call(number: u32) -> [u8; 8] {
    let [a, b, c, d] = number.to_le_bytes();
    [0x85, 0x20, 0, 0, a, b, c, d]
}
