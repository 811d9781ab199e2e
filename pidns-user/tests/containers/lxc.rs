//! LXC with its own tools, on busybox.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use pidns_user::container::{ContainerCache, Roots};
use pidns_user::event::container::Runtime;

use crate::scratch::{Scratch, container_of, name, output, run};

/// An LXC container. Stopped on drop.
pub(crate) struct Lxc<'a> {
    scratch: &'a Scratch,
    /// Its lxcpath, as a directory below the scratch directory.
    path: &'a str,
    name: &'a str,
}

impl<'a> Lxc<'a> {
    /// Writes the configuration, without network. PID 1 runs this shell script.
    pub(crate) fn new(scratch: &'a Scratch, path: &'a str, name: &'a str, script: &str) -> Self {
        let rootfs = scratch.rootfs();
        for folder in ["proc", "sys", "dev"] {
            fs::create_dir_all(rootfs.join(folder)).expect("create the directory");
        }
        let folder = scratch.path(path).join(name);
        fs::create_dir_all(&folder).expect("create the directory");
        let init = rootfs.join("bin/init");
        // The second container of a test runs the same file.
        if !init.exists() {
            fs::write(&init, format!("#!/bin/sh\n{script}\n")).expect("write the file");
            fs::set_permissions(init, fs::Permissions::from_mode(0o755)).expect("make the file executable");
        }
        let config = format!(
            "lxc.uts.name = well\nlxc.rootfs.path = dir:{}\nlxc.net.0.type = empty\nlxc.init.cmd = /bin/init\n\
             lxc.apparmor.profile = unconfined\nlxc.mount.auto = proc:mixed\nlxc.autodev = 1\n",
            rootfs.display()
        );
        fs::write(folder.join("config"), config).expect("write the file");
        Self { scratch, path, name }
    }

    /// Starts the container. Returns its PID 1.
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
fn lxc_containers_in_two_lxcpaths_keep_their_common_name() {
    let (scratch, same) = (Scratch::new(), format!("pidns-lxc-{}", std::process::id()));
    let containers = ["one", "two"].map(|path| Lxc::new(&scratch, path, &same, "exec sleep 600"));
    let pids = containers.each_ref().map(Lxc::start);
    let cgroups =
        pids.map(|pid| fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("the process lives"));
    // LXC adds a suffix to the second cgroup. Without it, this test would prove nothing.
    assert!(cgroups[1].contains(&format!("lxc.payload.{same}-1")), "{cgroups:?}");
    for (pid, cgroup) in pids.into_iter().zip(cgroups) {
        let container = container_of(&mut ContainerCache::new(Roots::host()), pid);
        let container = container.unwrap_or_else(|| panic!("PID {pid} is in no container: {cgroup}"));
        assert_eq!((container.runtime, &container.name), (Some(Runtime::Lxc), &name(&same)), "{cgroup}");
    }
}
