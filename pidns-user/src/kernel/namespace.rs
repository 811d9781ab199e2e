//! The namespaces of this program itself.

use std::{fs, os::unix::fs::MetadataExt as _};

use crate::event::INITIAL_NS;

/// Inode number of the initial user namespace (`PROC_USER_INIT_INO`, include/linux/proc_ns.h).
const INITIAL_USER: u64 = 0xeffffffd;

/// Warning for users in another PID namespace.
pub const ELSEWHERE: &str = "this is not the host's PID namespace: all PIDs in the output are those of the host, but \
                             a PID given as --ns is looked up only among this namespace's processes";

/// Advice for users in another user namespace.
pub const TO_INITIAL_USER: &str =
    "run it as root on the host; a container needs the host's user namespace (--userns=host)";

/// Whether the PID namespace is the initial one; `None` if that cannot be read.
pub fn is_initial() -> Option<bool> {
    Some(fs::metadata("/proc/self/ns/pid").ok()?.ino() == u64::from(INITIAL_NS.0))
}

/// Whether the user namespace is the initial one; `None` if that cannot be read. The capabilities that bpf(2) checks
/// (`bpf_capable`, `perfmon_capable`) only count there. In other user namespaces a BPF token could replace them, but
/// nothing here uses one.
pub fn is_initial_user() -> Option<bool> {
    Some(fs::metadata("/proc/self/ns/user").ok()?.ino() == INITIAL_USER)
}
