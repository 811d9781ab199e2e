//! The wire records, and the values in shared maps. They are `repr(C)` and consist of integers and byte arrays. Every
//! byte of padding has a name, and every size is asserted.

/// Deepest nesting of PID namespaces below the initial one (`MAX_PID_NS_LEVEL`, include/linux/pid_namespace.h).
pub const MAX_LEVEL: u32 = 32;
/// Maximum number of PIDs of a process: one at each level from 0 to [`MAX_LEVEL`].
pub const MAX_PIDS: usize = MAX_LEVEL as usize + 1;
/// Bytes of `task_struct.comm` with its final NUL (`TASK_COMM_LEN`, include/linux/sched.h).
pub const COMM_LEN: usize = 16;
/// Maximum size of an exec's file name on the wire, in bytes. It is `PATH_MAX`, so no name is cut.
pub const FILENAME_MAX: usize = 4096;
/// Maximum size of an exec's arguments on the wire, in bytes. Longer ones are cut and flagged.
pub const ARGS_MAX: usize = 4096;

// The numbers in the bodies are whole words, although bytes are large enough: to write a few odd bytes the compiler
// calls memset, which writes byte by byte in an eBPF object.

/// Flag of [`Header`]: the hook cannot know the fact or its time precisely.
pub const FLAG_INEXACT: u8 = 1 << 0;
/// Flag of [`Header`] (fork): the PIDs were chosen by clone3's `set_tid`.
pub const FLAG_RESTORED: u8 = 1 << 1;
/// Flag of [`Header`] (exec): the arguments are longer than [`ARGS_MAX`].
pub const FLAG_ARGS_CUT: u8 = 1 << 2;
/// Flag of [`Header`] (refused fork): the caller wanted a thread, not a process.
pub const FLAG_THREAD: u8 = 1 << 3;
/// Flag of [`Header`] (exec): the record carries the arguments.
pub const FLAG_ARGS: u8 = 1 << 4;
/// All flags. A record with any other flag is damaged.
pub const FLAGS: u8 = FLAG_INEXACT | FLAG_RESTORED | FLAG_ARGS_CUT | FLAG_THREAD | FLAG_ARGS;

/// The start of every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Header {
    /// CLOCK_BOOTTIME at the hook, in nanoseconds.
    pub boot_ns: u64,
    /// Bytes of the whole record, with this header.
    pub size: u32,
    /// A [`super::Kind`].
    pub kind: u8,
    /// `FLAG_*`.
    pub flags: u8,
    /// PIDs in the tail that belong to the record's process.
    pub pids: u8,
    /// PIDs after those in the tail that belong to its other process (parent, creator, sender).
    pub other_pids: u8,
}

/// The fixed part of a process; its PIDs are in the tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ProcessPart {
    /// `start_boottime` of the thread group's leader: CLOCK_BOOTTIME, nanoseconds.
    pub start_boot_ns: u64,
    /// Thread group id in the initial PID namespace.
    pub pid: u32,
    /// Thread group id of the real parent in the initial PID namespace; 0: none.
    pub parent_pid: u32,
    /// Real user id, in the initial user namespace.
    pub uid: u32,
    /// Inode number of its innermost PID namespace.
    pub ns_inum: u32,
    /// `comm` of the leader, padded with NULs. The process chooses the bytes.
    pub comm: [u8; COMM_LEN],
}

/// A PID namespace. All zeros: unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct NamespacePart {
    /// The kernel's 64-bit `ns_id` (6.18 and later); 0: none.
    pub kernel_id: u64,
    /// `start_boottime` of its init; 0: it has none.
    pub init_start_boot_ns: u64,
    /// Inode number.
    pub inum: u32,
    /// Depth: 0 is the initial namespace.
    pub level: u32,
    /// Inode number of its parent; 0: it is the initial namespace.
    pub parent_inum: u32,
    /// Inode number of the user namespace that owns it.
    pub user_ns_inum: u32,
    /// User id of that user namespace's owner, in the initial user namespace.
    pub owner_uid: u32,
    /// Its own `kernel.pid_max` (6.14 and later); 0: it has none.
    pub pid_max: u32,
    /// Number of PIDs in use by processes, threads and zombies.
    pub pids_in_use: u32,
    /// Padding.
    pub reserved: u32,
}

/// A process was forked. Tail: its PIDs, then its parent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ForkRecord {
    /// Header.
    pub header: Header,
    /// The new process.
    pub process: ProcessPart,
    /// The process that forked it.
    pub parent: ProcessPart,
}

/// A process executed a program. Tail: its PIDs, then the file name, then the arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ExecRecord {
    /// Header.
    pub header: Header,
    /// The process, after the exec.
    pub process: ProcessPart,
    /// Bytes of the file name, without a NUL.
    pub filename_len: u32,
    /// Bytes of the arguments. Each argument ends with a NUL; if they are cut, the last one does not.
    pub args_len: u32,
}

/// A process's last thread ended. Tail: its PIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ExitRecord {
    /// Header.
    pub header: Header,
    /// The process; `parent_pid` is its parent at its exit.
    pub process: ProcessPart,
    /// `start_boottime` of that parent.
    pub parent_start_boot_ns: u64,
    /// Wait status, as wait(2) would give it.
    pub wait_status: u32,
    /// Maximum number of threads that it had while it was observed; 0: unknown.
    pub peak_threads: u32,
    /// Inode number of the dying namespace whose teardown killed it; 0: none.
    pub cascade_inum: u32,
    /// 1: the kernel chose it when memory ran out. 0: no hook saw that.
    pub oom: u32,
}

/// A process was reaped, as release_task reports it. Tail: its PIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ReapRecord {
    /// Header.
    pub header: Header,
    /// The process as it was at its reaping.
    pub process: ProcessPart,
}

/// A process was reaped, as sched_process_free reports it. The task has lost its PIDs by then, so user space describes
/// the process by the record of its exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FreeRecord {
    /// Header.
    pub header: Header,
    /// The process.
    pub key: ProcessKey,
}

/// Every record about a namespace. Tail: the PIDs of `process`, then the PIDs of `other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct NamespaceRecord<B> {
    /// Header.
    pub header: Header,
    /// The namespace; `inum` 0: unknown.
    pub ns: NamespacePart,
    /// The process that it happened to; if there is none, all zeros and no PIDs in the tail.
    pub process: ProcessPart,
    /// The creator or sender; if there is none, all zeros and no PIDs in the tail.
    pub other: ProcessPart,
    /// The part that depends on the kind.
    pub body: B,
}

/// Body of [`super::Kind::NamespaceCreate`]; `process` is the creator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct CreateBody {
    /// A [`super::Via`].
    pub via: u32,
    /// Padding.
    pub reserved: u32,
}

/// Body of [`super::Kind::NamespaceInit`]; `process` is the init, `other` its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct InitBody {
    /// A [`super::Via`]: the call that created the namespace, if it is known and `creation` is not
    /// [`super::Creation::Earlier`].
    pub via: u32,
    /// A [`super::Creation`].
    pub creation: u32,
}

/// Means that it is unknown how much of a limit is used.
pub const CURRENT_UNKNOWN: u64 = u64::MAX;

/// Maximum number of PIDs that a fork can choose (`MAX_PID_NS_LEVEL`, include/linux/pid.h): one less than the number of
/// levels.
pub const MAX_CHOSEN: usize = MAX_LEVEL as usize;

/// Body of a refused creation, join or fork; `process` is the caller. For [`super::Reason::PidTaken`] `other` is the
/// process that has the PID, if it is known. In the tail the PIDs that the caller chose follow the PIDs of the
/// processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct RefusalBody {
    /// The errno, a positive number.
    pub errno: u32,
    /// A [`super::Via`].
    pub via: u32,
    /// A [`super::Reason`].
    pub reason: u32,
    /// The namespace or user that caused the refusal; 0: unknown. The meaning depends on the reason:
    /// - [`super::Reason::PidMax`]: inode number of the PID namespace at its limit;
    /// - [`super::Reason::NprocLimit`]: user id;
    /// - [`super::Reason::Permission`]: inode number of the user namespace in which a capability is missing;
    /// - [`super::Reason::CountLimit`]: inode number of the user namespace at its limit;
    /// - [`super::Reason::PidTaken`]: inode number of the PID namespace in which the PID is in use.
    pub place: u32,
    /// The limit that is reached; 0: none, or its value is unknown.
    pub limit: u64,
    /// The used part of the limit right after the refusal; [`CURRENT_UNKNOWN`] if that cannot be read.
    pub current: u64,
    /// For [`super::Reason::PidsCgroup`]: id of the cgroup at its limit, the inode number of its directory. 0: unknown.
    pub cgroup: u64,
    /// For [`super::Reason::CountLimit`] a [`super::Resource`], for [`super::Reason::PidTaken`] a [`super::PidUse`],
    /// else 0.
    pub detail: u32,
    /// For [`super::Reason::CountLimit`]: the user whose namespaces are counted, as an id in the initial user
    /// namespace. For [`super::Reason::PidTaken`]: the PID; 0 if it is unknown which of several it is. Else 0.
    pub number: u32,
    /// Number of PIDs in the tail that the caller chose: after those of the processes, in the caller's order, the
    /// innermost first.
    pub chosen: u32,
    /// For [`super::Reason::Permission`]: 1 if the caller has neither CAP_CHECKPOINT_RESTORE nor CAP_SYS_ADMIN, one of
    /// which it needs to choose PIDs; 0 if it lacks CAP_SYS_ADMIN.
    pub for_chosen: u32,
}

/// Body of [`super::Kind::NamespaceJoin`]; `process` joined. If only a fork revealed the join, `other` joined, and
/// `process` is its child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct JoinBody {
    /// Inode number of the namespace in which its children were born before; 0: unknown.
    pub from_inum: u32,
    /// Padding.
    pub reserved: u32,
}

/// Body of [`super::Kind::NamespaceInitExit`]; `process` is the init.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct InitExitBody {
    /// Wait status, as wait(2) would give it.
    pub wait_status: u32,
    /// PIDs in use in the namespace besides those of the init: processes, further threads, zombies.
    pub members: u32,
    /// Signal that reboot(2) in the namespace put into the status (SIGHUP: restart, SIGINT: halt or power off); 0:
    /// none.
    pub reboot_signal: u32,
    /// Inode number of the outer dying namespace whose teardown killed it; 0: none.
    pub cascade_inum: u32,
    /// Command of reboot(2) in the namespace (`LINUX_REBOOT_CMD_*`, include/uapi/linux/reboot.h); 0: unknown.
    pub reboot_command: u32,
    /// 1: the kernel chose it when memory ran out. 0: no hook saw that.
    pub oom: u32,
}

/// Body of [`super::Kind::NamespaceTeardown`]; no process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct TeardownBody {
    /// When it began (CLOCK_BOOTTIME, nanoseconds): at zap_pid_ns_processes, or at the init's exit without that hook.
    pub began_boot_ns: u64,
    /// Number of processes to which the kernel sent SIGKILL.
    pub killed: u32,
    /// Padding.
    pub reserved: u32,
}

/// Body of [`super::Kind::InitSignal`] and [`super::Kind::ProcessSignal`]; `process` receives the signal, `other` sends
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SignalBody {
    /// Signal number.
    pub signal: u32,
    /// `si_code`; 0 if the kernel passed no siginfo.
    pub code: i32,
    /// `TRACE_SIGNAL_*` (include/trace/events/signal.h): 0 delivered, 1 ignored, 2 already pending, 3 queue full, 4
    /// info lost.
    pub fate: u32,
    /// An [`super::Origin`]. For [`super::Kind::ProcessSignal`] user space does not distinguish
    /// [`super::Origin::Ancestor`] from [`super::Origin::Inside`].
    pub origin: u32,
}

/// Room for the PIDs of one process. It is an even number, so that two are copied at a time.
pub const PIDS_ROOM: usize = MAX_PIDS.next_multiple_of(2);

/// Identity of a process, as a key of the kernel side's maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct ProcessKey {
    /// `start_boottime` of its leader: CLOCK_BOOTTIME, nanoseconds.
    pub start_boot_ns: u64,
    /// Thread group id in the initial PID namespace.
    pub pid: u32,
    /// Padding: 0.
    pub reserved: u32,
}

impl ProcessKey {
    /// The process with this thread group id and start.
    pub const fn new(pid: u32, start_boot_ns: u64) -> Self {
        Self { start_boot_ns, pid, reserved: 0 }
    }
}

/// A namespace between its init's exit and the end of its teardown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Dying {
    /// The namespace.
    pub ns: NamespacePart,
    /// `start_boottime` of its init.
    pub init_start_boot_ns: u64,
    /// When the teardown began (CLOCK_BOOTTIME, nanoseconds): see [`TeardownBody`].
    pub began_boot_ns: u64,
    /// Number of processes to which the kernel has sent SIGKILL so far.
    pub killed: u32,
    /// Padding.
    pub reserved: u32,
}

/// Both sides and the verifier rely on these sizes.
const _: () = {
    assert!(size_of::<Header>() == 16);
    assert!(size_of::<ProcessPart>() == 40);
    assert!(size_of::<NamespacePart>() == 48);
    assert!(size_of::<ForkRecord>() == 96);
    assert!(size_of::<ExecRecord>() == 64);
    assert!(size_of::<ExitRecord>() == 80);
    assert!(size_of::<ReapRecord>() == 56);
    assert!(size_of::<FreeRecord>() == 32);
    assert!(size_of::<NamespaceRecord<CreateBody>>() == 152);
    assert!(size_of::<NamespaceRecord<InitBody>>() == 152);
    assert!(size_of::<NamespaceRecord<RefusalBody>>() == 200);
    assert!(size_of::<NamespaceRecord<JoinBody>>() == 152);
    assert!(size_of::<NamespaceRecord<InitExitBody>>() == 168);
    assert!(size_of::<NamespaceRecord<TeardownBody>>() == 160);
    assert!(size_of::<NamespaceRecord<SignalBody>>() == 160);
    assert!(size_of::<NamespaceRecord<()>>() == 144);
    assert!(size_of::<ProcessKey>() == 16);
    assert!(size_of::<Dying>() == 72);
};
