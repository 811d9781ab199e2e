//! systemd-nspawn whose machine has no unit. Only the command line contains its name.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    runc::run_for_output,
    scratch::{SLEEP, Scratch, wait_until},
};

/// A machine of systemd-nspawn. Stopped on drop.
struct Machine {
    nspawn: Child,
}

impl Machine {
    fn start(scratch: &Scratch, args: &[&str]) -> Self {
        let mut nspawn = Command::new("systemd-nspawn");
        // With these options it does not need a systemd that runs as PID 1.
        nspawn.args(["--register=no", "--keep-unit", "--quiet"]).args(args).args(SLEEP);
        let log = fs::File::create(scratch.path("nspawn.log")).expect("create the file");
        nspawn.stdin(Stdio::null()).stdout(log.try_clone().expect("duplicate the descriptor")).stderr(log);
        let missing =
            |error| panic!("systemd-nspawn ({error}): `cargo xtask setup` installs systemd-container");
        Self { nspawn: nspawn.spawn().unwrap_or_else(missing) }
    }

    /// The PID of its PID 1, once that runs its program.
    fn init(&mut self, scratch: &Scratch) -> u32 {
        let pid = self.nspawn.id();
        let children = format!("/proc/{pid}/task/{pid}/children");
        let sleeps = |pid: &u32| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(SLEEP[0].as_bytes()))
        };
        let mut init = None;
        wait_until("the machine's PID 1", || {
            let ended = self.nspawn.try_wait().expect("wait for systemd-nspawn");
            let log = || fs::read_to_string(scratch.path("nspawn.log")).unwrap_or_default();
            assert!(ended.is_none(), "systemd-nspawn ended: {}", log());
            let pids = fs::read_to_string(&children).unwrap_or_default();
            init = pids.split_whitespace().filter_map(|pid| pid.parse().ok()).find(sleeps);
            init.is_some()
        });
        init.expect("the PID 1 was found")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // On SIGTERM, nspawn stops its machine and unmounts its file systems.
        if let Some(pid) = i32::try_from(self.nspawn.id()).ok().and_then(Pid::from_raw) {
            let _ended_already = kill_process(pid, Signal::TERM);
        }
        let _reaped_already = self.nspawn.wait();
    }
}

/// A root file system that nspawn accepts as an operating system.
fn rootfs(scratch: &Scratch) -> PathBuf {
    let rootfs = scratch.rootfs();
    for folder in ["dev", "etc", "proc", "sys", "tmp", "usr"] {
        fs::create_dir_all(rootfs.join(folder)).expect("create the directory");
    }
    fs::write(rootfs.join("etc/os-release"), "ID=pidns\n").expect("write the file");
    rootfs
}

#[track_caller]
fn assert_name(machine: &mut Machine, scratch: &Scratch, expected: &str) {
    let pid = machine.init(scratch);
    let (tree, _) = run_for_output(&["tree", "-o", "json", expected], 0);
    let tree: Value = serde_json::from_str(&tree).expect("JSON");
    let namespace = &tree["namespaces"][0];
    assert_eq!(namespace["init"]["pid"], pid, "{tree:#}");
    let container = &namespace["ns"]["container"];
    assert_eq!((&container["runtime"], &container["name"]), (&"nspawn".into(), &expected.into()), "{tree:#}");
    // Any program can have this command line, so the name is not confirmed.
    assert_eq!(container["by_cgroup_alone"], true, "{tree:#}");
}

#[test]
fn an_nspawn_machine_without_a_unit_has_its_given_name() {
    let (scratch, machine) = (Scratch::new(), format!("pidns-machine-{}", std::process::id()));
    let rootfs = rootfs(&scratch);
    let rootfs = rootfs.to_str().expect("a plain name");
    let mut nspawn = Machine::start(&scratch, &["--directory", rootfs, "--machine", &machine]);
    assert_name(&mut nspawn, &scratch, &machine);
}

#[test]
fn an_nspawn_machine_without_a_unit_is_named_after_its_directory() {
    let (scratch, machine) = (Scratch::new(), format!("pidns-folder-{}", std::process::id()));
    let folder = scratch.path(&machine);
    fs::rename(rootfs(&scratch), &folder).expect("rename the directory");
    let mut nspawn = Machine::start(&scratch, &["-D", folder.to_str().expect("a plain name")]);
    assert_name(&mut nspawn, &scratch, &machine);
}
