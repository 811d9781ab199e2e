//! From when on something is a finding.

use std::time::Duration;

/// The thresholds. Each is an option of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// A zombie that an init has adopted is one too many after this long.
    pub zombie_age: Duration,
    /// So many zombies of a parent's own children are too many.
    pub zombies: u64,
    /// A teardown hangs after this long.
    pub teardown: Duration,
    /// An event is a finding for this long.
    pub incident: Duration,
    /// A limit is nearly reached at this share of it, in percent.
    pub pids_percent: u8,
    /// A namespace without a process is leaked after this long.
    pub leaked: Duration,
    /// A process that entered a namespace is left over after this long, where nothing else shows that its session is over.
    pub joined: Duration,
    /// A runtime's helper is left over this long after its namespace.
    pub creator: Duration,
    /// A process whose children go elsewhere has this long to fork one.
    pub elsewhere: Duration,
    /// So many levels before the deepest are too few.
    pub depth_left: u32,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            zombie_age: Duration::from_secs(1),
            zombies: 5,
            teardown: Duration::from_secs(1),
            incident: Duration::from_secs(300),
            pids_percent: 80,
            leaked: Duration::from_secs(1),
            joined: Duration::from_secs(3_600),
            creator: Duration::from_secs(10),
            elsewhere: Duration::from_secs(1),
            depth_left: 4,
        }
    }
}
