//! The processes that container runtimes start for themselves.

use crate::text::Name;

/// Beginnings of the names of processes that runtimes start for one container, or one pod. (The kernel keeps 15 bytes.)
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

/// Whether a process of this name is a runtime's helper. So is a container's main process, until it runs its own program.
pub fn is_runtime_helper(comm: &Name) -> bool {
    HELPERS.iter().any(|helper| comm.as_bytes().starts_with(helper))
}
