//! What a process knows about itself, and what /proc shows about it. Events are compared with these facts.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use serde::{Deserialize, Serialize};

use crate::sys::{self, Pid};

/// A process as the host's /proc shows it. That /proc was mounted in the initial namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Who {
    pub(crate) pid: Pid,
    /// NSpid: its PIDs at all levels, outermost first.
    pub(crate) pids: Vec<Pid>,
    pub(crate) ppid: Pid,
    pub(crate) uid: u32,
    pub(crate) comm: String,
    /// Its innermost PID namespace.
    pub(crate) ns: u64,
    /// Its start in clock ticks (10 ms) since boot.
    pub(crate) start_ticks: u64,
}

impl Who {
    /// The process with this PID, or "self".
    pub(crate) fn of(pid: &str) -> Self {
        let status = read(&format!("/proc/{pid}/status"));
        let stat = read(&format!("/proc/{pid}/stat"));
        let comm = fs::read(format!("/proc/{pid}/comm")).expect("read the process's name");
        let comm = String::from_utf8_lossy(comm.trim_ascii_end()).into_owned();
        // Field 22. Counting starts after the name, which may contain anything.
        let (_, numbers) = stat.rsplit_once(')').expect("a name in parentheses");
        let start_ticks = numbers.split_whitespace().nth(19).expect("22 fields in /proc/PID/stat");
        let pids = field(&status, "NSpid").split_whitespace().map(number).collect::<Vec<Pid>>();
        Self {
            pid: pids[0],
            ppid: number(field(&status, "PPid")),
            uid: field(&status, "Uid").split_whitespace().next().map(number).expect("a uid"),
            comm,
            ns: inode(&format!("/proc/{pid}/ns/pid")).expect("read the PID namespace"),
            start_ticks: number(start_ticks),
            pids,
        }
    }

    pub(crate) fn myself() -> Self {
        Self::of("self")
    }

    /// Its level: 0 in the initial namespace.
    pub(crate) fn level(&self) -> usize {
        self.pids.len() - 1
    }
}

/// An open namespace file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Held {
    /// The process.
    pub(crate) pid: Pid,
    /// The descriptor.
    pub(crate) fd: i32,
    /// The thread, if it has a separate file table, or if the first thread has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tid: Option<Pid>,
}

/// A PID namespace, as nsfs describes it to an outside process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Namespace {
    pub(crate) inum: u64,
    pub(crate) parent: u64,
    pub(crate) user_ns: u64,
    pub(crate) owner_uid: u32,
    /// The serial number, which the kernel never reuses. `None` on kernels without one (before 6.18).
    pub(crate) kernel_id: Option<u64>,
}

impl Namespace {
    /// The innermost PID namespace of `pid`.
    pub(crate) fn of(pid: Pid) -> Self {
        let file = File::open(format!("/proc/{pid}/ns/pid")).expect("open the PID namespace");
        let parent = sys::ns_ioctl_fd(file.as_fd(), sys::NS_GET_PARENT).expect("get the parent namespace");
        let user = sys::ns_ioctl_fd(file.as_fd(), sys::NS_GET_USERNS).expect("get the owning user namespace");
        Self {
            inum: file.metadata().expect("an inode").ino(),
            parent: File::from(parent).metadata().expect("an inode").ino(),
            owner_uid: sys::ns_ioctl_value(user.as_fd(), sys::NS_GET_OWNER_UID).expect("get the owner's uid"),
            user_ns: File::from(user).metadata().expect("an inode").ino(),
            kernel_id: sys::ns_ioctl_value(file.as_fd(), sys::NS_GET_ID).ok(),
        }
    }
}

/// The kernel clock just before and just after an action.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Window {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Window {
    /// Runs the action, and notes the time before and after it.
    pub(crate) fn around<T>(deed: impl FnOnce() -> T) -> (Self, T) {
        let from = sys::boot_ns();
        let result = deed();
        (Self { from, to: sys::boot_ns() }, result)
    }
}

/// A decoded wait status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) core: bool,
}

impl From<ExitStatus> for Ended {
    fn from(status: ExitStatus) -> Self {
        Self { code: status.code(), signal: status.signal(), core: status.core_dumped() }
    }
}

/// A system call that the kernel refused.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Refused {
    /// The name of the system call.
    pub(crate) via: String,
    /// The error, such as "ENOSPC". "none" if the call succeeded.
    pub(crate) errno: String,
    pub(crate) who: Who,
}

pub(crate) fn errno_name(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM) => "EPERM".into(),
        Some(libc::EAGAIN) => "EAGAIN".into(),
        Some(libc::ENOMEM) => "ENOMEM".into(),
        Some(libc::EEXIST) => "EEXIST".into(),
        Some(libc::EINVAL) => "EINVAL".into(),
        Some(libc::ENOSPC) => "ENOSPC".into(),
        Some(libc::ENOSYS) => "ENOSYS".into(),
        Some(other) => format!("errno {other}"),
        None => error.to_string(),
    }
}

/// The inode number of a namespace file.
pub(crate) fn inode(path: &str) -> io::Result<u64> {
    fs::metadata(path).map(|metadata| metadata.ino())
}

/// The state letter of a task. `None` if the task does not exist.
pub(crate) fn state(stat_path: &str) -> Option<char> {
    let stat = fs::read_to_string(stat_path).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// A number in the status of a process or thread. `None` if it does not exist.
pub(crate) fn status_field(pid: impl std::fmt::Display, name: &str) -> Option<Pid> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(number(field(&status, name)))
}

fn read(path: &str) -> String {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    String::from_utf8_lossy(&bytes).into_owned()
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in /proc/PID/status")).trim()
}

fn number<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap_or_else(|error| panic!("{text:?} is not a number: {error:?}"))
}

/// The counts of a namespace's processes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lives {
    /// Its init.
    pub(crate) who: Who,
    pub(crate) forks: u64,
    pub(crate) execs: u64,
    /// Processes that exited with 0.
    pub(crate) ended_well: u64,
    /// Processes that exited with another code.
    pub(crate) failed: u64,
    pub(crate) ended_by_signal: u64,
    pub(crate) killed_with_their_init: u64,
    /// Threads that were created and have ended.
    pub(crate) threads: u64,
}
