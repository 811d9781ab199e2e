//! What an event changes, and what it shows to have gone by unseen.

use crate::event::identity::Identity;

/// What an event changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A process is there.
    Appeared(Identity),
    /// More, or something else, is known of it.
    Learnt(Identity),
    /// It is a zombie.
    Ended(Identity),
    /// It is gone.
    Gone(Identity),
    /// A namespace is there.
    Opened(u32),
    /// More, or something else, is known of it.
    Told(u32),
    /// It is gone.
    Closed(u32),
}

/// What could not be, had everything been seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Surprises {
    /// Processes whose PID was another's, or whose namespace was gone, before anybody saw their end.
    pub ends_unseen: u64,
    /// Words about a process that was gone already.
    pub after_the_end: u64,
    /// Namespaces whose inode number was another's before anybody saw their end.
    pub destructions_unseen: u64,
    /// Processes that turned up without having been forked, exited, or reaped before anybody knew them.
    pub beginnings_unseen: u64,
}
