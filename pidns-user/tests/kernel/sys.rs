//! Thin wrappers of the system calls that create the situations.
//!
//! They are for a process with one thread. After a fork the child continues with a copy of this program. That is
//! sound only while no other thread can hold a lock.

// Other test programs include this file by its path, too.
#[path = "sys/mounts.rs"]
mod mounts;
#[path = "sys/pipes.rs"]
mod pipes;

use std::ffi::{CString, c_int, c_long, c_uint, c_ulong};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitStatus;

pub(crate) use self::mounts::*;
pub(crate) use self::pipes::*;

pub(crate) type Pid = libc::pid_t;

pub(crate) const NEWPID: c_int = libc::CLONE_NEWPID;

/// `_IO(0xb7, n)` and `_IOR(0xb7, n, u64)` of linux/nsfs.h.
pub(crate) const NS_GET_USERNS: c_ulong = 0xb701;
pub(crate) const NS_GET_PARENT: c_ulong = 0xb702;
pub(crate) const NS_GET_OWNER_UID: c_ulong = 0xb704;
pub(crate) const NS_GET_ID: c_ulong = 0x8008_b70d;

/// The exit code of a child that panics. The panic prints a line to stderr, and the status reports it to the parent.
const PANICKED: c_int = 101;

fn checked(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The options for a new process.
#[derive(Clone, Default)]
pub(crate) struct Birth {
    pub(crate) flags: c_int,
    /// The PIDs to choose, from the innermost namespace outwards, in clone3's order.
    pub(crate) set_tid: Vec<Pid>,
}

/// Returns the new PID in the parent. The child runs `life` and exits with its result.
fn continue_as(result: c_long, life: impl FnOnce() -> c_int) -> io::Result<Pid> {
    match checked(result)? {
        0 => exit_now(catch_unwind(AssertUnwindSafe(life)).unwrap_or(PANICKED)),
        pid => Ok(pid as Pid),
    }
}

pub(crate) fn fork(life: impl FnOnce() -> c_int) -> io::Result<Pid> {
    clone(0, life)
}

/// clone(2) without a new stack: a fork with additional flags.
pub(crate) fn clone(flags: c_int, life: impl FnOnce() -> c_int) -> io::Result<Pid> {
    let flags = c_long::from(flags | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and without a stack the child has its own copy of this stack. There is only one
    // thread.
    let result = unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) };
    continue_as(result, life)
}

pub(crate) fn clone3(birth: &Birth, life: impl FnOnce() -> c_int) -> io::Result<Pid> {
    // SAFETY: clone_args consists of integers, for which zero is a value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = birth.flags as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if !birth.set_tid.is_empty() {
        args.set_tid = birth.set_tid.as_ptr() as u64;
        args.set_tid_size = birth.set_tid.len() as u64;
    }
    // SAFETY: args and its set_tid live across the call, and the size is passed. The child has its own copy of the
    // stack, as in clone() above.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    continue_as(result, life)
}

pub(crate) fn unshare(flags: c_int) -> io::Result<()> {
    // SAFETY: unshare takes an integer and touches no memory of ours.
    checked(c_long::from(unsafe { libc::unshare(flags) })).map(drop)
}

/// setns(2). `fd` may be a namespace file or a pidfd.
pub(crate) fn setns(fd: BorrowedFd<'_>, flags: c_int) -> io::Result<()> {
    // SAFETY: setns takes integers. The descriptor is open as long as it is borrowed.
    checked(c_long::from(unsafe { libc::setns(fd.as_raw_fd(), flags) })).map(drop)
}

pub(crate) fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes integers and touches no memory of ours.
    let fd = checked(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel just returned this descriptor and nothing else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

pub(crate) fn getpid() -> Pid {
    // SAFETY: cannot fail, touches no memory.
    unsafe { libc::getpid() }
}

pub(crate) fn gettid() -> Pid {
    // SAFETY: cannot fail, touches no memory.
    unsafe { libc::gettid() }
}

pub(crate) fn geteuid() -> u32 {
    // SAFETY: cannot fail, touches no memory.
    unsafe { libc::geteuid() }
}

/// Ends this process without running code from the parent's copy: no destructors, no flushing.
pub(crate) fn exit_now(code: c_int) -> ! {
    // SAFETY: never returns.
    unsafe { libc::_exit(code) }
}

/// Ends only this thread.
pub(crate) fn exit_thread() -> ! {
    // SAFETY: exit(2) ends one thread. Its stack stays mapped, and no other thread uses anything on it.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!("exit(2) returned")
}

/// Raises this process's soft limit of open files to the hard one.
pub(crate) fn allow_many_files() -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes to `limit`, which is live.
    checked(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }.into())?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: setrlimit reads `limit`, which is live.
    checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }.into()).map(drop)
}

/// Pins this thread and its later children to the current CPU. Returns the CPUs that it could run on before.
pub(crate) fn pin_to_own_cpu() -> io::Result<libc::cpu_set_t> {
    // SAFETY: cpu_set_t is a bit set, for which zeros are a value.
    let mut before: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: writes to `before`, whose size is passed.
    checked(unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut before) }.into())?;
    // SAFETY: as above.
    let mut own: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: has no preconditions.
    let cpu = unsafe { libc::sched_getcpu() };
    // SAFETY: a CPU's number is within the set.
    unsafe { libc::CPU_SET(cpu as usize, &mut own) };
    set_cpus(&own)?;
    Ok(before)
}

/// Lets this thread run on these CPUs.
pub(crate) fn set_cpus(cpus: &libc::cpu_set_t) -> io::Result<()> {
    // SAFETY: reads from `cpus`, whose size is passed.
    checked(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), cpus) }.into()).map(drop)
}

pub(crate) fn pause_forever() -> ! {
    loop {
        // SAFETY: only sleeps.
        unsafe { libc::pause() };
    }
}

/// Waits for a child and reaps it.
pub(crate) fn wait(pid: Pid) -> io::Result<ExitStatus> {
    let mut status = 0;
    // SAFETY: status is a live c_int.
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } < 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    }
    Ok(ExitStatus::from_raw(status))
}

/// Waits until a child is a zombie, without reaping it.
pub(crate) fn wait_without_reaping(pid: Pid) -> io::Result<()> {
    // SAFETY: siginfo_t is plain data, for which zero is a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOWAIT;
    // SAFETY: info is live, and the PID is our own child's.
    checked(c_long::from(unsafe { libc::waitid(libc::P_PID, pid as c_uint, &raw mut info, options) }))
        .map(drop)
}

pub(crate) fn kill(pid: Pid, signal: c_int) -> io::Result<()> {
    assert!(pid > 0, "kill({pid}) would reach a group or all processes");
    // SAFETY: kill takes integers and touches no memory of ours.
    checked(c_long::from(unsafe { libc::kill(pid, signal) })).map(drop)
}

/// PTRACE_SEIZE: traces a thread, which continues to run.
pub(crate) fn seize(tid: Pid) -> io::Result<()> {
    // SAFETY: this request has no address and no data.
    checked(unsafe { libc::ptrace(libc::PTRACE_SEIZE, tid, 0_usize, 0_usize) }).map(drop)
}

/// Makes this process die with its parent, so that nothing survives a failed test.
pub(crate) fn die_with_parent() -> io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes an integer.
    checked(c_long::from(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })).map(drop)
}

/// Makes this process a subreaper, which adopts the orphans among its descendants.
pub(crate) fn become_subreaper() -> io::Result<()> {
    // SAFETY: PR_SET_CHILD_SUBREAPER takes an integer.
    checked(c_long::from(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) })).map(drop)
}

/// Starts a new process group and leads it.
pub(crate) fn new_group() -> io::Result<()> {
    // SAFETY: setpgid takes integers and touches no memory.
    checked(c_long::from(unsafe { libc::setpgid(0, 0) })).map(drop)
}

/// Starts a new session and leads it.
pub(crate) fn new_session() -> io::Result<()> {
    // SAFETY: setsid touches no memory.
    checked(c_long::from(unsafe { libc::setsid() })).map(drop)
}

/// PR_SET_NAME. The kernel keeps the first 15 bytes.
pub(crate) fn set_name(name: &[u8]) -> io::Result<()> {
    let name = CString::new(name).expect("a process name without NUL");
    // SAFETY: name is NUL-terminated and lives across the call.
    checked(c_long::from(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) })).map(drop)
}

/// Drops every identity, and with it every capability.
pub(crate) fn become_uid(uid: u32) -> io::Result<()> {
    // SAFETY: setresgid takes integers. The raw call changes only this thread, which is the only one.
    checked(unsafe { libc::syscall(libc::SYS_setresgid, uid, uid, uid) })?;
    // SAFETY: as above.
    checked(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// rt_sigqueueinfo(2): sends a signal with a chosen `si_code`.
pub(crate) fn queue_signal(pid: Pid, signal: c_int, code: c_int) -> io::Result<()> {
    // SAFETY: siginfo_t is plain data.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    info.si_signo = signal;
    info.si_code = code;
    // SAFETY: info lives across the call.
    checked(unsafe { libc::syscall(libc::SYS_rt_sigqueueinfo, pid, signal, &raw const info) }).map(drop)
}

/// Makes the kernel kill this process with SIGKILL after this much processor time (RLIMIT_CPU).
pub(crate) fn limit_processor_time(seconds: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: seconds, rlim_max: seconds };
    // SAFETY: limit lives across the call.
    checked(c_long::from(unsafe { libc::setrlimit(libc::RLIMIT_CPU, &raw const limit) })).map(drop)
}

/// After a change of identity, allows other processes of the new identity to read this process.
pub(crate) fn be_dumpable() -> io::Result<()> {
    // SAFETY: PR_SET_DUMPABLE takes an integer.
    checked(c_long::from(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) })).map(drop)
}

/// Installs a seccomp filter: the kernel answers these system calls of this process with these error numbers, and
/// does not run them.
pub(crate) fn answer_calls(answers: &[(c_long, c_int)]) -> io::Result<()> {
    let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    // The number of the call is the first field of a filter's input.
    let mut program = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for &(call, errno) in answers {
        program.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call as u32));
        program.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32));
    }
    program.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: PR_SET_NO_NEW_PRIVS takes integers.
    checked(c_long::from(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }))?;
    // SAFETY: the filter and its program live across the call.
    let set =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter) };
    checked(set).map(drop)
}

pub(crate) fn forbid_core_dumps() -> io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: none lives across the call.
    checked(c_long::from(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) })).map(drop)
}

/// Limits the number of this user's processes (RLIMIT_NPROC).
pub(crate) fn limit_processes(most: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: limit lives across the call.
    checked(c_long::from(unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &raw const limit) })).map(drop)
}

pub(crate) extern "C" fn on_signal_do_nothing(_: c_int) {}

/// Sets SIG_DFL, SIG_IGN, or a handler that does nothing.
pub(crate) fn set_disposition(signal: c_int, disposition: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: the disposition is one of the two constants, or on_signal_do_nothing, which is async-signal-safe.
    if unsafe { libc::signal(signal, disposition) } == libc::SIG_ERR {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

pub(crate) fn block_signal(signal: c_int) -> io::Result<()> {
    // SAFETY: sigset_t is plain data, made valid by sigemptyset before it is used.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: set is live.
    unsafe { libc::sigemptyset(&raw mut set) };
    // SAFETY: set is live and initialised. The signal number is a constant of libc.
    unsafe { libc::sigaddset(&raw mut set, signal) };
    // SAFETY: set is live. The old mask is not requested.
    checked(c_long::from(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) }))
        .map(drop)
}

/// Reads an invalid address, like a program with a bug.
pub(crate) fn segfault() -> ! {
    // SAFETY: the fault is intended. It ends this process, because SIGSEGV has its default action here.
    let value = unsafe { std::ptr::without_provenance::<u8>(8).read_volatile() };
    unreachable!("address 8 holds {value}")
}

/// Replaces this program. Returns only on error.
pub(crate) fn exec(program: &str, args: &[&str]) -> io::Error {
    let strings: Vec<CString> = std::iter::once(&program)
        .chain(args)
        .map(|text| CString::new(*text).expect("an argument without NUL"))
        .collect();
    let mut pointers: Vec<_> = strings.iter().map(|text| text.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: both the strings and the NULL-terminated array live across the call.
    unsafe { libc::execv(pointers[0], pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// reboot(2) with this command. In the initial PID namespace it affects the whole machine: only the caller's checks
/// prevent that.
pub(crate) fn reboot(command: c_int) -> io::Error {
    // SAFETY: reboot takes an integer and touches no memory of ours.
    unsafe { libc::reboot(command) };
    io::Error::last_os_error()
}

/// The clock of the kernel's timestamps for processes and events.
pub(crate) fn boot_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: now is live.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    assert_eq!(result, 0, "read CLOCK_BOOTTIME");
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// An nsfs ioctl that returns a descriptor.
pub(crate) fn ns_ioctl_fd(fd: BorrowedFd<'_>, request: c_ulong) -> io::Result<OwnedFd> {
    // SAFETY: these requests take no argument.
    let result = checked(c_long::from(unsafe { libc::ioctl(fd.as_raw_fd(), request as _) }))?;
    // SAFETY: the kernel just returned this descriptor and nothing else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(result as c_int) })
}

/// An nsfs ioctl that fills in an integer. `T` must have the size that the request names.
pub(crate) fn ns_ioctl_value<T: Default>(fd: BorrowedFd<'_>, request: c_ulong) -> io::Result<T> {
    let mut value = T::default();
    // SAFETY: value is live and as large as the request states. The kernel writes an integer into it.
    checked(c_long::from(unsafe { libc::ioctl(fd.as_raw_fd(), request as _, &raw mut value) }))?;
    Ok(value)
}

/// Opens a terminal of this size: the end that shows it, and the end that programs write to.
pub(crate) fn terminal(rows: u16, columns: u16) -> io::Result<(OwnedFd, OwnedFd)> {
    let (mut master, mut slave) = (-1, -1);
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: both descriptors and the size are live. The name and the settings may be null.
    match unsafe {
        libc::openpty(
            &raw mut master,
            &raw mut slave,
            std::ptr::null_mut(),
            std::ptr::null(),
            &raw const size,
        )
    } {
        // SAFETY: openpty just returned these descriptors and nothing else has them.
        0 => Ok(unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) }),
        _ => Err(io::Error::last_os_error()),
    }
}
