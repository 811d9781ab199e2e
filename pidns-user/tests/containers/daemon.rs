//! Runs a separate daemon for a test.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::scratch::{Scratch, output};

/// A running daemon. Stopped on drop.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts the daemon, and waits until the command of `readiness_check` succeeds.
    pub(crate) fn start(
        scratch: &Scratch,
        command: &mut Command,
        mut readiness_check: impl FnMut() -> Command,
    ) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let log = scratch.path(&format!("{name}.log"));
        let file = File::create(&log).expect("create the file");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("duplicate the descriptor"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{name} does not start ({error}): `cargo xtask setup` installs it")
            });
        let mut daemon = Self { child, log };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !output(&mut readiness_check()).status.success() {
            let ended = daemon.child.try_wait().expect("wait for the daemon");
            assert!(ended.is_none(), "{name} has ended: {ended:?}\n{}", daemon.log());
            assert!(Instant::now() < deadline, "{name} does not answer\n{}", daemon.log());
            thread::sleep(Duration::from_millis(50));
        }
        daemon
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}:\n{}", self.log.display(), self.log());
        }
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended already.
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
