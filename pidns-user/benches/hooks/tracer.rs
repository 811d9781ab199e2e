//! Runs the real program as its users do: `pidns-trace -o json`, with its output in a file on disk.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::program;

/// The exit code if the kernel lacks something.
const KERNEL_LACKS: i32 = 4;
/// The time limit for a start or an end.
const PATIENCE: Duration = Duration::from_secs(60);

/// `pidns-trace -o json` with these events.
pub(crate) fn command(events: &str, options: &[&str]) -> Command {
    command_of(&program::path(), &[&["-e", events], options].concat())
}

fn command_of(program: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(["-q", "-o", "json"]).args(options).stdin(Stdio::null());
    command
}

/// A running pidns-trace. Killed on drop if it is not finished.
pub(crate) struct Tracer {
    child: Child,
    output: NamedTempFile,
    /// The ids of its programs.
    pub(crate) ids: Vec<u32>,
    at_start: Cpu,
    reaped: bool,
}

/// The results of a run.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Run {
    /// Number of events written.
    pub(crate) events: u64,
    /// Number of events lost at any stage.
    pub(crate) lost: u64,
    /// Number of records that its programs sent.
    pub(crate) kernel_records: u64,
    /// CPU time since `stream.start`, in user mode.
    pub(crate) user_us: u64,
    /// CPU time since `stream.start`, in the kernel.
    pub(crate) system_us: u64,
    /// VmHWM shortly before the end.
    pub(crate) peak_kib: u64,
    /// Number of bytes written.
    pub(crate) output_bytes: u64,
}

/// CPU time.
#[derive(Clone, Copy)]
struct Cpu {
    user: Duration,
    system: Duration,
}

impl Tracer {
    /// Starts it, and waits for its first line.
    pub(crate) fn start(program: &Path, options: &[&str]) -> Result<Self> {
        // Avoid /tmp, which is often in memory. A guest has only /tmp.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let output = if folder.is_dir() { NamedTempFile::new_in(folder) } else { NamedTempFile::new() };
        let output = output.context("create a file for the stream")?;
        let child = command_of(program, options)
            .stdout(output.reopen().context("open the stream's file")?)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let mut tracer = Self {
            child,
            output,
            ids: Vec::new(),
            at_start: Cpu { user: Duration::ZERO, system: Duration::ZERO },
            reaped: false,
        };
        tracer.await_start()?;
        tracer.ids = tracer.program_ids()?;
        tracer.at_start = tracer.cpu()?;
        Ok(tracer)
    }

    fn await_start(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while fs::metadata(self.output.path())?.len() == 0 {
            if let Some(status) = self.child.try_wait()? {
                self.reaped = true;
                bail!("pidns-trace ended at once, with {status}");
            }
            ensure!(Instant::now() < deadline, "pidns-trace does not start to stream");
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn proc(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.child.id().to_string()).join(file)
    }

    /// The ids of its loaded programs. Other processes may have programs with the same names.
    fn program_ids(&self) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(self.proc("fdinfo")).context("list pidns-trace's files")? {
            // Files open and close while it runs.
            let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
            let id = text.lines().find_map(|line| line.strip_prefix("prog_id:"));
            // A link shows the id of its program too.
            if let Some(Ok(id)) = id.map(|id| id.trim().parse())
                && !ids.contains(&id)
            {
                ids.push(id);
            }
        }
        ensure!(!ids.is_empty(), "pidns-trace has no program loaded");
        Ok(ids)
    }

    /// Reads the CPU time, in ticks of 10 ms. That is precise enough for a storm.
    fn cpu(&self) -> Result<Cpu> {
        let stat = fs::read_to_string(self.proc("stat")).context("read pidns-trace's CPU time")?;
        // The name may contain blanks. After it come state, ppid, …; utime is field 14 of the whole line.
        let fields: Vec<&str> =
            stat.rsplit_once(')').context("/proc/PID/stat has no name")?.1.split_whitespace().collect();
        let time = |index: usize| -> Result<Duration> {
            let ticks: u64 = fields.get(index).context("utime and stime in /proc/PID/stat")?.parse()?;
            Ok(Duration::from_secs(ticks) / rustix::param::clock_ticks_per_second() as u32)
        };
        Ok(Cpu { user: time(11)?, system: time(12)? })
    }

    fn peak_kib(&self) -> Result<u64> {
        let status = fs::read_to_string(self.proc("status")).context("read pidns-trace's memory")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Ends it as Ctrl-C does.
    pub(crate) fn finish(mut self) -> Result<Run> {
        let peak_kib = self.peak_kib()?;
        signal(&self.child, libc::SIGINT);
        let (status, total) = self.reap()?;
        ensure!(status.success(), "pidns-trace ended with {status}");
        let end: Value =
            serde_json::from_str(&last_line(self.output.as_file_mut())?).context("the stream's last line")?;
        ensure!(end["event"] == "stream.end", "the stream ends with {end}");
        Ok(Run {
            events: sum(
                &end["events"],
                |(name, count)| if name.starts_with("stream.") { None } else { count.as_u64() },
            ),
            lost: sum(&end["lost"], |(_, count)| count.as_u64()),
            kernel_records: sum(&end["kernel"], |(_, counts)| counts["submitted"].as_u64()),
            user_us: total.user.saturating_sub(self.at_start.user).as_micros() as u64,
            system_us: total.system.saturating_sub(self.at_start.system).as_micros() as u64,
            peak_kib,
            output_bytes: self.output.as_file().metadata()?.len(),
        })
    }

    /// Waits for its end. Returns the CPU time, which is then known to the microsecond.
    fn reap(&mut self) -> Result<(ExitStatus, Cpu)> {
        let mut status = 0;
        // SAFETY: rusage is plain data, for which zero is a value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both are live. The child is ours and not reaped yet.
        let pid = unsafe { libc::wait4(self.child.id() as libc::pid_t, &raw mut status, 0, &raw mut usage) };
        ensure!(pid > 0, "wait for pidns-trace: {}", std::io::Error::last_os_error());
        self.reaped = true;
        let time = |time: libc::timeval| {
            Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
        };
        Ok((ExitStatus::from_raw(status), Cpu { user: time(usage.ru_utime), system: time(usage.ru_stime) }))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn signal(child: &Child, signal: libc::c_int) {
    // SAFETY: kill takes integers. The child is not reaped, so the PID is still its own.
    unsafe { libc::kill(child.id() as libc::pid_t, signal) };
}

fn sum<'a>(object: &'a Value, value: impl Fn((&'a String, &'a Value)) -> Option<u64>) -> u64 {
    object.as_object().into_iter().flatten().filter_map(value).sum()
}

/// Reads only the end of the file, because a stream is long.
fn last_line(file: &mut File) -> Result<String> {
    const MAX_BYTES: u64 = 64 << 10;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_BYTES)))?;
    let mut end = String::new();
    file.read_to_string(&mut end).context("read the stream's end")?;
    Ok(end.lines().last().context("the stream has no line")?.to_owned())
}

/// Starts it with its output in a pipe. Returns the time until the first line for which `wanted` is true.
pub(crate) fn time_to_line(events: &str, wanted: impl Fn(&str) -> bool) -> Result<Duration> {
    let mut command = command(events, &[]);
    command.stdout(Stdio::piped());
    let began = Instant::now();
    let mut child = command.spawn().with_context(|| format!("start {}", program::path().display()))?;
    let pipe = child.stdout.take().context("the output of pidns-trace is not a pipe")?;
    let mut time = None;
    for line in BufReader::new(pipe).lines() {
        let line = line?;
        if time.is_none() && wanted(&line) {
            time = Some(began.elapsed());
            signal(&child, libc::SIGINT);
        }
    }
    let status = child.wait()?;
    ensure!(status.success(), "pidns-trace ended with {status}");
    time.context("pidns-trace ended without the expected line")
}

/// The hooks and their forms with these options, or the reason why this kernel refuses them.
pub(crate) fn forms(options: &[&str]) -> Result<Result<BTreeMap<String, String>, String>> {
    #[derive(serde::Deserialize)]
    struct Start {
        hooks: BTreeMap<String, String>,
    }
    let mut command = command("namespace.create", options);
    let output = command
        .args(["--duration", "1ms"])
        .output()
        .with_context(|| format!("start {}", program::path().display()))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(KERNEL_LACKS) {
        return Ok(Err(complaint.trim().trim_start_matches("pidns-trace: ").to_owned()));
    }
    ensure!(output.status.success(), "pidns-trace ended with {}: {}", output.status, complaint.trim());
    let text = String::from_utf8_lossy(&output.stdout);
    let start: Start = serde_json::from_str(text.lines().next().unwrap_or_default())
        .context("the hooks in the stream's first line")?;
    Ok(Ok(start.hooks))
}
