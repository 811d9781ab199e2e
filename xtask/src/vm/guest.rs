//! Runs a guest: qemu with a kernel and the initramfs.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{accel::Accel, qemu::Qemu, stream::Listener};

/// The unit of a guest's clock.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Clock {
    /// Real time.
    Time,
    /// Instructions, one nanosecond each. The load of the machine does not change the guest's times. Only emulation
    /// has it.
    Instructions,
}

/// The configuration of a guest.
pub(super) struct Guest<'a> {
    pub(super) qemu: &'a Qemu,
    pub(super) accel: Accel,
    pub(super) clock: Clock,
    pub(super) vmlinuz: &'a Path,
    pub(super) initramfs: &'a Path,
    /// Environment variables of its init. The kernel takes about thirty of them, without double quotes.
    pub(super) environment: Vec<(&'static str, String)>,
    /// The log of its console. The log of the other port is next to it.
    pub(super) console: PathBuf,
    /// The time limit for booting. `limit` is the one for the whole run.
    pub(super) boot_limit: Duration,
    pub(super) limit: Duration,
}

/// The result of a guest's run.
pub(super) struct Ran {
    /// Time from qemu's start to the init's first line. `work` is the time from there to the end.
    pub(super) boot: Option<Duration>,
    pub(super) work: Option<Duration>,
    /// The reason why it was stopped, or qemu's error.
    pub(super) note: Option<String>,
}

impl Ran {
    /// The result of a guest that failed to start.
    pub(super) fn failed_to_start(error: &anyhow::Error) -> Self {
        Self { boot: None, work: None, note: Some(format!("{error:#}")) }
    }
}

impl Guest<'_> {
    fn command(&self) -> Command {
        let mut qemu = self.qemu.command();
        qemu.args(["-accel", self.accel.name(), "-cpu", self.accel.cpu()]);
        // One CPU: with two emulated CPUs some kernels crash while they patch their own text.
        qemu.args(["-smp", "1", "-m", "1024"]);
        if self.clock == Clock::Instructions {
            qemu.args(["-icount", "shift=0,sleep=off"]);
        }
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        qemu.arg("-serial").arg(format!("file:{}", self.console.display())).args(["-serial", "stdio"]);
        qemu.arg("-kernel").arg(self.vmlinuz).arg("-initrd").arg(self.initramfs);
        // A kernel that hits an oops panics at once, which ends qemu.
        let mut line = "console=ttyS0 loglevel=4 oops=panic panic=-1".to_owned();
        for (name, value) in &self.environment {
            line += &format!(" \"{name}={value}\"");
        }
        qemu.arg("-append").arg(line);
        qemu
    }

    /// Boots the guest, and reads its output until it ends or must be stopped.
    pub(super) fn run(&self, listener: &mut dyn Listener) -> Result<Ran> {
        let mut qemu = self.command();
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: prctl is a plain system call. Nothing allocates or takes a lock between fork and exec.
        unsafe {
            qemu.pre_exec(|| {
                // Stop the guest if this program is killed.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let begin = Instant::now();
        let mut process = qemu.spawn().context("cannot start qemu")?;
        let heard = listen(&mut process, &self.console.with_extension("said.log"))?;
        let complaint = process.stderr.take().context("qemu has no stderr")?;
        let complaint = thread::spawn(move || std::io::read_to_string(complaint).unwrap_or_default());

        let (mut boot, mut work, mut note) = (None, None, None);
        loop {
            let limit = if boot.is_none() { self.boot_limit.min(self.limit) } else { self.limit };
            match heard.recv_timeout(limit.saturating_sub(begin.elapsed())) {
                Ok(line) => {
                    listener.line(&line);
                    if boot.is_none() && listener.is_up() {
                        boot = Some(begin.elapsed());
                    }
                    if work.is_none() && listener.is_over() {
                        work = boot.map(|boot| begin.elapsed().saturating_sub(boot));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let what = if boot.is_none() { "did not boot" } else { "did not end" };
                    note = Some(format!("it {what} within {} s and was killed", limit.as_secs()));
                    process.kill().context("cannot kill qemu")?;
                    break;
                }
            }
        }
        let status = process.wait().context("cannot wait for qemu")?;
        if note.is_none() && !status.success() {
            let complaint = complaint.join().unwrap_or_default();
            note = Some(format!("qemu: {status}: {}", complaint.trim()));
        }
        Ok(Ran { boot, work, note })
    }
}

/// Starts a thread that reads the lines of the second serial port and logs them in a file.
fn listen(process: &mut Child, log: &Path) -> Result<mpsc::Receiver<String>> {
    let stdout = process.stdout.take().context("qemu has no stdout")?;
    let mut log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let (sender, heard) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            // The log is for later reading, so a full disk must not stop the run.
            let _kept = writeln!(log, "{line}");
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    Ok(heard)
}

/// The last lines of the kernel's console.
pub(super) fn tail(console: &Path) -> String {
    const LINES: usize = 30;
    let text =
        fs::read(console).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
