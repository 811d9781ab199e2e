//! A process that limits itself like an agent, and then tries allowed and forbidden actions.

use std::collections::BTreeMap;
use std::ffi::{c_int, c_long};
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use pidns_user::event::identity::{BootNs, HostPid};
use pidns_user::kernel::capabilities::{self, Uses};
use pidns_user::kernel::sandbox;
use pidns_user::procfs::limits::LimitReader;
use pidns_user::procfs::{Procfs, kernel_holders::KernelHolders};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

use super::{Situation, report};
use crate::sys;

pub(super) const SITUATIONS: &[Situation] =
    &[("limited-calls", |_| limited_calls()), ("limited-thread", |args| limited_thread(&args[0]))];

/// The outcome of each attempt: "ok", or its error.
type Attempts = BTreeMap<String, String>;

fn outcome_of<T>(result: io::Result<T>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => match error.raw_os_error() {
            Some(libc::EPERM) => "EPERM".to_owned(),
            Some(libc::EACCES) => "EACCES".to_owned(),
            Some(libc::ENOSYS) => "ENOSYS".to_owned(),
            _ => error.to_string(),
        },
    }
}

/// A PID that no process has.
const UNUSED_PID: usize = i32::MAX as usize;
/// An invalid descriptor, address, key or id, so that the call fails.
const INVALID: usize = usize::MAX;

/// System calls that must be refused. Each is harmless if it is allowed: it fails, or changes nothing important.
fn refused_calls() -> Vec<(&'static str, c_long, [usize; 5])> {
    let path = c"/nonexistent/pidns-trace-test".as_ptr() as usize;
    let root = c"/".as_ptr() as usize;
    let null_device = c"/dev/null".as_ptr() as usize;
    let own = sys::getpid() as usize;
    // SAFETY: cannot fail, touches no memory.
    let parent = unsafe { libc::getppid() } as usize;
    let here = libc::AT_FDCWD as usize;
    let (write, create, truncate) = (libc::O_WRONLY, libc::O_CREAT | libc::O_EXCL, libc::O_TRUNC);
    let private = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
    let executable = (libc::PROT_READ | libc::PROT_EXEC) as usize;
    vec![
        ("execve", libc::SYS_execve, [path, 0, 0, 0, 0]),
        ("execveat", libc::SYS_execveat, [here, path, 0, 0, 0]),
        ("ptrace", libc::SYS_ptrace, [libc::PTRACE_ATTACH as usize, UNUSED_PID, 0, 0, 0]),
        ("process_vm_readv", libc::SYS_process_vm_readv, [UNUSED_PID, 0, 0, 0, 0]),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, [INVALID, 0, 0, 0, 0]),
        ("mount", libc::SYS_mount, [path, path, 0, 0, 0]),
        ("umount2", libc::SYS_umount2, [path, 0, 0, 0, 0]),
        ("fsopen", libc::SYS_fsopen, [0, 0, 0, 0, 0]),
        ("pivot_root", libc::SYS_pivot_root, [path, path, 0, 0, 0]),
        ("chroot", libc::SYS_chroot, [path, 0, 0, 0, 0]),
        ("setns", libc::SYS_setns, [INVALID, 0, 0, 0, 0]),
        ("unshare", libc::SYS_unshare, [0, 0, 0, 0, 0]),
        ("init_module", libc::SYS_init_module, [0, 0, 0, 0, 0]),
        ("finit_module", libc::SYS_finit_module, [INVALID, 0, 0, 0, 0]),
        ("kexec_load", libc::SYS_kexec_load, [0, 1_000, 0, 0, 0]),
        ("reboot with a wrong magic number", libc::SYS_reboot, [1, 2, 3, 0, 0]),
        ("load an eBPF program", libc::SYS_bpf, [5, 0, 0, 0, 0]),
        ("make an eBPF map", libc::SYS_bpf, [0, 0, 0, 0, 0]),
        ("perf_event_open", libc::SYS_perf_event_open, [0, 0, 0, INVALID, 0]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [0, 0, 0, 0, 0]),
        ("keyctl", libc::SYS_keyctl, [INVALID, 0, 0, 0, 0]),
        ("setresuid", libc::SYS_setresuid, [INVALID, INVALID, INVALID, 0, 0]),
        ("open to write", libc::SYS_openat, [here, null_device, write as usize, 0, 0]),
        ("open to create", libc::SYS_openat, [here, root, create as usize, 0, 0]),
        ("open to truncate", libc::SYS_openat, [here, null_device, truncate as usize, 0, 0]),
        ("mkdirat", libc::SYS_mkdirat, [here, root, 0, 0, 0]),
        ("unlinkat", libc::SYS_unlinkat, [here, path, 0, 0, 0]),
        ("renameat2", libc::SYS_renameat2, [here, path, here, path, 0]),
        ("map executable memory", libc::SYS_mmap, [0, 4096, executable, private, INVALID]),
        ("make memory executable", libc::SYS_mprotect, [0, 0, executable, 0, 0]),
        ("a netlink socket", libc::SYS_socket, [libc::AF_NETLINK as usize, libc::SOCK_RAW as usize, 0, 0, 0]),
        ("a signal to this process", libc::SYS_kill, [own, libc::SIGURG as usize, 0, 0, 0]),
        ("a signal to the parent", libc::SYS_tgkill, [parent, parent, libc::SIGURG as usize, 0, 0]),
        ("set a limit", libc::SYS_prlimit64, [0, INVALID, UNUSED_PID, 0, 0]),
        ("prctl PR_SET_DUMPABLE", libc::SYS_prctl, [libc::PR_SET_DUMPABLE as usize, 1, 0, 0, 0]),
        ("push a character to the terminal", libc::SYS_ioctl, [0, libc::TIOCSTI as usize, 0, 0, 0]),
        ("memfd_create", libc::SYS_memfd_create, [0, 0, 0, 0, 0]),
        ("seccomp", libc::SYS_seccomp, [INVALID, 0, 0, 0, 0]),
        #[cfg(target_arch = "x86_64")]
        ("open to write, by the older call", libc::SYS_open, [null_device, write as usize, 0, 0, 0]),
        #[cfg(target_arch = "x86_64")]
        ("a system call of the x32 ABI", 0x4000_0000 | libc::SYS_getpid, [0, 0, 0, 0, 0]),
    ]
}

fn raw_call(number: c_long, [a, b, c, d, e]: [usize; 5]) -> io::Result<()> {
    // SAFETY: each call is harmless if it is allowed (`refused_calls`). The kernel writes to none of the addresses.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, 0_usize) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// getpid through the 32-bit system call interface.
#[cfg(target_arch = "x86_64")]
fn getpid_32() -> io::Result<()> {
    const GETPID: c_int = 20;
    let result: c_int;
    // SAFETY: getpid takes no argument and touches no memory. Older kernels clear r8 to r11.
    unsafe {
        std::arch::asm!(
            "int 0x80",
            inlateout("eax") GETPID => result,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            options(nostack)
        );
    }
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
}

fn refused_attempts() -> Attempts {
    let mut attempts: Attempts = refused_calls()
        .into_iter()
        .map(|(name, number, arguments)| (name.to_owned(), outcome_of(raw_call(number, arguments))))
        .collect();
    let mut add =
        |name: &str, result: io::Result<()>| drop(attempts.insert(name.to_owned(), outcome_of(result)));
    add("fork", sys::fork(|| 0).and_then(sys::wait).map(drop));
    add("clone into a PID namespace", sys::clone(sys::NEWPID, || 0).and_then(sys::wait).map(drop));
    #[cfg(target_arch = "x86_64")]
    if accepts_32_bit_calls() {
        add("a 32-bit system call", getpid_32());
    }
    attempts
}

/// Whether this kernel accepts 32-bit calls (CONFIG_IA32_EMULATION). If not, a 32-bit call kills the caller.
#[cfg(target_arch = "x86_64")]
fn accepts_32_bit_calls() -> bool {
    use std::sync::OnceLock;
    static ACCEPTS: OnceLock<bool> = OnceLock::new();
    *ACCEPTS.get_or_init(|| {
        let tried = sys::fork(|| c_int::from(getpid_32().is_err())).and_then(sys::wait);
        tried.expect("wait for the forked process").success()
    })
}

/// Actions that an agent still needs.
fn allowed_attempts() -> Attempts {
    let mut attempts = Attempts::new();
    let mut add =
        |name: &str, result: io::Result<()>| drop(attempts.insert(name.to_owned(), outcome_of(result)));
    let parent = std::os::unix::process::parent_id();
    add("read a file", fs::read("/proc/version").map(drop));
    add("list a folder", fs::read_dir("/proc").and_then(|mut files| files.next().transpose()).map(drop));
    add("the status of a process", fs::read(format!("/proc/{parent}/status")).map(drop));
    add("the namespace of a process", fs::read_link(format!("/proc/{parent}/ns/pid")).map(drop));
    add(
        "the files of a process",
        fs::read_dir(format!("/proc/{parent}/fd")).and_then(|mut files| files.next().transpose()).map(drop),
    );
    add("check whether a process exists", sys::kill(parent as sys::Pid, 0));
    add("open a file beneath a directory, like those of container runtimes", beneath("/proc/self", "status"));
    add("a snapshot with holders", snapshot());
    add("limits", limits(HostPid(parent)));
    add("a thread", thread_with_memory());
    add("TCP over loopback", tcp());
    add("Unix sockets", unix());
    add("a tokio runtime with timers and signals", runtime());
    add("drop capabilities", capabilities::drop_all_but(Uses::BpfAndProc));
    add("count the CPUs", thread::available_parallelism().map(drop));
    add("look up in an eBPF map", look_up_in_no_map());
    attempts
}

/// Calls BPF_MAP_LOOKUP_ELEM with descriptor -1. If the filter allows the call, the kernel refuses the descriptor
/// (EBADF).
fn look_up_in_no_map() -> io::Result<()> {
    const MAP_LOOKUP_ELEM: usize = 1;
    let attributes = [u64::from(u32::MAX), 0, 0, 0];
    let size = size_of_val(&attributes);
    let result = raw_call(libc::SYS_bpf, [MAP_LOOKUP_ELEM, attributes.as_ptr() as usize, size, 0, 0]);
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EBADF) => Ok(()),
        Ok(()) => Err(io::Error::other("the lookup succeeded")),
        other => other,
    }
}

fn beneath(folder: &str, file: &str) -> io::Result<()> {
    let folder = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let file = openat2(folder, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::BENEATH)?;
    io::read_to_string(fs::File::from(file)).map(drop)
}

fn snapshot() -> io::Result<()> {
    let procfs = Procfs::default();
    let mut snapshot = procfs.snapshot(BootNs(0), &mut || {})?;
    procfs.add_holders(&mut snapshot, KernelHolders::default(), &mut || {});
    let own = snapshot.processes.iter().find(|process| process.pid == HostPid(std::process::id()));
    let own = own.ok_or_else(|| io::Error::other("the snapshot lacks this process"))?;
    own.ns.map(drop).ok_or_else(|| io::Error::other("its namespace is unknown"))
}

fn limits(pid: HostPid) -> io::Result<()> {
    let procfs = Procfs::default();
    let limit = LimitReader::new(&procfs).and_then(|mut reader| reader.tightest(pid));
    limit.map_err(|error| error.error)?.map(drop).ok_or_else(|| io::Error::other("no limit was found"))
}

/// Runs a thread that uses so much memory that malloc calls mmap and munmap.
fn thread_with_memory() -> io::Result<()> {
    let work = || {
        let mut all: Vec<Vec<u8>> = (0..64).map(|size| vec![1; size << 14]).collect();
        all.iter_mut().for_each(|bytes| bytes.resize(bytes.len() * 2, 2));
        thread::sleep(Duration::from_millis(1));
        all.iter().map(Vec::len).sum::<usize>()
    };
    let size = thread::Builder::new().name("worker".to_owned()).spawn(work)?.join();
    size.map(drop).map_err(|_| io::Error::other("the thread panicked"))
}

fn tcp() -> io::Result<()> {
    exchange(&TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?)
}

/// Accepts a connection from a client in another thread.
fn exchange(listener: &TcpListener) -> io::Result<()> {
    let address = listener.local_addr()?;
    thread::scope(|scope| {
        let client = scope.spawn(move || TcpStream::connect(address)?.write_all(b"hello"));
        serve_one(listener)?;
        client.join().expect("the client does not panic")
    })
}

fn serve_one(listener: &TcpListener) -> io::Result<()> {
    let (mut connection, _) = listener.accept()?;
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut text = String::new();
    connection.read_to_string(&mut text)?;
    if text == "hello" { Ok(()) } else { Err(io::Error::other(format!("the client sent {text:?}"))) }
}

fn unix() -> io::Result<()> {
    let (mut one, mut other) = UnixStream::pair()?;
    one.write_all(b"x")?;
    other.read_exact(&mut [0])
}

fn runtime() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::user_defined1())?;
        let worked = tokio::task::spawn_blocking(|| fs::read("/proc/self/stat")).await;
        worked.expect("the thread does not panic")?;
        // SAFETY: raise takes an integer. The runtime handles this signal.
        unsafe { libc::raise(libc::SIGUSR1) };
        let received = tokio::time::timeout(Duration::from_secs(10), signals.recv()).await;
        received.map(drop).map_err(|_| io::Error::other("no signal arrived"))
    })
}

fn limited_calls() -> c_int {
    report("before", refused_attempts());
    let (limited, wait) = mpsc::channel();
    // The filter must also apply to threads that started before it.
    let thread = thread::spawn(move || {
        wait.recv().expect("the limits are set");
        refused_attempts()
    });
    let protection = sandbox::restrict_system_calls();
    report("protection", protection.to_string());
    limited.send(()).expect("wake the thread");
    report("refused to an earlier thread", thread.join().expect("the thread does not panic"));
    report("refused", refused_attempts());
    report("clone3", outcome_of(raw_call(libc::SYS_clone3, [0, 0, 0, 0, 0])));
    report("allowed", allowed_attempts());
    0
}

fn limited_thread(folder: &str) -> c_int {
    report("calls", sandbox::restrict_system_calls().to_string());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let address = listener.local_addr().expect("read the address");
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            let folder = Path::new(folder);
            match sandbox::restrict_network_thread(&[folder, &folder.join("config"), &folder.join("nowhere")])
            {
                Err(error) => report("a path that is not there", error.to_string()),
                Ok(protection) => panic!("a path does not exist, but: {protection}"),
            }
            let protection = sandbox::restrict_network_thread(&[folder, &folder.join("config")]);
            report("protection", protection.expect("limit the thread").to_string());
            report("attempts", attempts_of_server(folder, &listener));
            let child = thread::spawn(|| outcome_of(fs::read("/proc/version"))).join();
            report("of a thread that it starts", child.expect("the child thread does not panic"));
        });
        TcpStream::connect(address)
            .and_then(|mut client| client.write_all(b"hello"))
            .expect("connect to the server");
        server.join().expect("the server does not panic");
    });
    report(
        "of the other thread",
        outcome_of(fs::read_link(format!("/proc/{}/ns/pid", std::os::unix::process::parent_id()))),
    );
    0
}

fn attempts_of_server(folder: &Path, listener: &TcpListener) -> Attempts {
    let mut attempts = Attempts::new();
    let mut add =
        |name: &str, result: io::Result<()>| drop(attempts.insert(name.to_owned(), outcome_of(result)));
    let parent = std::os::unix::process::parent_id();
    add("accept", serve_one(listener));
    add("read its folder", fs::read(folder.join("config")).map(drop));
    add("list its folder", fs::read_dir(folder).map(drop));
    add("read elsewhere", fs::read("/proc/version").map(drop));
    add("list elsewhere", fs::read_dir("/").map(drop));
    add("the status of a process", fs::read(format!("/proc/{parent}/status")).map(drop));
    add("the namespace of a process", fs::read_link(format!("/proc/{parent}/ns/pid")).map(drop));
    add("connect", TcpStream::connect(listener.local_addr().expect("an address")).map(drop));
    add("bind", TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map(drop));
    // The system call filter cannot see the flags of openat2, so it allows the call. Landlock must refuse to write.
    add("write by openat2", write_by_openat2(&folder.join("config")));
    add("write", OpenOptions::new().write(true).open(folder.join("config")).map(drop));
    attempts
}

fn write_by_openat2(path: &Path) -> io::Result<()> {
    let opened = openat2(CWD, path, OFlags::WRONLY, Mode::empty(), ResolveFlags::empty());
    opened.map(drop).map_err(io::Error::from)
}
