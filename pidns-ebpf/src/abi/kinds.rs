//! The values of the enumerations in records: kinds of records, calls, and reasons of refusals.

use super::vocabulary::vocabulary;

vocabulary! {
    /// The subject of a record. The number is also its index in the tables of [`super::Counters`].
    Kind {
        /// unshare(2) created a namespace: [`super::NamespaceRecord`] of [`super::CreateBody`].
        NamespaceCreate = 0,
        /// The creation of a namespace was refused: [`super::NamespaceRecord`] of [`super::RefusalBody`].
        NamespaceCreateFailed = 1,
        /// A namespace's first process was forked. If clone(2) created the namespace, this record reports that too:
        /// [`super::NamespaceRecord`] of [`super::InitBody`].
        NamespaceInit = 2,
        /// setns(2) into a namespace succeeded: [`super::NamespaceRecord`] of [`super::JoinBody`].
        NamespaceJoin = 3,
        /// setns(2) into a namespace was refused: [`super::NamespaceRecord`] of [`super::RefusalBody`].
        NamespaceJoinFailed = 4,
        /// A namespace's init exits: [`super::NamespaceRecord`] of [`super::InitExitBody`].
        NamespaceInitExit = 5,
        /// The kernel has killed and waited for all members: [`super::NamespaceRecord`] of [`super::TeardownBody`].
        NamespaceTeardown = 6,
        /// A signal was sent to a namespace's init: [`super::NamespaceRecord`] of [`super::SignalBody`].
        InitSignal = 7,
        /// fork, vfork, clone or clone3 was refused: [`super::NamespaceRecord`] of [`super::RefusalBody`].
        ForkFailed = 8,
        /// A process was forked: [`super::ForkRecord`].
        ProcessFork = 9,
        /// A process executed a program: [`super::ExecRecord`].
        ProcessExec = 10,
        /// A process's last thread ended: [`super::ExitRecord`].
        ProcessExit = 11,
        /// A process was reaped: [`super::ReapRecord`] with the PIDs of the process, or [`super::FreeRecord`] without
        /// PIDs.
        ProcessReap = 12,
        /// A namespace's last reference is gone: [`super::NamespaceRecord`] without a body and without a process.
        NamespaceDestroy = 13,
        /// A fatal signal was sent to a process that is no namespace's init: [`super::NamespaceRecord`] of
        /// [`super::SignalBody`], without a namespace. It does not become an event: the event of the process's exit
        /// names the sender.
        ProcessSignal = 14,
    }
}

/// Number of kinds: the inner dimension of the tables in [`super::Counters`].
pub const KINDS: usize = Kind::ALL.len();

vocabulary! {
    /// The system call that created, joined or forked.
    Via {
        /// Unknown, for example a system call of a 32-bit program.
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
    /// Why the kernel refused a call, as far as its state shows.
    Reason {
        /// Another reason; only the errno is known.
        Other = 0,
        /// Namespaces are already nested [`super::MAX_LEVEL`] deep.
        DepthLimit = 1,
        /// A user namespace is at its limit of PID or user namespaces ([`Resource`]).
        CountLimit = 2,
        /// A capability is missing.
        Permission = 3,
        /// The caller has already called unshare(2): its children go to the namespace that this created.
        AlreadyUnshared = 4,
        /// The kernel is out of memory (ENOMEM), and the namespace is alive.
        NoMemory = 5,
        /// The namespace to join is neither the caller's own nor below it.
        NotDescendant = 6,
        /// The namespace's init is dead, so no process can be forked there.
        NamespaceDead = 7,
        /// The pids cgroup of the caller, or one above it, is at its limit.
        PidsCgroup = 8,
        /// A namespace in which the child needs a PID has none left (`pid_max`).
        PidMax = 9,
        /// The caller's user has as many processes as RLIMIT_NPROC allows.
        NprocLimit = 10,
        /// A seccomp filter refused the call before the kernel's own checks.
        Seccomp = 11,
        /// The caller's children go to a namespace that is not its own.
        ChildrenElsewhere = 12,
        /// A PID that the caller chose is in use.
        PidTaken = 13,
        /// The file is a namespace, but not of the type that was requested from setns(2).
        WrongType = 14,
    }
}

vocabulary! {
    /// The use of a PID.
    PidUse {
        /// The id of a process.
        Process = 0,
        /// The id of a thread that is not the first of its process.
        Thread = 1,
        /// The id of a process group.
        ProcessGroup = 2,
        /// The id of a session.
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
    /// The creation of a namespace, as the fork of its init shows it.
    Creation {
        /// The namespace existed before: its creation was reported, or happened before the hooks were attached.
        Earlier = 0,
        /// The fork itself created it (`CLONE_NEWPID`).
        WithInit = 1,
        /// A call that no hook saw created it: an earlier unshare(2), or a call of a 32-bit program.
        Unobserved = 2,
    }
}

vocabulary! {
    /// The origin of a signal, relative to the namespace of the process that receives it.
    Origin {
        /// A process of the namespace itself, or of one below it.
        Inside = 0,
        /// A process outside the namespace.
        Ancestor = 1,
        /// The kernel itself.
        Kernel = 2,
        /// The kernel, because the parent ended: the process requested that with PR_SET_PDEATHSIG. `other` is the
        /// parent.
        ParentDeath = 3,
    }
}
