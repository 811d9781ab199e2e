//! The wire records and the values shared through maps: `repr(C)`, integers and byte arrays only, every byte of
//! padding named, sizes asserted.

use super::vocabulary::vocabulary;

/// Deepest nesting of PID namespaces below the initial one (`MAX_PID_NS_LEVEL`, include/linux/pid_namespace.h).
pub const MAX_LEVEL: u32 = 32;
/// Most PIDs that a process has: one at each level from 0 to [`MAX_LEVEL`].
pub const MAX_PIDS: usize = MAX_LEVEL as usize + 1;
/// Bytes of `task_struct.comm` (`TASK_COMM_LEN`, include/linux/sched.h), the closing NUL included.
pub const COMM_LEN: usize = 16;
/// Most bytes of an exec's file name on the wire: `PATH_MAX`, so it is never cut.
pub const FILENAME_MAX: usize = 4096;
/// Most bytes of an exec's arguments on the wire; longer ones are cut and flagged.
pub const ARGS_MAX: usize = 4096;

vocabulary! {
    /// What a record is about. The number is also its row in [`super::Counters`].
    Kind {
        /// A namespace came to exist through unshare(2): [`NamespaceRecord`] of [`CreateBody`].
        NamespaceCreate = 0,
        /// A namespace could not be created: [`NamespaceRecord`] of [`RefusalBody`].
        NamespaceCreateFailed = 1,
        /// A namespace's first process exists, and with clone(2) the namespace: [`NamespaceRecord`] of [`InitBody`].
        NamespaceInit = 2,
        /// setns(2) into a namespace succeeded: [`NamespaceRecord`] of [`JoinBody`].
        NamespaceJoin = 3,
        /// setns(2) into a namespace was refused: [`NamespaceRecord`] of [`RefusalBody`].
        NamespaceJoinFailed = 4,
        /// A namespace's init exits: [`NamespaceRecord`] of [`InitExitBody`].
        NamespaceInitExit = 5,
        /// The kernel has killed and waited for all members: [`NamespaceRecord`] of [`TeardownBody`].
        NamespaceTeardown = 6,
        /// A signal was sent to a namespace's init: [`NamespaceRecord`] of [`SignalBody`].
        InitSignal = 7,
        /// fork, vfork, clone or clone3 was refused: [`NamespaceRecord`] of [`RefusalBody`].
        ForkFailed = 8,
        /// A process exists: [`ForkRecord`].
        ProcessFork = 9,
        /// A process runs another program: [`ExecRecord`].
        ProcessExec = 10,
        /// A process's last thread ended: [`ExitRecord`].
        ProcessExit = 11,
        /// A process's zombie is gone: [`ReapRecord`].
        ProcessReap = 12,
        /// A namespace's last reference is gone: [`NamespaceRecord`] of nothing more, without a process.
        NamespaceDestroy = 13,
        /// A signal was sent to a process that is no namespace's init and that it is to end: [`NamespaceRecord`] of [`SignalBody`],
        /// without a namespace. No event of its own: the process's end reports it.
        ProcessSignal = 14,
    }
}

/// How many there are: rows of [`super::Counters`].
pub const KINDS: usize = Kind::ALL.len();

vocabulary! {
    /// The system call that was used.
    Via {
        /// Not known: no system call of the 64-bit ABI that this program knows.
        Unknown = 0,
        /// clone(2).
        Clone = 1,
        /// clone3(2).
        Clone3 = 2,
        /// unshare(2).
        Unshare = 3,
        /// fork(2).
        Fork = 4,
        /// vfork(2).
        Vfork = 5,
        /// setns(2).
        Setns = 6,
    }
}

vocabulary! {
    /// Why the kernel refused, as far as its state shows.
    Reason {
        /// Something else; only the errno is known.
        Other = 0,
        /// Namespaces are nested [`MAX_LEVEL`] deep already.
        DepthLimit = 1,
        /// `user.max_pid_namespaces` of a user namespace is reached.
        CountLimit = 2,
        /// A capability is missing.
        Permission = 3,
        /// The caller has called unshare(2) before: its children go to another namespace than its own.
        AlreadyUnshared = 4,
        /// No memory, and the namespace is alive.
        NoMemory = 5,
        /// The namespace to join is not the caller's own nor below it.
        NotDescendant = 6,
        /// The namespace's init is dead: nothing can be forked there any more.
        NamespaceDead = 7,
        /// The pids cgroup of the caller, or one above it, is at its limit.
        PidsCgroup = 8,
        /// A namespace that the child would have a PID in has no more of them (`pid_max`).
        PidMax = 9,
        /// The caller's user has as many processes as RLIMIT_NPROC allows.
        NprocLimit = 10,
        /// A seccomp filter refused, before the kernel's own checks.
        Seccomp = 11,
        /// The caller's children go to another namespace than its own.
        ChildrenElsewhere = 12,
        /// A PID that the caller chose is in use.
        PidTaken = 13,
        /// The file to join is that of a namespace, and not of the types that were asked for.
        WrongType = 14,
    }
}

vocabulary! {
    /// In which way a PID is in use.
    PidUse {
        /// As a process's.
        Process = 0,
        /// As a thread's that is not its process's first.
        Thread = 1,
        /// As the number of a process group.
        ProcessGroup = 2,
        /// As that of a session.
        Session = 3,
    }
}

vocabulary! {
    /// The resource of a user namespace whose limit is reached.
    Resource {
        /// Its limit of PID namespaces: `user.max_pid_namespaces`.
        PidNamespaces = 0,
        /// Its limit of user namespaces: `user.max_user_namespaces`.
        UserNamespaces = 1,
    }
}

vocabulary! {
    /// How a namespace's creation was seen at its init's fork.
    Creation {
        /// It existed before (its creation was reported, or predates the program's start).
        Earlier = 0,
        /// The fork itself created it (`CLONE_NEWPID`).
        WithInit = 1,
        /// Some earlier unshare(2) did, which was not observed.
        Unobserved = 2,
    }
}

vocabulary! {
    /// Where a signal to an init came from.
    Origin {
        /// A process of the namespace itself, or of one below it.
        Inside = 0,
        /// A process that is not a member.
        Ancestor = 1,
        /// The kernel itself.
        Kernel = 2,
        /// The kernel, as a parent ended: the init asked for it (PR_SET_PDEATHSIG). `other` is that parent.
        ParentDeath = 3,
    }
}

// The bodies' numbers are whole words although bytes would do: the compiler writes a few odd bytes with a call of
// memset, which goes byte by byte in an eBPF object.

/// Flag of [`Header`]: the hook cannot know the fact precisely.
pub const FLAG_INEXACT: u8 = 1 << 0;
/// Flag of [`Header`] (fork): the PIDs were chosen by clone3's `set_tid`.
pub const FLAG_RESTORED: u8 = 1 << 1;
/// Flag of [`Header`] (exec): the arguments are longer than [`ARGS_MAX`].
pub const FLAG_ARGS_CUT: u8 = 1 << 2;
/// Flag of [`Header`] (refused fork): a thread was asked for, not a process.
pub const FLAG_THREAD: u8 = 1 << 3;
/// Flag of [`Header`] (exec): the record carries the arguments.
pub const FLAG_ARGS: u8 = 1 << 4;
/// All flags there are; a record with another one is damaged.
pub const FLAGS: u8 = FLAG_INEXACT | FLAG_RESTORED | FLAG_ARGS_CUT | FLAG_THREAD | FLAG_ARGS;

/// Begins every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Header {
    /// CLOCK_BOOTTIME at the hook, in nanoseconds.
    pub boot_ns: u64,
    /// Bytes of the whole record, this header included.
    pub size: u32,
    /// A [`Kind`].
    pub kind: u8,
    /// `FLAG_*`.
    pub flags: u8,
    /// PIDs in the tail that belong to the record's process.
    pub pids: u8,
    /// PIDs in the tail, after those, that belong to its other process (parent, creator, sender).
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
    /// Thread group id of the real parent there; 0 where there is none.
    pub parent_pid: u32,
    /// Real user id, in the initial user namespace.
    pub uid: u32,
    /// Inode number of its innermost PID namespace.
    pub ns_inum: u32,
    /// `comm` of the leader: bytes as the process chose them, padded with NULs.
    pub comm: [u8; COMM_LEN],
}

/// A PID namespace. All zeros: not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct NamespacePart {
    /// The kernel's 64-bit `ns_id` (6.18 and later); 0 where there is none.
    pub kernel_id: u64,
    /// `start_boottime` of its init; 0 while it has none.
    pub init_start_boot_ns: u64,
    /// Inode number.
    pub inum: u32,
    /// Depth: 0 is the initial namespace.
    pub level: u32,
    /// Inode number of its parent; 0 for the initial one.
    pub parent_inum: u32,
    /// Inode number of the user namespace that owns it.
    pub user_ns_inum: u32,
    /// User id, in the initial user namespace, of that user namespace's owner.
    pub owner_uid: u32,
    /// Padding.
    pub reserved: u32,
}

/// A process exists. Tail: its PIDs, then its parent's.
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

/// A process runs another program. Tail: its PIDs, then the file name, then the arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ExecRecord {
    /// Header.
    pub header: Header,
    /// The process, after the exec.
    pub process: ProcessPart,
    /// Bytes of the file name, without a NUL.
    pub filename_len: u32,
    /// Bytes of the arguments: each ends with a NUL, but for the last where they are cut.
    pub args_len: u32,
}

/// A process's last thread ended. Tail: its PIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ExitRecord {
    /// Header.
    pub header: Header,
    /// The process; `parent_pid` is the parent at this moment.
    pub process: ProcessPart,
    /// `start_boottime` of the parent at this moment.
    pub parent_start_boot_ns: u64,
    /// Wait status, as wait(2) would give it.
    pub wait_status: u32,
    /// Most threads it ever had while observed; 0 where not known.
    pub peak_threads: u32,
    /// Inode number of the dying namespace whose end killed it; 0 where none did.
    pub cascade_inum: u32,
    /// 1: the kernel chose it when memory ran out. 0: not that it was seen.
    pub oom: u32,
}

/// A process's zombie is gone. Tail: its PIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ReapRecord {
    /// Header.
    pub header: Header,
    /// The process as it was at its exit, or, with `exit_boot_ns` 0, at its reaping.
    pub process: ProcessPart,
    /// When its last thread ended: CLOCK_BOOTTIME, nanoseconds. 0: the record of its exit has it, if there was one.
    pub exit_boot_ns: u64,
}

/// Every record about a namespace. Tail: the process's PIDs, then the other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct NamespaceRecord<B> {
    /// Header.
    pub header: Header,
    /// The namespace; `inum` 0 where it is not known.
    pub ns: NamespacePart,
    /// The process that it happened to; all zeros, and no PIDs in the tail, where there is none.
    pub process: ProcessPart,
    /// The creator or sender; all zeros, and no PIDs in the tail, where there is none.
    pub other: ProcessPart,
    /// What depends on the kind.
    pub body: B,
}

/// Body of [`Kind::NamespaceCreate`]; `process` is the creator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct CreateBody {
    /// A [`Via`].
    pub via: u32,
    /// Padding.
    pub reserved: u32,
}

/// Body of [`Kind::NamespaceInit`]; `process` is the init, `other` its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct InitBody {
    /// A [`Via`]: the call that created the namespace, where the fork did.
    pub via: u32,
    /// A [`Creation`].
    pub creation: u32,
}

/// Stands for how much of a limit is used, where that is not known.
pub const CURRENT_UNKNOWN: u64 = u64::MAX;

/// Most PIDs that a fork can choose (`MAX_PID_NS_LEVEL`, include/linux/pid.h): one a level but one.
pub const MAX_CHOSEN: usize = MAX_LEVEL as usize;

/// Body of a refusal: creation, join or fork; `process` is the caller. Of [`Reason::PidTaken`] `other` is the process that has the
/// PID, where it is known. Behind the processes' PIDs the tail has those that the caller chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct RefusalBody {
    /// The errno, a positive number.
    pub errno: u32,
    /// A [`Via`].
    pub via: u32,
    /// A [`Reason`].
    pub reason: u32,
    /// Where, by reason: of [`Reason::PidMax`] the inode number of the PID namespace at its limit, of [`Reason::NprocLimit`] the
    /// user id, of [`Reason::Permission`] the inode number of the user namespace in which a capability is missing, of
    /// [`Reason::CountLimit`] that of the one at its limit, of [`Reason::PidTaken`] that of the PID namespace. 0: not known.
    pub place: u32,
    /// The limit that is reached; 0 where there is none, or its value is not known.
    pub limit: u64,
    /// How much of it is used right after the refusal; [`CURRENT_UNKNOWN`] where that cannot be read.
    pub current: u64,
    /// Of [`Reason::PidsCgroup`]: the number of the cgroup at its limit, which is its folder's inode number. 0: not known.
    pub cgroup: u64,
    /// Of [`Reason::CountLimit`] a [`Resource`], of [`Reason::PidTaken`] a [`PidUse`]; else 0.
    pub detail: u32,
    /// Of [`Reason::CountLimit`] the user whose namespaces count, in the initial user namespace, of [`Reason::PidTaken`] the PID,
    /// or 0 where it is not known which one of several; else 0.
    pub number: u32,
    /// PIDs in the tail, behind those of the processes, that the caller chose: the innermost first, as it gave them.
    pub chosen: u32,
    /// 1: of [`Reason::Permission`], what is missing is CAP_CHECKPOINT_RESTORE, or CAP_SYS_ADMIN, to choose PIDs. 0: CAP_SYS_ADMIN.
    pub for_chosen: u32,
}

/// Body of [`Kind::NamespaceJoin`]. `process` joined. If a fork showed the join, `other` joined: the parent of
/// `process`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct JoinBody {
    /// Inode number of the namespace that its children went to before; 0 where not known.
    pub from_inum: u32,
    /// Padding.
    pub reserved: u32,
}

/// Body of [`Kind::NamespaceInitExit`]; `process` is the init.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct InitExitBody {
    /// Wait status, as wait(2) would give it.
    pub wait_status: u32,
    /// PIDs in use in the namespace besides the init's: processes, their further threads, zombies.
    pub members: u32,
    /// Signal number that reboot(2) inside left for the status (SIGHUP: restart, SIGINT: halt or power off); 0: none.
    pub reboot_signal: u32,
    /// Inode number of the outer dying namespace whose end killed it; 0 where none did.
    pub cascade_inum: u32,
    /// `LINUX_REBOOT_CMD_*` (include/uapi/linux/reboot.h) that reboot(2) inside was called with; 0 where not known.
    pub reboot_command: u32,
    /// 1: the kernel chose it when memory ran out. 0: not that it was seen.
    pub oom: u32,
}

/// Body of [`Kind::NamespaceTeardown`]; no process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct TeardownBody {
    /// When it began: at zap_pid_ns_processes, or without that hook at the init's exit. CLOCK_BOOTTIME, nanoseconds.
    pub began_boot_ns: u64,
    /// Processes that the kernel sent SIGKILL to.
    pub killed: u32,
    /// Padding.
    pub reserved: u32,
}

/// Body of [`Kind::InitSignal`] and [`Kind::ProcessSignal`]; `process` gets it, `other` is the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SignalBody {
    /// Signal number.
    pub signal: u32,
    /// `si_code`; 0 where the kernel passed no siginfo.
    pub code: i32,
    /// `TRACE_SIGNAL_*` (include/trace/events/signal.h): 0 delivered, 1 ignored, 2 already pending, 3 queue full, 4 info lost.
    pub fate: u32,
    /// An [`Origin`]; of [`Kind::ProcessSignal`] [`Origin::Ancestor`] stands for [`Origin::Inside`] too.
    pub origin: u32,
}

/// Room for one process's PIDs: an even number, so that two are copied at a time.
pub const PIDS_ROOM: usize = MAX_PIDS.next_multiple_of(2);

/// A process between its exit and its reaping, laid out as the record that its reaping will be: kept by the kernel side
/// where sched_process_free reports reaps, when the task has lost its PIDs; by user space where release_task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Zombie {
    /// The record, but for its time and flags.
    pub record: ReapRecord,
    /// Its tail.
    pub pids: [u32; PIDS_ROOM],
}

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
    /// When the init exited: CLOCK_BOOTTIME, nanoseconds.
    pub began_boot_ns: u64,
    /// Processes that the kernel sent SIGKILL to, so far.
    pub killed: u32,
    /// Padding.
    pub reserved: u32,
}

/// Sizes that both sides, and the verifier, rely on.
const _: () = {
    assert!(size_of::<Header>() == 16);
    assert!(size_of::<ProcessPart>() == 40);
    assert!(size_of::<NamespacePart>() == 40);
    assert!(size_of::<ForkRecord>() == 96);
    assert!(size_of::<ExecRecord>() == 64);
    assert!(size_of::<ExitRecord>() == 80);
    assert!(size_of::<ReapRecord>() == 64);
    assert!(size_of::<NamespaceRecord<CreateBody>>() == 144);
    assert!(size_of::<NamespaceRecord<InitBody>>() == 144);
    assert!(size_of::<NamespaceRecord<RefusalBody>>() == 192);
    assert!(size_of::<NamespaceRecord<JoinBody>>() == 144);
    assert!(size_of::<NamespaceRecord<InitExitBody>>() == 160);
    assert!(size_of::<NamespaceRecord<TeardownBody>>() == 152);
    assert!(size_of::<NamespaceRecord<SignalBody>>() == 152);
    assert!(size_of::<NamespaceRecord<()>>() == 136);
    assert!(size_of::<Zombie>() == 200);
    assert!(size_of::<ProcessKey>() == 16);
    assert!(size_of::<Dying>() == 64);
};
