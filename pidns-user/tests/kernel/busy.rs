//! A busy machine around the tests: containers that sleep, and processes that are forked without end.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

/// The variable that asks for it.
const VARIABLE: &str = "PIDNS_TEST_BUSY";
const CONTAINERS: usize = 20;
/// The files of tests that run on a busy machine. The others would take too long, or load the machine themselves.
pub(crate) const FILES: &[&str] = &["teardown", "signals", "existing", "states", "relations", "holders"];

/// Whether the tests shall run on a busy machine.
pub(crate) fn is_wanted() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Whether the tests of this file run on a busy machine.
pub(crate) fn has_tests(file: &str) -> bool {
    FILES.contains(&file)
}

/// The containers and the storm. Ended on drop.
pub(crate) struct BusyMachine {
    bundle: tempfile::TempDir,
    containers: Vec<String>,
    storm: Child,
}

impl BusyMachine {
    /// Makes this machine busy.
    pub(crate) fn start() -> Self {
        let bundle = tempfile::tempdir().expect("create a temporary directory");
        write_bundle(bundle.path());
        let exe = std::env::current_exe().expect("find this binary");
        let storm = Command::new(exe).args(["actor", "endless-storm"]).stdin(Stdio::null()).spawn();
        let mut busy = Self { bundle, containers: Vec::new(), storm: storm.expect("start the storm") };
        for number in 1..=CONTAINERS {
            let id = format!("pidns-busy-{}-{number}", std::process::id());
            busy.containers.push(id.clone());
            // The container keeps the descriptors, so a pipe would never end.
            let log = File::create(busy.bundle.path().join("log")).expect("create the file");
            let mut runc = Command::new("runc");
            runc.args(["run", "--detach", "--bundle"]).arg(busy.bundle.path()).arg(&id).stdin(Stdio::null());
            runc.stdout(log.try_clone().expect("duplicate the descriptor")).stderr(log);
            let status = runc.status().expect("runc does not start: `cargo xtask setup` installs it");
            let log = fs::read_to_string(busy.bundle.path().join("log")).unwrap_or_default();
            assert!(status.success(), "{runc:?}: {status}: {log}");
        }
        eprintln!("beside {CONTAINERS} containers, and a process that forks without end");
        busy
    }
}

impl Drop for BusyMachine {
    fn drop(&mut self) {
        let _ended_already = self.storm.kill();
        let _reaped = self.storm.wait();
        for id in &self.containers {
            let _ = Command::new("runc").args(["delete", "--force", id]).stderr(Stdio::null()).status();
        }
    }
}

/// Writes the configuration of a container that sleeps, with busybox as its root file system.
fn write_bundle(bundle: &Path) {
    let bin = bundle.join("rootfs/bin");
    fs::create_dir_all(&bin).expect("create a directory");
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|path| path.exists());
    let busybox = busybox.expect("busybox-static is not installed: `cargo xtask setup` installs it");
    fs::copy(busybox, bin.join("busybox")).expect("copy busybox");
    let spec = Command::new("runc").args(["spec", "--bundle"]).arg(bundle).status();
    assert!(spec.expect("runc does not start: `cargo xtask setup` installs it").success(), "runc spec");
    let config = bundle.join("config.json");
    let mut spec: Value =
        serde_json::from_slice(&fs::read(&config).expect("read the configuration")).expect("JSON");
    spec["process"]["args"] = json!(["/bin/busybox", "sleep", "3600"]);
    spec["process"]["terminal"] = json!(false);
    // Raising a limit needs a capability that not every machine grants.
    spec["process"]["rlimits"] = json!([]);
    fs::write(&config, spec.to_string()).expect("write the configuration");
}
