//! LXC by its own tools, on busybox.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use pidns_user::container::{ContainerCache, Roots};
use pidns_user::event::container::Runtime;

use crate::scratch::{Scratch, container_of, name, output, run};

/// A container of LXC, which ends with this.
pub(crate) struct Lxc<'a> {
    scratch: &'a Scratch,
    /// The folder below the scratch folder that its lxcpath is.
    path: &'a str,
    name: &'a str,
}

impl<'a> Lxc<'a> {
    /// With its configuration, no network, and a PID 1 that is this shell script.
    pub(crate) fn new(scratch: &'a Scratch, path: &'a str, name: &'a str, script: &str) -> Self {
        let rootfs = scratch.rootfs();
        for folder in ["proc", "sys", "dev"] {
            fs::create_dir_all(rootfs.join(folder)).expect("a folder");
        }
        let folder = scratch.path(path).join(name);
        fs::create_dir_all(&folder).expect("a folder");
        let init = rootfs.join("bin/init");
        // The second container of a test runs the same file.
        if !init.exists() {
            fs::write(&init, format!("#!/bin/sh\n{script}\n")).expect("a file");
            fs::set_permissions(init, fs::Permissions::from_mode(0o755)).expect("our own file");
        }
        let config = format!(
            "lxc.uts.name = well\nlxc.rootfs.path = dir:{}\nlxc.net.0.type = empty\nlxc.init.cmd = /bin/init\n\
             lxc.apparmor.profile = unconfined\nlxc.mount.auto = proc:mixed\nlxc.autodev = 1\n",
            rootfs.display()
        );
        fs::write(folder.join("config"), config).expect("a file");
        Self { scratch, path, name }
    }

    /// Starts it, and returns the PID of its PID 1.
    #[track_caller]
    pub(crate) fn start(&self) -> u32 {
        let log = self.scratch.arg("lxc.log");
        let started = output(&mut self.command("lxc-start", &["--daemon", "--logfile", &log]));
        let log = || fs::read_to_string(&log).unwrap_or_default();
        assert!(started.status.success(), "{started:?}: {}", log());
        run(&mut self.command("lxc-info", &["--pid", "--no-humanize"])).parse().expect("a PID")
    }

    pub(crate) fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.arg("--lxcpath").arg(self.scratch.path(self.path)).args(["--name", self.name]).args(args);
        command
    }
}

impl Drop for Lxc<'_> {
    fn drop(&mut self) {
        output(&mut self.command("lxc-stop", &["--kill"]));
    }
}

#[test]
fn containers_of_lxc_in_two_lxcpaths_have_the_name_that_they_share() {
    let (scratch, same) = (Scratch::new(), format!("pidns-lxc-{}", std::process::id()));
    let containers = ["one", "two"].map(|path| Lxc::new(&scratch, path, &same, "exec sleep 600"));
    let pids = containers.each_ref().map(Lxc::start);
    let cgroups = pids.map(|pid| fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it lives"));
    // LXC calls the second one's cgroup like that: without it this test would show nothing.
    assert!(cgroups[1].contains(&format!("lxc.payload.{same}-1")), "{cgroups:?}");
    for (pid, cgroup) in pids.into_iter().zip(cgroups) {
        let container = container_of(&mut ContainerCache::new(Roots::host()), pid);
        let container = container.unwrap_or_else(|| panic!("PID {pid} is in no container: {cgroup}"));
        assert_eq!((container.runtime, &container.name), (Some(Runtime::Lxc), &name(&same)), "{cgroup}");
    }
}
