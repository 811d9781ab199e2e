//! bpftrace beside us: its count() and its printf() on tracepoints that we hook too.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

/// How long it may take to compile and attach.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where it finds its tracepoints.
const TRACEFS: &str = "/sys/kernel/tracing/events";

/// What the kernel has counted of a program.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Runs {
    pub(crate) ns: u64,
    pub(crate) runs: u64,
}

/// Why it cannot run here, if that can be known before.
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

/// A script of one program on one tracepoint.
pub(crate) struct Script(Child);

impl Script {
    /// `tracepoint:… { @ = count(); }`.
    pub(crate) fn count(tracepoint: &str) -> Result<Self> {
        Self::start(tracepoint, "@ = count();")
    }

    /// `tracepoint:… { printf(…); }`: a line for each, with the names and numbers that `arguments` gives.
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
            ensure!(began.elapsed() < PATIENCE, "bpftrace has seen nothing of {tracepoint}");
            // Each of these tracepoints is passed by a process that lives and dies.
            Command::new("/bin/true").status().context("run /bin/true")?;
            thread::sleep(Duration::from_millis(5));
        }
        Ok(script)
    }

    /// Of its program.
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

/// The runs of the BPF programs that a process has open, all together.
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
