//! Recognizes the processes that container runtimes start for themselves.

use crate::text::Name;

/// Prefixes of names of processes that runtimes start for one container or pod. (The kernel keeps 15 bytes.)
const HELPERS: [&[u8]; 9] = [
    b"containerd-shim",
    b"docker-containe",
    b"conmon",
    b"runc",
    b"crun",
    b"youki",
    b"lxc-start",
    b"[lxc monitor]",
    b"systemd-nspawn",
];

/// Whether a process with this name is a runtime's helper. So does a container's main process before its exec.
pub fn is_runtime_helper(comm: &Name) -> bool {
    HELPERS.iter().any(|helper| comm.as_bytes().starts_with(helper))
}
