//! Runs bpftrace for comparison: its count() and its printf() on tracepoints that we hook too.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

/// The time limit for compiling and attaching.
const PATIENCE: Duration = Duration::from_secs(20);
/// The directory in which bpftrace finds tracepoints.
const TRACEFS: &str = "/sys/kernel/tracing/events";

/// The kernel's counters of a program.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Runs {
    pub(crate) ns: u64,
    pub(crate) runs: u64,
}

/// The reason why bpftrace cannot run here, if that is known in advance.
pub(crate) fn missing() -> Option<&'static str> {
    if Command::new("bpftrace").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
    {
        return Some("it is not installed (apt-get install bpftrace)");
    }
    if !Path::new(TRACEFS).is_dir() {
        return Some(
            "no tracefs is mounted (mount -t tracefs tracefs /sys/kernel/tracing), where it finds tracepoints",
        );
    }
    None
}

/// A running script with one program on one tracepoint.
pub(crate) struct Script(Child);

impl Script {
    /// `tracepoint:… { @ = count(); }`.
    pub(crate) fn count(tracepoint: &str) -> Result<Self> {
        Self::start(tracepoint, "@ = count();")
    }

    /// `tracepoint:… { printf(…); }`: prints a line for each event, with the names and numbers in `arguments`.
    pub(crate) fn printf(tracepoint: &str, format: &str, arguments: &str) -> Result<Self> {
        Self::start(tracepoint, &format!("printf(\"{format}\\n\", {arguments});"))
    }

    fn start(tracepoint: &str, action: &str) -> Result<Self> {
        let text = format!("tracepoint:{tracepoint} {{ {action} }}");
        let mut command = Command::new("bpftrace");
        command.args(["-e", &text]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut script = Self(command.spawn().context("start bpftrace (apt-get install bpftrace)")?);
        let began = Instant::now();
        while script.runs()?.runs == 0 {
            if let Some(status) = script.0.try_wait()? {
                bail!("bpftrace ended with {status} on {text}: is a tracefs mounted on /sys/kernel/tracing?");
            }
            ensure!(began.elapsed() < PATIENCE, "bpftrace saw no event of {tracepoint}");
            // A process that starts and exits passes each of these tracepoints.
            Command::new("/bin/true").status().context("run /bin/true")?;
            thread::sleep(Duration::from_millis(5));
        }
        Ok(script)
    }

    /// The counters of its program.
    pub(crate) fn runs(&self) -> Result<Runs> {
        runs_of(self.0.id())
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// The summed counters of all BPF programs that a process has open.
fn runs_of(pid: u32) -> Result<Runs> {
    let mut all = Runs::default();
    let mut seen = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).context("read the files of a process")? {
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let field = |name: &str| -> Option<u64> {
            text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
        };
        let Some(id) = field("prog_id:").filter(|id| !seen.contains(id)) else { continue };
        seen.push(id);
        all.ns += field("run_time_ns:").unwrap_or(0);
        all.runs += field("run_cnt:").unwrap_or(0);
    }
    Ok(all)
}
