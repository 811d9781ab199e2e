//! Thresholds of findings.

use std::time::Duration;

/// The thresholds. Each is a command-line option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Time for an init to reap an adopted zombie.
    pub zombie_age: Duration,
    /// A process that leaves this number of its own children as zombies is a finding.
    pub zombies: u64,
    /// Time that a teardown may take.
    pub teardown: Duration,
    /// How long an event remains a finding.
    pub incident: Duration,
    /// Share of a limit, in percent, at which it is nearly reached.
    pub pids_percent: u8,
    /// Time that a namespace may be held without a process.
    pub leaked: Duration,
    /// Time that a joined process may run if nothing shows that its session is over.
    pub joined: Duration,
    /// Time that a runtime's helper may outlive its namespace.
    pub creator: Duration,
    /// Time for a process to fork after its children's namespace was changed.
    pub elsewhere: Duration,
    /// A namespace with this number of levels or fewer left below it is too deep.
    pub depth_left: u32,
}

impl Thresholds {
    /// The longest threshold of the findings about past incidents and about namespaces that are gone or without
    /// processes.
    pub(super) fn longest_after_an_end(&self) -> Duration {
        self.incident.max(self.leaked).max(self.creator)
    }
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
