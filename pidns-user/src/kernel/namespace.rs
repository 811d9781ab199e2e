//! The namespaces that this program itself is in.

use std::{fs, os::unix::fs::MetadataExt as _};

use crate::event::INITIAL_NS;

/// Inode number of the initial user namespace (`PROC_USER_INIT_INO`, include/linux/proc_ns.h).
const INITIAL_USER: u64 = 0xeffffffd;

/// The message for a user in another PID namespace.
pub const ELSEWHERE: &str = "this is not the host's own PID namespace: PIDs are shown as the host numbers them, and \
                             lookups of PIDs given as --ns see this namespace's processes only";

/// What to do in another user namespace.
pub const TO_INITIAL_USER: &str =
    "run it as root on the host; in a container it takes the host's user namespace (--userns=host)";

/// Whether the PID namespace is the initial one; `None` where that cannot be read.
pub fn is_initial() -> Option<bool> {
    Some(fs::metadata("/proc/self/ns/pid").ok()?.ino() == u64::from(INITIAL_NS.0))
}

/// Whether the user namespace is the initial one; `None` where that cannot be read. The capabilities that bpf(2) asks for
/// (`bpf_capable`, `perfmon_capable`) count in that one only; a BPF token, which replaces them elsewhere, no process
/// here makes use of.
pub fn is_initial_user() -> Option<bool> {
    Some(fs::metadata("/proc/self/ns/user").ok()?.ino() == INITIAL_USER)
}
