//! A guest: qemu with a kernel and the initramfs, from its start to its end.

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

/// What a guest's clock counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Clock {
    /// Real time.
    Time,
    /// Instructions, one nanosecond each: whatever else the machine does, a guest takes as long as ever. Emulation only.
    Instructions,
}

/// What a guest is made of.
pub(super) struct Guest<'a> {
    pub(super) qemu: &'a Qemu,
    pub(super) accel: Accel,
    pub(super) clock: Clock,
    pub(super) vmlinuz: &'a Path,
    pub(super) initramfs: &'a Path,
    /// What its init finds in its environment. The kernel takes about thirty of them, without double quotes.
    pub(super) environment: Vec<(&'static str, String)>,
    /// Where its console goes; the output of the other port goes beside it.
    pub(super) console: PathBuf,
    /// How long it may take to boot, and how long in all.
    pub(super) boot_limit: Duration,
    pub(super) limit: Duration,
}

/// How a guest's run went.
pub(super) struct Ran {
    /// From qemu's start to the init's first line, and from there to the end.
    pub(super) boot: Option<Duration>,
    pub(super) work: Option<Duration>,
    /// Why it was ended, or qemu's error.
    pub(super) note: Option<String>,
}

impl Ran {
    /// A guest that could not be run.
    pub(super) fn not_at_all(error: &anyhow::Error) -> Self {
        Self { boot: None, work: None, note: Some(format!("{error:#}")) }
    }
}

impl Guest<'_> {
    fn command(&self) -> Command {
        let mut qemu = self.qemu.command();
        qemu.args(["-accel", self.accel.name(), "-cpu", self.accel.cpu()]);
        // One CPU: with two of them emulated some kernels die while they patch their own text.
        qemu.args(["-smp", "1", "-m", "1024"]);
        if self.clock == Clock::Instructions {
            qemu.args(["-icount", "shift=0,sleep=off"]);
        }
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        qemu.arg("-serial").arg(format!("file:{}", self.console.display())).args(["-serial", "stdio"]);
        qemu.arg("-kernel").arg(self.vmlinuz).arg("-initrd").arg(self.initramfs);
        // A kernel that has tripped ends at once, and with it qemu.
        let mut line = "console=ttyS0 loglevel=4 oops=panic panic=-1".to_owned();
        for (name, value) in &self.environment {
            line += &format!(" \"{name}={value}\"");
        }
        qemu.arg("-append").arg(line);
        qemu
    }

    /// Boots it and listens until it ends or has to be ended.
    pub(super) fn run(&self, listener: &mut dyn Listener) -> Result<Ran> {
        let mut qemu = self.command();
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: prctl is a plain system call: nothing is allocated and no lock is taken between fork and exec.
        unsafe {
            qemu.pre_exec(|| {
                // No guest is left running when this program is killed.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let begin = Instant::now();
        let mut process = qemu.spawn().context("cannot start qemu")?;
        let heard = listen(&mut process, &self.console.with_extension("said.log"))?;
        let complaint = process.stderr.take().context("qemu has a stderr")?;
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
                    note = Some(format!("it {what} within {} s and was ended", limit.as_secs()));
                    process.kill().context("qemu cannot be ended")?;
                    break;
                }
            }
        }
        let status = process.wait().context("qemu cannot be waited for")?;
        if note.is_none() && !status.success() {
            let complaint = complaint.join().unwrap_or_default();
            note = Some(format!("qemu: {status}: {}", complaint.trim()));
        }
        Ok(Ran { boot, work, note })
    }
}

/// The lines of the second serial port, as a thread reads them and keeps them in a file.
fn listen(process: &mut Child, log: &Path) -> Result<mpsc::Receiver<String>> {
    let stdout = process.stdout.take().context("qemu has a stdout")?;
    let mut log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let (sender, heard) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            // The copy is for later reading: a full disk is no reason to stop.
            let _kept = writeln!(log, "{line}");
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    Ok(heard)
}

/// The last lines that the kernel wrote on its console.
pub(super) fn tail(console: &Path) -> String {
    const LINES: usize = 30;
    let text =
        fs::read(console).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
