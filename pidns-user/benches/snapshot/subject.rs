//! What is measured: other tools and this one, each reading the same processes.

use std::{
    ffi::CStr,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use pidns_user::{
    event::identity::BootNs,
    kernel::{
        clock,
        iterator::{TaskIterator, snapshot_of},
    },
    procfs::{Procfs, ties::Ties},
};
use serde::Serialize;

use crate::program;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Subject {
    Lsns,
    Ps,
    /// open, read and close of every /proc/PID/status, and nothing made of it.
    StatusLoop,
    OursTree,
    /// `tree` of the program that is compared with.
    TreeBefore,
    OursPs,
    /// A recording that ends at once: the load, its first snapshot, and the model of what exists.
    OursRecord,
    /// The readers of /proc that take the iterator's place where there is none, without the command around them.
    OursProc,
    /// The iterator, loaded before: its records, without what is made of them.
    OursPass,
    /// What holds namespaces, by the kernel's iterators, without the command around it.
    OursHolders,
    /// The same, all from /proc.
    OursHoldersOfProc,
}

impl Subject {
    pub(crate) const ALL: [Self; 11] = [
        Self::Lsns,
        Self::Ps,
        Self::StatusLoop,
        Self::OursTree,
        Self::TreeBefore,
        Self::OursPs,
        Self::OursRecord,
        Self::OursProc,
        Self::OursPass,
        Self::OursHolders,
        Self::OursHoldersOfProc,
    ];

    pub(crate) fn is_of_others(self) -> bool {
        matches!(self, Self::Lsns | Self::Ps | Self::StatusLoop)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lsns => "lsns -t pid -J",
            Self::Ps => "ps -eo pid,pidns",
            Self::StatusLoop => "every /proc/PID/status",
            Self::OursTree => "pidns-trace tree -o json",
            Self::TreeBefore => "  the same of the one before",
            Self::OursPs => "pidns-trace ps -o json",
            Self::OursRecord => "pidns-trace record --duration 1ms",
            Self::OursProc => "  without the iterator: /proc",
            Self::OursPass => "  the iterator's pass alone",
            Self::OursHolders => "  holders, by iterators",
            Self::OursHoldersOfProc => "  holders, from /proc",
        }
    }
}

/// What one snapshot took.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Took {
    pub(crate) ms: f64,
    /// Of it on a CPU, of a process of its own: a busy machine adds less to it than to the time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_ms: Option<f64>,
    /// At its peak, of a process of its own: 1,024 bytes each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peak_kib: Option<u64>,
    /// Processes seen, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seen: Option<u64>,
}

/// All that is measured, ready.
pub(crate) struct Subjects {
    iterator: TaskIterator,
    program: PathBuf,
    before: Option<PathBuf>,
    /// Where recordings go.
    scratch: tempfile::TempDir,
}

impl Subjects {
    pub(crate) fn ready(before: Option<PathBuf>) -> Result<Self> {
        let iterator = TaskIterator::load_with_ties()?;
        Ok(Self { iterator, program: program::path(), before, scratch: tempfile::tempdir()? })
    }

    pub(crate) fn measure(&mut self, subject: Subject) -> Result<Took> {
        match subject {
            Subject::Lsns => command(Command::new("lsns").args(["-t", "pid", "-J"])),
            Subject::Ps => command(Command::new("ps").args(["-eo", "pid,pidns"])),
            Subject::OursTree => command(Command::new(&self.program).args(["tree", "-o", "json"])),
            Subject::TreeBefore => {
                let program = self.before.as_ref().context("no program to compare with")?;
                command(Command::new(program).args(["tree", "-o", "json"]))
            }
            Subject::OursPs => command(Command::new(&self.program).args(["ps", "-o", "json"])),
            Subject::OursRecord => {
                let file = self.scratch.path().join("bench.ndjson");
                command(Command::new(&self.program).arg("record").arg(&file).args([
                    "--force",
                    "--duration",
                    "1ms",
                ]))
            }
            Subject::StatusLoop => timed(status_loop),
            Subject::OursProc => timed(|| {
                Ok(Procfs::default().snapshot(clock::boottime_ns(), &mut || {})?.processes.len() as u64)
            }),
            Subject::OursHolders => self.holders(true),
            Subject::OursHoldersOfProc => self.holders(false),
            Subject::OursPass => {
                let began = Instant::now();
                let records = self.iterator.read(&mut || {})?;
                let ms = milliseconds(began.elapsed());
                let seen = snapshot_of(BootNs(0), BootNs(0), &records)?.processes.len() as u64;
                Ok(Took { ms, cpu_ms: None, peak_kib: None, seen: Some(seen) })
            }
        }
    }
}

impl Subjects {
    /// Finds what holds namespaces, of processes that were listed before.
    fn holders(&mut self, by_iterators: bool) -> Result<Took> {
        let mut snapshot = snapshot_of(BootNs(0), BootNs(0), &self.iterator.read(&mut || {})?)?;
        let began = Instant::now();
        let ties =
            if by_iterators { self.iterator.read_ties(&snapshot, &mut || {})? } else { Ties::default() };
        Procfs::default().add_holders(&mut snapshot, ties, &mut || {});
        let ms = milliseconds(began.elapsed());
        ensure!(!snapshot.holders.is_empty(), "nested namespaces hold those around them");
        Ok(Took { ms, cpu_ms: None, peak_kib: None, seen: Some(snapshot.processes.len() as u64) })
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn timed(read: impl FnOnce() -> Result<u64>) -> Result<Took> {
    let began = Instant::now();
    let seen = read()?;
    Ok(Took { ms: milliseconds(began.elapsed()), cpu_ms: None, peak_kib: None, seen: Some(seen) })
}

/// From before its start to after its end, with its output unread. Its peak is this process's own where that is higher.
fn command(command: &mut Command) -> Result<Took> {
    let name = command.get_program().to_owned();
    let began = Instant::now();
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("start {}", name.display()))?;
    let mut status = 0;
    // SAFETY: rusage is plain data, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both are live; the child is waited for here alone.
    let waited = unsafe { libc::wait4(child.id() as i32, &raw mut status, 0, &raw mut usage) };
    let ms = milliseconds(began.elapsed());
    ensure!(waited > 0 && status == 0, "{} ended with the wait status {status:#x}", name.display());
    let of = |time: libc::timeval| time.tv_sec as f64 * 1e3 + time.tv_usec as f64 / 1e3;
    let cpu_ms = Some(of(usage.ru_utime) + of(usage.ru_stime));
    Ok(Took { ms, cpu_ms, peak_kib: Some(usage.ru_maxrss as u64), seen: None })
}

/// The system calls of a small C program: no library stands between.
fn status_loop() -> Result<u64> {
    let mut seen = 0;
    let mut buffer = [0_u8; 4096];
    // SAFETY: a path that ends with a NUL.
    let directory = unsafe { libc::opendir(c"/proc".as_ptr()) };
    ensure!(!directory.is_null(), "open /proc");
    loop {
        // SAFETY: an open directory, which only this uses.
        let entry = unsafe { libc::readdir(directory) };
        if entry.is_null() {
            break;
        }
        // SAFETY: what readdir returns is valid until the next call, and its name ends with a NUL.
        let name = unsafe { CStr::from_ptr((*entry).d_name.as_ptr()) }.to_bytes();
        if !name.first().is_some_and(u8::is_ascii_digit) {
            continue;
        }
        let mut path = [0_u8; 64];
        write!(&mut path[..63], "/proc/{}/status", str::from_utf8(name)?)?;
        // SAFETY: the path ends with a NUL: the last byte is one.
        let file = unsafe { libc::open(path.as_ptr().cast(), libc::O_RDONLY) };
        if file < 0 {
            continue;
        }
        // SAFETY: as many bytes as the buffer has; the file is open, and nothing else uses it.
        unsafe {
            libc::read(file, buffer.as_mut_ptr().cast(), buffer.len());
            libc::close(file);
        }
        seen += 1;
    }
    // SAFETY: open, and not used any more.
    unsafe { libc::closedir(directory) };
    Ok(seen)
}
