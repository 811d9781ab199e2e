//! systemd-nspawn without a unit for its machine: nothing but its command line has the name.

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

/// A machine of systemd-nspawn, which ends with this.
struct Machine {
    nspawn: Child,
}

impl Machine {
    fn start(scratch: &Scratch, args: &[&str]) -> Self {
        let mut nspawn = Command::new("systemd-nspawn");
        // Neither asks a systemd that runs as PID 1.
        nspawn.args(["--register=no", "--keep-unit", "--quiet"]).args(args).args(SLEEP);
        let log = fs::File::create(scratch.path("nspawn.log")).expect("a file");
        nspawn.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log);
        let missing =
            |error| panic!("systemd-nspawn ({error}): `cargo xtask setup` installs systemd-container");
        Self { nspawn: nspawn.spawn().unwrap_or_else(missing) }
    }

    /// The PID of its PID 1, once it runs what it is to run.
    fn init(&mut self, scratch: &Scratch) -> u32 {
        let pid = self.nspawn.id();
        let children = format!("/proc/{pid}/task/{pid}/children");
        let sleeps = |pid: &u32| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(SLEEP[0].as_bytes()))
        };
        let mut init = None;
        wait_until("the machine's PID 1", || {
            let ended = self.nspawn.try_wait().expect("our own child");
            let log = || fs::read_to_string(scratch.path("nspawn.log")).unwrap_or_default();
            assert!(ended.is_none(), "systemd-nspawn ended: {}", log());
            let pids = fs::read_to_string(&children).unwrap_or_default();
            init = pids.split_whitespace().filter_map(|pid| pid.parse().ok()).find(sleeps);
            init.is_some()
        });
        init.expect("it was found")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // SIGTERM has nspawn end its machine, and remove what it has mounted.
        if let Some(pid) = i32::try_from(self.nspawn.id()).ok().and_then(Pid::from_raw) {
            let _ended_already = kill_process(pid, Signal::TERM);
        }
        let _reaped_already = self.nspawn.wait();
    }
}

/// A root file system that nspawn takes for one of an operating system.
fn rootfs(scratch: &Scratch) -> PathBuf {
    let rootfs = scratch.rootfs();
    for folder in ["dev", "etc", "proc", "sys", "tmp", "usr"] {
        fs::create_dir_all(rootfs.join(folder)).expect("a folder");
    }
    fs::write(rootfs.join("etc/os-release"), "ID=pidns\n").expect("a file");
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
    // Any program can be called like nspawn.
    assert_eq!(container["by_cgroup_alone"], true, "{tree:#}");
}

#[test]
fn a_machine_of_nspawn_without_a_unit_has_the_name_that_it_was_given() {
    let (scratch, machine) = (Scratch::new(), format!("pidns-machine-{}", std::process::id()));
    let rootfs = rootfs(&scratch);
    let rootfs = rootfs.to_str().expect("a plain name");
    let mut nspawn = Machine::start(&scratch, &["--directory", rootfs, "--machine", &machine]);
    assert_name(&mut nspawn, &scratch, &machine);
}

#[test]
fn a_machine_of_nspawn_without_a_unit_is_named_after_its_folder() {
    let (scratch, machine) = (Scratch::new(), format!("pidns-folder-{}", std::process::id()));
    let folder = scratch.path(&machine);
    fs::rename(rootfs(&scratch), &folder).expect("our own folder");
    let mut nspawn = Machine::start(&scratch, &["-D", folder.to_str().expect("a plain name")]);
    assert_name(&mut nspawn, &scratch, &machine);
}
