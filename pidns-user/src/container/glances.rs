//! Limits how many processes of frequent snapshots are read to find their containers.
//!
//! A runtime moves a process into the cgroup of its container shortly after it has started it, so a snapshot can come
//! too early. Each process is therefore read in two snapshots.

use std::collections::HashMap;

use crate::event::identity::ProcessKey;

/// Number of snapshots in which a process is read.
const READS: u8 = 2;
/// Maximum number of processes to read in one snapshot.
const MOST_READS: usize = 2_000;
/// Maximum number of processes to remember. Further ones are not read.
const MOST: usize = 50_000;

/// How often each process of the last two snapshots was read.
#[derive(Debug, Default)]
pub(super) struct Glances {
    before: HashMap<ProcessKey, u8>,
    now: HashMap<ProcessKey, u8>,
    /// Number of reads in this snapshot.
    reads: usize,
}

impl Glances {
    /// Notes that the processes of another snapshot follow. Forgets the processes that the last one did not have.
    pub(super) fn begin(&mut self) {
        self.before = std::mem::take(&mut self.now);
        self.reads = 0;
    }

    /// Whether to read this process of the snapshot now.
    pub(super) fn is_due(&mut self, process: ProcessKey) -> bool {
        let reads = self.before.get(&process).copied().unwrap_or(0);
        let is_due = reads < READS && self.reads < MOST_READS && self.now.len() < MOST;
        if self.now.len() < MOST {
            self.now.insert(process, reads + u8::from(is_due));
        }
        self.reads += usize::from(is_due);
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::identity::{BootNs, HostPid};

    fn process(pid: usize) -> ProcessKey {
        ProcessKey::new(HostPid(pid as u32), BootNs(1))
    }

    #[test]
    fn each_process_is_read_in_two_snapshots_and_a_limited_number_in_each() {
        let mut glances = Glances::default();
        let mut read = Vec::new();
        for _ in 0..5 {
            glances.begin();
            read.push((0..3_000).filter(|&pid| glances.is_due(process(pid))).count());
        }
        assert_eq!(read, [2_000, 2_000, 1_000, 1_000, 0]);
        glances.begin();
        assert!(glances.is_due(process(9_000)), "a new process");
        glances.begin();
        glances.begin();
        assert!(glances.is_due(process(1)), "it was gone, so this may be another one");
    }
}
