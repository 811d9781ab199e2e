//! Starts a private server program on this machine; stopped on drop.

use std::{
    env,
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use crate::Error;

/// The longest time that a program may take to get ready. Prometheus reads its data first.
const READY: Duration = Duration::from_secs(30);
/// The longest time that it may take to stop.
const END: Duration = Duration::from_secs(10);
/// The time between two checks of a condition.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// A running program and its log.
#[derive(Debug)]
pub(crate) struct Process {
    program: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program from the Debian package of the same name: see [`Process::start_of`].
    pub(crate) fn start(program: &'static str, arguments: &[String], log: &Path) -> Result<Self, Error> {
        Self::start_of(program, program, arguments, log)
    }

    /// Starts a program from a Debian package, with its output in the log. It ends at the latest with the thread that
    /// started it, because a test that is killed drops nothing.
    pub(crate) fn start_of(
        package: &'static str,
        program: &'static str,
        arguments: &[String],
        log: &Path,
    ) -> Result<Self, Error> {
        let path = find(program).ok_or(Error::NotInstalled { program, package })?;
        let output = File::create(log).and_then(|output| Ok((output.try_clone()?, output)));
        let (stdout, stderr) = output.map_err(of_file("write", log))?;
        let mut command = Command::new(path);
        command.args(arguments).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        // SAFETY: between fork and exec the closure makes one system call, which takes an integer.
        unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?)) };
        let child = command.spawn().map_err(|error| Error::Start { program, error })?;
        Ok(Self { program, child, log: log.to_owned() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the program is ready.
    pub(crate) fn wait_until(&mut self, is_ready: impl Fn() -> bool) -> Result<(), Error> {
        let program = self.program;
        let start = Instant::now();
        while start.elapsed() < READY {
            if let Some(status) = self.child.try_wait().map_err(|error| Error::Start { program, error })? {
                let status = status.to_string();
                return Err(Error::EndedEarly { program, status, log: self.end_of_log() });
            }
            if is_ready() {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        Err(Error::NotReady { program, after: READY, log: self.end_of_log() })
    }

    /// The last lines of its log.
    fn end_of_log(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_else(|error| format!("(cannot be read: {error})"));
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // If it has ended already, there is no process to signal, and the wait returns at once.
        let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        let start = Instant::now();
        while start.elapsed() < END {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes an [`Error::File`] of an I/O error.
pub(crate) fn of_file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |error| Error::File { action, path, error }
}

/// Finds a program on PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// An address of the loopback interface that was free just now.
///
/// # Errors
/// If the machine has no free port.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
