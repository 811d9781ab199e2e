//! Events for tests.

use super::{Body, Process};

impl Body {
    /// A process in a snapshot that shows nothing else about it.
    pub(crate) fn snapshot_process(process: Process, state: char, threads: u32) -> Self {
        Self::SnapshotProcess {
            process,
            state: Some(state),
            threads: Some(threads),
            threads_live: None,
            exiting: false,
            frozen: false,
            freezer: None,
            tracer: None,
            subreaper: None,
            cgroup_id: None,
            cgroup: None,
            zombie_since_boot_ns: None,
            last_ran_boot_ns: None,
            wchan: None,
            joined: None,
        }
    }
}
