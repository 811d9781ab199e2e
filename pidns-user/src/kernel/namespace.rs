//! The PID namespace that this program itself is in.

use std::{fs, os::unix::fs::MetadataExt as _};

/// Inode number of the initial PID namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h).
const INITIAL: u64 = 0xeffffffc;

/// What to say to somebody who stands in another one.
pub const ELSEWHERE: &str = "this is not the host's own PID namespace: PIDs are shown as the host numbers them, and \
                             lookups of PIDs given as --ns see this namespace's processes only";

/// Whether it is the initial one; `None` where that cannot be read.
pub fn is_initial() -> Option<bool> {
    Some(fs::metadata("/proc/self/ns/pid").ok()?.ino() == INITIAL)
}
