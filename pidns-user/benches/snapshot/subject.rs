//! The programs and functions that the bench measures. All read the same processes.

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
    procfs::{Procfs, kernel_holders::KernelHolders},
};
use serde::Serialize;

use crate::program;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Subject {
    Lsns,
    Ps,
    /// Only open, read and close of every /proc/PID/status.
    StatusLoop,
    OursTree,
    /// `tree` of the other build of pidns-trace (`--before`).
    OtherBuild,
    OursPs,
    /// A recording that ends at once: start, first snapshot and model.
    OursRecord,
    /// A snapshot from /proc, as it is taken if the iterator is missing. Only the function, not a command.
    OursProc,
    /// Reading the records of an iterator that is already loaded, without decoding them.
    OursPass,
    /// The holders of namespaces, found by the kernel's iterators. Only the function, not a command.
    OursHolders,
    /// The same, found in /proc.
    OursHoldersOfProc,
}

impl Subject {
    pub(crate) const ALL: [Self; 11] = [
        Self::Lsns,
        Self::Ps,
        Self::StatusLoop,
        Self::OursTree,
        Self::OtherBuild,
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
            Self::OtherBuild => "  the same of the other build",
            Self::OursPs => "pidns-trace ps -o json",
            Self::OursRecord => "pidns-trace record --duration 1ms",
            Self::OursProc => "  without the iterator: /proc",
            Self::OursPass => "  the iterator's pass alone",
            Self::OursHolders => "  holders, by iterators",
            Self::OursHoldersOfProc => "  holders, from /proc",
        }
    }
}

/// The measurements of one snapshot.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Measurement {
    pub(crate) ms: f64,
    /// CPU time, if the snapshot ran in a separate process. A busy machine affects it less than the wall time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_ms: Option<f64>,
    /// Peak memory in units of 1,024 bytes, if the snapshot ran in a separate process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peak_kib: Option<u64>,
    /// Number of processes seen, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seen: Option<u64>,
}

/// Everything that is needed to measure each subject.
pub(crate) struct Subjects {
    iterator: TaskIterator,
    program: PathBuf,
    before: Option<PathBuf>,
    /// Directory for recordings.
    scratch: tempfile::TempDir,
}

impl Subjects {
    pub(crate) fn ready(before: Option<PathBuf>) -> Result<Self> {
        let iterator = TaskIterator::load_with_holders()?;
        Ok(Self { iterator, program: program::path(), before, scratch: tempfile::tempdir()? })
    }

    pub(crate) fn measure(&mut self, subject: Subject) -> Result<Measurement> {
        match subject {
            Subject::Lsns => command(Command::new("lsns").args(["-t", "pid", "-J"])),
            Subject::Ps => command(Command::new("ps").args(["-eo", "pid,pidns"])),
            Subject::OursTree => command(Command::new(&self.program).args(["tree", "-o", "json"])),
            Subject::OtherBuild => {
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
                Ok(Measurement { ms, cpu_ms: None, peak_kib: None, seen: Some(seen) })
            }
        }
    }
}

impl Subjects {
    /// Finds the holders of namespaces among processes that were listed before.
    fn holders(&mut self, by_iterators: bool) -> Result<Measurement> {
        let mut snapshot = snapshot_of(BootNs(0), BootNs(0), &self.iterator.read(&mut || {})?)?;
        let began = Instant::now();
        let from_kernel = if by_iterators {
            self.iterator.read_holders(&snapshot, &mut || {})?
        } else {
            KernelHolders::default()
        };
        Procfs::default().add_holders(&mut snapshot, from_kernel, &mut || {});
        let ms = milliseconds(began.elapsed());
        ensure!(
            !snapshot.holders.is_empty(),
            "found no holder, although nested namespaces hold the outer ones"
        );
        Ok(Measurement { ms, cpu_ms: None, peak_kib: None, seen: Some(snapshot.processes.len() as u64) })
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn timed(read: impl FnOnce() -> Result<u64>) -> Result<Measurement> {
    let began = Instant::now();
    let seen = read()?;
    Ok(Measurement { ms: milliseconds(began.elapsed()), cpu_ms: None, peak_kib: None, seen: Some(seen) })
}

/// Measures a command from before its start to after its end, without reading its output. The peak memory is at least
/// that of this process, because the kernel also counts the child's memory before exec.
fn command(command: &mut Command) -> Result<Measurement> {
    let name = command.get_program().to_owned();
    let began = Instant::now();
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("start {}", name.display()))?;
    let mut status = 0;
    // SAFETY: rusage consists of integers, which can be zero.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both are live. Only this code waits for the child.
    let waited = unsafe { libc::wait4(child.id() as i32, &raw mut status, 0, &raw mut usage) };
    let ms = milliseconds(began.elapsed());
    ensure!(waited > 0 && status == 0, "{} ended with the wait status {status:#x}", name.display());
    let of = |time: libc::timeval| time.tv_sec as f64 * 1e3 + time.tv_usec as f64 / 1e3;
    let cpu_ms = Some(of(usage.ru_utime) + of(usage.ru_stime));
    Ok(Measurement { ms, cpu_ms, peak_kib: Some(usage.ru_maxrss as u64), seen: None })
}

/// Calls libc directly, as a small C program does.
fn status_loop() -> Result<u64> {
    let mut seen = 0;
    let mut buffer = [0_u8; 4096];
    // SAFETY: the path ends with a NUL.
    let directory = unsafe { libc::opendir(c"/proc".as_ptr()) };
    ensure!(!directory.is_null(), "open /proc");
    loop {
        // SAFETY: the directory is open, and only this code uses it.
        let entry = unsafe { libc::readdir(directory) };
        if entry.is_null() {
            break;
        }
        // SAFETY: the result of readdir is valid until the next call, and its name ends with a NUL.
        let name = unsafe { CStr::from_ptr((*entry).d_name.as_ptr()) }.to_bytes();
        if !name.first().is_some_and(u8::is_ascii_digit) {
            continue;
        }
        let mut path = [0_u8; 64];
        write!(&mut path[..63], "/proc/{}/status", str::from_utf8(name)?)?;
        // SAFETY: the last byte of the path is a NUL.
        let file = unsafe { libc::open(path.as_ptr().cast(), libc::O_RDONLY) };
        if file < 0 {
            continue;
        }
        // SAFETY: the length is that of the buffer. The file is open, and nothing else uses it.
        unsafe {
            libc::read(file, buffer.as_mut_ptr().cast(), buffer.len());
            libc::close(file);
        }
        seen += 1;
    }
    // SAFETY: the directory is open, and not used any more.
    unsafe { libc::closedir(directory) };
    Ok(seen)
}
