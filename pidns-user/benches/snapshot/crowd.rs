//! Runs the crowd, which is many idle processes in PID namespaces. A second process of this binary (`snapshot crowd
//! …`) makes them. It has one thread, so that forking is safe.

use std::{
    fs, io,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use libc::{c_int, c_long};

/// The first argument that selects the crowd.
pub(crate) const ARGUMENT: &str = "crowd";
/// The default number of processes in a namespace, its init included.
pub(crate) const MEMBERS: u64 = 6;

/// A waiting crowd. Dropping it ends all its processes.
pub(crate) struct Crowd(Child);

impl Crowd {
    /// Starts `processes` processes, `members` of them in each namespace (init included). Every second namespace is
    /// nested in the one before it.
    pub(crate) fn start(processes: u64, members: u64) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe().context("find this binary")?);
        command.args([ARGUMENT, &(processes / members).to_string(), &members.to_string()]);
        let child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("start the crowd")?;
        let mut crowd = Self(child);
        let mut line = String::new();
        BufReader::new(crowd.0.stdout.take().context("the crowd's output is not a pipe")?)
            .read_line(&mut line)?;
        ensure!(line == "ready\n", "the crowd of {processes} processes did not start");
        Ok(crowd)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // The crowd waits for the end of its input. If it has ended, there is no reader.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// The reason why this machine has no room for so many more processes. `None` if it has room.
pub(crate) fn no_room_for(processes: u64, members: u64) -> Option<String> {
    /// Room for other programs that start meanwhile.
    const SPARE: u64 = 500;
    let number = |path: &str| -> Option<u64> { fs::read_to_string(path).ok()?.trim().parse().ok() };
    // /proc/loadavg is "… running/all last", where `all` counts threads.
    let loadavg = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let threads = loadavg.split_whitespace().nth(3).and_then(|field| field.split_once('/')?.1.parse().ok());
    let threads: u64 = threads.unwrap_or(0);
    let limits = [
        ("kernel.pid_max", number("/proc/sys/kernel/pid_max"), threads + processes + SPARE),
        ("kernel.threads-max", number("/proc/sys/kernel/threads-max"), threads + processes + SPARE),
        ("user.max_pid_namespaces", number("/proc/sys/user/max_pid_namespaces"), processes / members + SPARE),
        // An idle process takes 70 to 90 KiB of kernel memory, as measured here.
        ("MemAvailable, in KiB,", memory_available(), processes * 100 + 1_000_000),
    ];
    limits.into_iter().find_map(|(name, limit, needed)| {
        let limit = limit.filter(|&limit| limit < needed)?;
        Some(format!("{name} is {limit}, but {needed} are needed"))
    })
}

fn memory_available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The crowd's `main`.
pub(crate) fn main(args: &[String]) -> ExitCode {
    // SAFETY: PR_SET_PDEATHSIG takes an integer.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    match gather(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crowd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn gather(args: &[String]) -> Result<()> {
    let [namespaces, members] = args else {
        bail!("expected two arguments: the number of namespaces, and of processes in each")
    };
    let (namespaces, members): (u64, u64) = (namespaces.parse()?, members.parse()?);
    let (mut ready, to_ready) = io::pipe().context("create a pipe")?;
    let mut inits = Vec::new();
    for index in 0..namespaces.div_ceil(2) {
        let nested = 2 * index + 1 < namespaces;
        inits.push(
            clone(libc::CLONE_NEWPID, || namespace(members, nested, &to_ready))
                .context("create a namespace")?,
        );
        // Create them one after the other, because all at the same time would be a storm.
        let mut bytes = [0; 2];
        ready.read_exact(&mut bytes[..1 + usize::from(nested)]).context("wait for a namespace")?;
        ensure!(!bytes.contains(&b'-'), "a process could not be forked");
    }
    println!("ready");
    io::stdin().read_to_end(&mut Vec::new()).context("wait for the end")?;
    for init in inits {
        // SAFETY: kill takes integers. The init is a child that was not waited for.
        unsafe { libc::kill(init, libc::SIGKILL) };
        // SAFETY: the status may be null.
        unsafe { libc::waitpid(init, std::ptr::null_mut(), 0) };
    }
    Ok(())
}

/// The work of an init: it forks the members, and reports the result.
fn namespace(members: u64, nested: bool, mut to_ready: &io::PipeWriter) {
    // SAFETY: PR_SET_PDEATHSIG takes an integer.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let mut all = (1..members).all(|_| clone(0, || {}).is_ok());
    if nested {
        all &= clone(libc::CLONE_NEWPID, || namespace(members, false, to_ready)).is_ok();
    }
    // A failed write means that the reader has ended, which also ends this process.
    let _ = to_ready.write_all(if all { b"+" } else { b"-" });
}

/// Forks with clone(2), without a new stack. The child does `work`, and then pauses until it is killed.
fn clone(flags: c_int, work: impl FnOnce()) -> io::Result<c_int> {
    let flags = c_long::from(flags | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and without a stack the child has its own copy of this stack. There is only one
    // thread.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            work();
            loop {
                // SAFETY: pause has no preconditions.
                unsafe { libc::pause() };
            }
        }
        pid => Ok(pid as c_int),
    }
}
