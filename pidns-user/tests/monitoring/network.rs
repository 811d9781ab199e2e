//! Makes network namespaces on one bridge: one for the test with its Prometheus, and one for each node.
//!
//! They have no names. They exist only while a process is in them or a file of this process is open, so none is left
//! when this process ends. No traffic leaves them.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread;

use crate::{actor_handle, sys, tools};

/// 198.18.0.0/15 is reserved for tests between networks (RFC 2544).
const NETWORK: &str = "198.18.0";
const BRIDGE: &str = "nodes";

/// The network of a node.
pub(crate) struct Network {
    namespace: File,
    /// Its IPv4 address.
    pub(crate) address: String,
}

/// Moves this thread, and the threads that it starts later, to a new network namespace with the bridge.
pub(crate) fn move_to_own() {
    sys::unshare(libc::CLONE_NEWNET).expect("create a network namespace");
    ip(&["link", "set", "lo", "up"]);
    ip(&["link", "add", BRIDGE, "type", "bridge"]);
    ip(&["address", "add", &format!("{NETWORK}.1/24"), "dev", BRIDGE]);
    ip(&["link", "set", BRIDGE, "up"]);
}

impl Network {
    /// Makes the network of the node with this number, connected to the bridge.
    pub(crate) fn make(number: u8) -> Self {
        let enter = || {
            sys::unshare(libc::CLONE_NEWNET).expect("create a network namespace");
            File::open("/proc/thread-self/ns/net").expect("open the thread's namespace")
        };
        // Only that thread moves, and it ends here.
        let namespace = thread::spawn(enter).join().expect("the thread does not panic");
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

    /// A command that runs a program in this network. The started process becomes the program.
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
    let (status, _, stderr) = actor_handle::run(command);
    assert!(status.success(), "{command:?}: {status}: {stderr}");
}
