//! Network namespaces: one for the test with its Prometheus, and one a node, on one bridge.
//!
//! None has a name. They are there as long as a process is in them or a file of this process is open: nothing is left of
//! them when it ends, however it does. No traffic leaves them.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread;

use crate::{stage, sys, tools};

/// 198.18.0.0/15 is for tests between networks (RFC 2544).
const NETWORK: &str = "198.18.0";
const BRIDGE: &str = "nodes";

/// A node's network.
pub(crate) struct Network {
    namespace: File,
    /// Its IPv4 address.
    pub(crate) address: String,
}

/// Moves this thread, and those that it starts from now on, to a network namespace of their own, with the bridge in it.
pub(crate) fn move_to_own() {
    sys::unshare(libc::CLONE_NEWNET).expect("root can make a network namespace");
    ip(&["link", "set", "lo", "up"]);
    ip(&["link", "add", BRIDGE, "type", "bridge"]);
    ip(&["address", "add", &format!("{NETWORK}.1/24"), "dev", BRIDGE]);
    ip(&["link", "set", BRIDGE, "up"]);
}

impl Network {
    /// The network of a node with this number, on the bridge.
    pub(crate) fn make(number: u8) -> Self {
        let enter = || {
            sys::unshare(libc::CLONE_NEWNET).expect("root can make a network namespace");
            File::open("/proc/thread-self/ns/net").expect("a thread's namespace can be opened")
        };
        // Only that thread moves, and it ends here.
        let namespace = thread::spawn(enter).join().expect("the thread ends well");
        let network = Self { namespace, address: format!("{NETWORK}.{number}") };
        let link = format!("node{number}");
        ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &network.path()]);
        ip(&["link", "set", &link, "master", BRIDGE, "up"]);
        let address = format!("{}/24", network.address);
        for args in [
            &["link", "set", "lo", "up"][..],
            &["address", "add", &address, "dev", "eth0"],
            &["link", "set", "eth0", "up"],
        ] {
            run(network.enter(ip_program()).args(args));
        }
        network
    }

    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", sys::getpid(), self.namespace.as_raw_fd())
    }

    /// A program, to be run in it. The process that is started becomes it.
    pub(crate) fn enter(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(tools::needed("nsenter", "util-linux"));
        command.arg(format!("--net={}", self.path())).arg("--").arg(program);
        command
    }
}

fn ip_program() -> std::path::PathBuf {
    tools::needed("ip", "iproute2")
}

fn ip(args: &[&str]) {
    run(Command::new(ip_program()).args(args));
}

fn run(command: &mut Command) {
    let (status, _, stderr) = stage::run(command);
    assert!(status.success(), "{command:?}: {status}: {stderr}");
}
