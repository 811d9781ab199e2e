//! The system calls that the program makes once its hooks are in place, and why.
//!
//! The list comes from strace of the live stream with snapshots and containers (2026-11), and from the fallbacks of
//! glibc, the standard library and tokio. It holds for glibc: another C library makes other calls.
//!
//! All other calls are refused with EPERM. Among them: running a program (execve), starting a process, tracing another
//! process or reading its memory (ptrace, process_vm_readv, pidfd_getfd), changing mounts, namespaces or IDs, loading
//! modules, kernels or eBPF programs, io_uring, and writing, creating, renaming or removing files by path.
//!
//! The filter cannot prevent two things, because their arguments are in memory: openat2 may open a file for writing,
//! and bpf(2) may attach a program that is already loaded.

use std::ffi::c_long;

use libc::{
    AF_INET, AF_INET6, AF_UNIX, CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID,
    CLONE_NEWUSER, CLONE_NEWUTS, CLONE_PARENT, CLONE_PIDFD, CLONE_PTRACE, CLONE_SIGHAND, CLONE_THREAD,
    CLONE_UNTRACED, CLONE_VFORK, CLONE_VM, F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_GETFL, F_GETPIPE_SZ, F_SETFD,
    F_SETFL, FIONBIO, FIONREAD, O_ACCMODE, O_CREAT, O_DIRECTORY, O_TMPFILE, O_TRUNC, PR_CAPBSET_READ,
    PR_GET_NAME, PR_GET_NO_NEW_PRIVS, PR_SET_NAME, PR_SET_NO_NEW_PRIVS, PROT_EXEC, TCGETS, TIOCGWINSZ,
};

/// System calls that are needed for one purpose.
pub(super) struct Group {
    /// The purpose.
    #[expect(dead_code, reason = "it documents the table")]
    pub(super) reason: &'static str,
    pub(super) calls: &'static [Call],
}

/// A system call by number, and when it is allowed.
pub(super) struct Call(pub(super) c_long, pub(super) When);

/// The condition under which a call is allowed, by an argument. The first argument is 0.
pub(super) enum When {
    Always,
    /// The lower half of this argument is one of these values.
    Is(u8, &'static [u32]),
    /// These bits of this argument have this value.
    Bits {
        argument: u8,
        mask: u64,
        value: u64,
    },
    /// This argument is the PID of this process.
    IsOwnPid(u8),
}

use When::{Always, Bits, Is, IsOwnPid};

const fn bits(flags: i32) -> u64 {
    // Flags are bits; the highest is not a sign.
    flags.cast_unsigned() as u64
}

/// Flags that no thread of this program is created with: namespaces, new processes, and ways around a tracer.
const NO_THREAD: i32 = CLONE_NEWNS
    | CLONE_NEWCGROUP
    | CLONE_NEWUTS
    | CLONE_NEWIPC
    | CLONE_NEWUSER
    | CLONE_NEWPID
    | CLONE_NEWNET
    | CLONE_PARENT
    | CLONE_PIDFD
    | CLONE_PTRACE
    | CLONE_UNTRACED
    | CLONE_VFORK;
const THREAD: i32 = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD;

/// Flags for opening a file not only for reading. (O_TMPFILE includes the bit of O_DIRECTORY.)
const WRITES: i32 = O_ACCMODE | O_CREAT | O_TRUNC | (O_TMPFILE & !O_DIRECTORY);

const FAMILIES: &[u32] = &[AF_UNIX as u32, AF_INET as u32, AF_INET6 as u32];

/// `enum bpf_cmd` (include/uapi/linux/bpf.h), as far as maps, iterators and counters need it. It leaves out
/// BPF_MAP_CREATE, BPF_PROG_LOAD, BPF_BTF_LOAD, BPF_RAW_TRACEPOINT_OPEN, and the commands that open other programs'
/// maps and programs by id or path.
const BPF_COMMANDS: &[u32] = &[
    1,  // BPF_MAP_LOOKUP_ELEM
    2,  // BPF_MAP_UPDATE_ELEM
    3,  // BPF_MAP_DELETE_ELEM
    4,  // BPF_MAP_GET_NEXT_KEY
    15, // BPF_OBJ_GET_INFO_BY_FD: missed runs
    21, // BPF_MAP_LOOKUP_AND_DELETE_ELEM
    24, // BPF_MAP_LOOKUP_BATCH
    25, // BPF_MAP_LOOKUP_AND_DELETE_BATCH
    26, // BPF_MAP_UPDATE_BATCH
    27, // BPF_MAP_DELETE_BATCH
    28, // BPF_LINK_CREATE: a snapshot attaches the iterator, which is already loaded
    33, // BPF_ITER_CREATE: and reads it
    34, // BPF_LINK_DETACH
];

/// `_IO(0xb7, n)` and similar of include/uapi/linux/nsfs.h: owner, parent, type and id of a namespace.
const NSFS: [u32; 5] = [0xb701, 0xb702, 0xb703, 0xb704, 0x8008_b70d];

const REQUESTS: &[u32] = &[
    NSFS[0],
    NSFS[1],
    NSFS[2],
    NSFS[3],
    NSFS[4],
    FIONREAD as u32,
    FIONBIO as u32,
    TCGETS as u32,
    TIOCGWINSZ as u32,
];

/// All allowed calls.
pub(super) const GROUPS: &[Group] = &[
    Group {
        reason: "read files and /proc; write to open files (output, log, sockets)",
        calls: &[
            Call(libc::SYS_read, Always),
            Call(libc::SYS_readv, Always),
            Call(libc::SYS_pread64, Always),
            Call(libc::SYS_preadv, Always),
            Call(libc::SYS_write, Always),
            Call(libc::SYS_writev, Always),
            Call(libc::SYS_pwrite64, Always),
            Call(libc::SYS_lseek, Always),
            Call(libc::SYS_close, Always),
            Call(libc::SYS_close_range, Always),
            Call(libc::SYS_fsync, Always),
            Call(libc::SYS_fdatasync, Always),
            Call(libc::SYS_openat, Bits { argument: 2, mask: bits(WRITES), value: 0 }),
            // Container runtimes' files are opened with RESOLVE_BENEATH. A filter cannot check flags in memory.
            Call(libc::SYS_openat2, Always),
            Call(libc::SYS_newfstatat, Always),
            Call(libc::SYS_fstat, Always),
            Call(libc::SYS_statx, Always),
            Call(libc::SYS_statfs, Always),
            Call(libc::SYS_fstatfs, Always),
            Call(libc::SYS_faccessat, Always),
            Call(libc::SYS_faccessat2, Always),
            Call(libc::SYS_readlinkat, Always),
            Call(libc::SYS_getdents64, Always),
            Call(libc::SYS_getcwd, Always),
            Call(
                libc::SYS_fcntl,
                Is(
                    1,
                    &[
                        F_GETFD as u32,
                        F_SETFD as u32,
                        F_GETFL as u32,
                        F_SETFL as u32,
                        F_DUPFD as u32,
                        F_DUPFD_CLOEXEC as u32,
                        F_GETPIPE_SZ as u32,
                    ],
                ),
            ),
            Call(libc::SYS_ioctl, Is(1, REQUESTS)),
        ],
    },
    Group {
        reason: "memory that is never executable: malloc, stacks of threads",
        calls: &[
            Call(libc::SYS_mmap, Bits { argument: 2, mask: bits(PROT_EXEC), value: 0 }),
            Call(libc::SYS_mprotect, Bits { argument: 2, mask: bits(PROT_EXEC), value: 0 }),
            Call(libc::SYS_munmap, Always),
            Call(libc::SYS_mremap, Always),
            Call(libc::SYS_madvise, Always),
            Call(libc::SYS_brk, Always),
        ],
    },
    Group {
        reason: "threads; clone3 has its flags in memory, so it fails with ENOSYS and glibc uses clone",
        calls: &[
            Call(libc::SYS_clone, Bits { argument: 0, mask: bits(THREAD | NO_THREAD), value: bits(THREAD) }),
            Call(libc::SYS_clone3, Always),
            Call(libc::SYS_futex, Always),
            Call(libc::SYS_set_robust_list, Always),
            Call(libc::SYS_set_tid_address, Always),
            Call(libc::SYS_rseq, Always),
            Call(libc::SYS_membarrier, Always),
            Call(libc::SYS_sched_yield, Always),
            Call(libc::SYS_sched_getaffinity, Always),
            Call(libc::SYS_exit, Always),
            Call(libc::SYS_exit_group, Always),
            Call(libc::SYS_restart_syscall, Always),
        ],
    },
    Group {
        reason: "own identity, resource use and limits, random numbers for hash tables and TLS",
        calls: &[
            Call(libc::SYS_getpid, Always),
            Call(libc::SYS_gettid, Always),
            Call(libc::SYS_getppid, Always),
            Call(libc::SYS_getuid, Always),
            Call(libc::SYS_geteuid, Always),
            Call(libc::SYS_getgid, Always),
            Call(libc::SYS_getegid, Always),
            Call(libc::SYS_uname, Always),
            Call(libc::SYS_sysinfo, Always),
            Call(libc::SYS_getrusage, Always),
            Call(libc::SYS_getcpu, Always),
            Call(libc::SYS_getrandom, Always),
            // Only reading a limit is allowed: the pointer to a new one must be NULL.
            Call(libc::SYS_prlimit64, Bits { argument: 2, mask: u64::MAX, value: 0 }),
        ],
    },
    Group {
        reason: "drop privileges: capabilities, no_new_privs, Landlock; name threads and memory",
        calls: &[
            Call(libc::SYS_capget, Always),
            Call(libc::SYS_capset, Always),
            Call(libc::SYS_landlock_create_ruleset, Always),
            Call(libc::SYS_landlock_add_rule, Always),
            Call(libc::SYS_landlock_restrict_self, Always),
            Call(
                libc::SYS_prctl,
                Is(
                    0,
                    &[
                        PR_SET_NAME as u32,
                        PR_GET_NAME as u32,
                        PR_SET_NO_NEW_PRIVS as u32,
                        PR_GET_NO_NEW_PRIVS as u32,
                        PR_CAPBSET_READ as u32,
                        0x5356_4d41, // PR_SET_VMA: malloc names its mappings
                    ],
                ),
            ),
        ],
    },
    Group {
        reason: "wait for the ring buffer, sockets, signals and timers",
        calls: &[
            Call(libc::SYS_epoll_create1, Always),
            Call(libc::SYS_epoll_ctl, Always),
            Call(libc::SYS_epoll_pwait, Always),
            Call(libc::SYS_epoll_pwait2, Always),
            Call(libc::SYS_ppoll, Always),
            Call(libc::SYS_pselect6, Always),
            Call(libc::SYS_eventfd2, Always),
            Call(libc::SYS_timerfd_create, Always),
            Call(libc::SYS_timerfd_settime, Always),
            Call(libc::SYS_timerfd_gettime, Always),
            Call(libc::SYS_pipe2, Always),
            Call(libc::SYS_dup, Always),
            Call(libc::SYS_dup3, Always),
            Call(libc::SYS_nanosleep, Always),
            Call(libc::SYS_clock_nanosleep, Always),
            Call(libc::SYS_clock_gettime, Always),
            Call(libc::SYS_clock_getres, Always),
            Call(libc::SYS_gettimeofday, Always),
        ],
    },
    Group {
        reason: "signals: handlers, checking whether a process exists (signal 0), aborting this process",
        calls: &[
            Call(libc::SYS_rt_sigaction, Always),
            Call(libc::SYS_rt_sigprocmask, Always),
            Call(libc::SYS_rt_sigreturn, Always),
            Call(libc::SYS_sigaltstack, Always),
            Call(libc::SYS_kill, Is(1, &[0])),
            Call(libc::SYS_tgkill, IsOwnPid(0)),
        ],
    },
    Group {
        reason: "serve HTTP, query the daemons of container runtimes, notify the service manager",
        calls: &[
            Call(libc::SYS_socket, Is(0, FAMILIES)),
            Call(libc::SYS_socketpair, Is(0, &[AF_UNIX as u32])),
            Call(libc::SYS_bind, Always),
            Call(libc::SYS_listen, Always),
            Call(libc::SYS_accept4, Always),
            Call(libc::SYS_connect, Always),
            Call(libc::SYS_shutdown, Always),
            Call(libc::SYS_getsockname, Always),
            Call(libc::SYS_getpeername, Always),
            Call(libc::SYS_getsockopt, Always),
            Call(libc::SYS_setsockopt, Always),
            Call(libc::SYS_sendto, Always),
            Call(libc::SYS_sendmsg, Always),
            // getaddrinfo sends its queries with it.
            Call(libc::SYS_sendmmsg, Always),
            Call(libc::SYS_recvfrom, Always),
            Call(libc::SYS_recvmsg, Always),
        ],
    },
    Group {
        reason: "the kernel side: read and change its maps, take snapshots. Closing their descriptors detaches the hooks",
        calls: &[Call(libc::SYS_bpf, Is(0, BPF_COMMANDS))],
    },
    #[cfg(target_arch = "x86_64")]
    Group {
        reason: "older calls that glibc and rustix use on this architecture",
        calls: &[
            Call(libc::SYS_open, Bits { argument: 1, mask: bits(WRITES), value: 0 }),
            Call(libc::SYS_stat, Always),
            Call(libc::SYS_lstat, Always),
            Call(libc::SYS_access, Always),
            Call(libc::SYS_readlink, Always),
            Call(libc::SYS_poll, Always),
            Call(libc::SYS_epoll_wait, Always),
            Call(libc::SYS_time, Always),
        ],
    },
];
