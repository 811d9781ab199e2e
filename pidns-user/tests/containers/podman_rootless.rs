//! Rootless Podman, run by a user who is made for the test.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::PathBuf,
    process::Command,
};

use pidns_user::{
    container::{ContainerCache, Roots},
    event::container::Runtime,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    runc::run_for_output,
    scratch::{SLEEP, Scratch, container_of, name, output, run, wait_until},
};

/// A user with a home, a run directory and subordinate ids. Removed on drop, with all processes.
struct User {
    scratch: Scratch,
    name: String,
    uid: u32,
}

impl User {
    fn new() -> Self {
        let scratch = Scratch::new();
        // Others may not enter a temporary directory.
        fs::set_permissions(scratch.path(""), fs::Permissions::from_mode(0o755)).expect("change the mode");
        let name = format!("pidns-{}", std::process::id());
        // Debian's useradd also adds the subordinate ids.
        run(Command::new("useradd").args(["--create-home", "--home-dir", &scratch.arg("home"), &name]));
        let uid = run(Command::new("id").args(["--user", &name])).parse().expect("a user id");
        let user = Self { scratch, name, uid };
        fs::create_dir_all(user.run_folder()).expect("create the run directory");
        fs::set_permissions(user.run_folder(), fs::Permissions::from_mode(0o700)).expect("change the mode");
        chown(user.run_folder(), Some(uid), None).expect("change the owner");
        user
    }

    /// As systemd-logind makes it for a session.
    fn run_folder(&self) -> PathBuf {
        Roots::host().user_run.join(self.uid.to_string())
    }

    fn podman(&self, args: &[&str]) -> Command {
        let mut podman = Command::new("setpriv");
        podman
            .args(["--reuid", &self.name, "--regid", &self.name, "--init-groups", "--reset-env"])
            .arg("env")
            .arg(format!("XDG_RUNTIME_DIR={}", self.run_folder().display()))
            .args(["podman", "--storage-driver", "vfs", "--runtime", "runc", "--cgroup-manager", "cgroupfs"])
            .args(args)
            .current_dir(self.scratch.path("home"));
        podman
    }

    fn processes(&self) -> Vec<Pid> {
        let is_own = |entry: &fs::DirEntry| {
            let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
            uids.is_some_and(|uids| uids.split_whitespace().next() == Some(&self.uid.to_string()))
        };
        let processes = fs::read_dir("/proc").expect("/proc").flatten().filter(is_own);
        processes.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)).collect()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        output(&mut self.podman(&["rm", "--all", "--force", "--time", "0"]));
        // One process keeps Podman's user namespace.
        for pid in self.processes() {
            let _ended_already = kill_process(pid, Signal::KILL);
        }
        wait_until("the end of the user's processes", || self.processes().is_empty());
        output(Command::new("userdel").args(["--force", &self.name]));
        let _nothing_there = fs::remove_dir_all(self.run_folder());
    }
}

#[test]
fn a_rootless_podman_container_has_its_name_and_user() {
    let user = User::new();
    let image = user.scratch.image();
    run(&mut user.podman(&["import", &image, "pidns-busybox:1"]));
    let web = format!("web-{}", std::process::id());
    // Raising a limit needs a capability that not every machine grants.
    let limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000"];
    let args = [
        &["run", "--detach", "--name", &web, "--network", "none"],
        &limits[..],
        &["pidns-busybox:1"],
        &SLEEP,
    ];
    let id = run(&mut user.podman(&args.concat()));
    let pid: u32 =
        run(&mut user.podman(&["inspect", "--format", "{{.State.Pid}}", &id])).parse().expect("a PID");

    let container = container_of(&mut ContainerCache::new(Roots::host()), pid).expect("a container");
    assert_eq!((container.runtime, &container.id), (Some(Runtime::Podman), &name(&id)), "{container:?}");
    assert_eq!((&container.name, container.user), (&name(&web), Some(user.uid)), "{container:?}");
    assert!(container.is_confirmed(), "runc's state names its first process: {container:?}");
    // The user's home is not read, and it has the only files with the name and the image.
    assert_eq!(container.image, None);
    let claim = "its name is only known from conmon's command line, not from a file of Podman";
    assert_eq!(container.doubts, [claim]);

    let (tree, _) = run_for_output(&["tree", &web], 0);
    let label = format!("podman(uid {})/{web}", user.uid);
    assert!(tree.contains(&label), "{label}: {tree}");
}
