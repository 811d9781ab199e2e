//! Runs the load in a second process of this binary (`hooks storm NAME …`). It has one thread, so that forking is
//! safe.

use std::{
    arch::asm,
    io, panic,
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use libc::{c_int, c_long};

/// The first argument that selects the load.
pub(crate) const ARGUMENT: &str = "storm";
/// The program that a child of [`Load::Execs`] executes.
const PROGRAM: &std::ffi::CStr = c"/bin/true";

/// The kinds of load.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// Each worker forks a child that exits, and waits for it, `lives` times in all.
    Lives {
        lives: u64,
        workers: u64,
        /// In a new PID namespace (level 1), or in the bench's own.
        inside: bool,
        /// The children share their parent's memory, so that none is copied.
        light: bool,
    },
    /// Children that each execute a program, one after the other.
    Execs(u64),
    /// Calls of getppid(2), which does almost nothing.
    Calls(u64),
    /// Creates PID namespaces, one after the other, until killed.
    Namespaces,
}

/// The time that a load took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Took {
    /// Wall time.
    pub(crate) wall: Duration,
    /// CPU time of the processes. Other work on the machine does not add to it.
    pub(crate) cpu: Duration,
}

impl Load {
    fn to_args(self) -> Vec<String> {
        let words = match self {
            Self::Lives { lives, workers, inside, light } => {
                let place = if inside { "inside" } else { "outside" };
                format!("{place} {lives} {workers} {}", if light { "light" } else { "whole" })
            }
            Self::Execs(count) => format!("execs {count}"),
            Self::Calls(count) => format!("calls {count}"),
            Self::Namespaces => "namespaces".to_owned(),
        };
        words.split(' ').map(str::to_owned).collect()
    }

    fn from_args(args: &[String]) -> Result<Self> {
        let words: Vec<&str> = args.iter().map(String::as_str).collect();
        Ok(match words[..] {
            [place @ ("inside" | "outside"), lives, workers, weight @ ("light" | "whole")] => Self::Lives {
                lives: lives.parse()?,
                workers: workers.parse()?,
                inside: place == "inside",
                light: weight == "light",
            },
            ["execs", count] => Self::Execs(count.parse()?),
            ["calls", count] => Self::Calls(count.parse()?),
            ["namespaces"] => Self::Namespaces,
            _ => bail!("no such load: {words:?}"),
        })
    }

    /// Runs the load in a separate process. Returns the time of the work itself.
    pub(crate) fn run(self) -> Result<Took> {
        let output = self.command()?.stderr(Stdio::inherit()).output().context("start the load")?;
        ensure!(output.status.success(), "the load {self:?} ended with {}", output.status);
        let text = String::from_utf8(output.stdout)?;
        let nanoseconds: Vec<u64> = text
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .context("read the times of the load")?;
        let [wall, cpu] = nanoseconds[..] else { bail!("the load printed {text:?} instead of its times") };
        Ok(Took { wall: Duration::from_nanos(wall), cpu: Duration::from_nanos(cpu) })
    }

    /// Starts the load, which runs until it is dropped.
    pub(crate) fn start(self) -> Result<Background> {
        Ok(Background(self.command()?.stdout(Stdio::null()).spawn().context("start the load")?))
    }

    fn command(self) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe().context("find this binary")?);
        command.arg(ARGUMENT).args(self.to_args()).stdin(Stdio::null());
        Ok(command)
    }
}

/// A running load. Stopped on drop.
pub(crate) struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        // If it cannot be killed, it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The load's `main`.
pub(crate) fn main(args: &[String]) -> ExitCode {
    // SAFETY: PR_SET_PDEATHSIG takes an integer.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    match Load::from_args(args).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(load: Load) -> Result<()> {
    match load {
        Load::Lives { lives, workers, inside: false, light } => timed(|| share(lives, workers, light))?,
        Load::Lives { lives, workers, inside: true, light } => {
            // The init measures the time, so that creation and teardown of the namespace do not count.
            let init =
                clone(libc::CLONE_NEWPID, || i32::from(timed(|| share(lives, workers, light)).is_err()))?;
            wait(init)?;
        }
        Load::Execs(count) => {
            let arguments = [PROGRAM.as_ptr(), std::ptr::null()];
            timed(|| {
                for _ in 0..count {
                    wait(clone(0, || {
                        // SAFETY: the path ends with a NUL, and the list of arguments with a null pointer.
                        unsafe { libc::execv(PROGRAM.as_ptr(), arguments.as_ptr()) };
                        1
                    })?)?;
                }
                Ok(())
            })?;
        }
        Load::Calls(count) => timed(|| {
            for _ in 0..count {
                // SAFETY: getppid takes nothing and cannot fail.
                unsafe { libc::syscall(libc::SYS_getppid) };
            }
            Ok(())
        })?,
        Load::Namespaces => loop {
            wait(clone(libc::CLONE_NEWPID, || 0)?)?;
        },
    }
    Ok(())
}

/// Runs `work`, and reports its time to the bench.
fn timed(work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let (began, cpu_before) = (Instant::now(), cpu_time());
    work()?;
    println!("{} {}", began.elapsed().as_nanos(), (cpu_time() - cpu_before).as_nanos());
    Ok(())
}

/// The CPU time of this process, and of all descendants that were waited for.
fn cpu_time() -> Duration {
    let mut sum = Duration::ZERO;
    for who in [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN] {
        // SAFETY: rusage is plain data, for which zero is a value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: usage is live, and the call cannot fail with these constants.
        unsafe { libc::getrusage(who, &raw mut usage) };
        for time in [usage.ru_utime, usage.ru_stime] {
            sum += Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64);
        }
    }
    sum
}

/// Runs `lives` lives, divided among `workers` processes.
fn share(lives: u64, workers: u64, light: bool) -> io::Result<()> {
    let life = if light { light_life } else { || clone(0, || 0) };
    let mut pids = Vec::new();
    for worker in 0..workers {
        let count = lives / workers + u64::from(worker < lives % workers);
        pids.push(clone(0, || i32::from((0..count).any(|_| life().and_then(wait).is_err())))?);
    }
    pids.into_iter().try_for_each(wait)
}

/// Forks with clone(2), without a new stack. The child runs `life`, and exits with its result.
fn clone(flags: c_int, life: impl FnOnce() -> c_int) -> io::Result<c_int> {
    let flags = c_long::from(flags | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and without a stack the child has its own copy of this stack. There is only one
    // thread.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = panic::catch_unwind(panic::AssertUnwindSafe(life)).unwrap_or(1);
            // SAFETY: _exit never returns, and leaves the child's copy of the memory untouched.
            unsafe { libc::_exit(code) }
        }
        pid => Ok(pid as c_int),
    }
}

/// Forks a child that exits at once. It shares its parent's memory until then, as between vfork(2) and exec.
fn light_life() -> io::Result<c_int> {
    let flags = c_long::from(libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD);
    let result: c_long;
    // SAFETY: this is clone(2). The parent is suspended until the child exits, which touches no memory.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov edi, 0",
            "mov eax, {exit}",
            "syscall",
            "ud2",
            "2:",
            exit = const libc::SYS_exit_group,
            inlateout("rax") libc::SYS_clone => result,
            inlateout("rdi") flags => _,
            in("rsi") 0,
            in("rdx") 0,
            in("r10") 0,
            in("r8") 0,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    if result < 0 { Err(io::Error::from_raw_os_error(-result as i32)) } else { Ok(result as c_int) }
}

/// Waits for a child, which must exit with 0.
fn wait(pid: c_int) -> io::Result<()> {
    let mut status = 0;
    // SAFETY: status is a live c_int.
    match unsafe { libc::waitpid(pid, &raw mut status, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ if status != 0 => Err(io::Error::other(format!("a child ended with the wait status {status:#x}"))),
        _ => Ok(()),
    }
}
