//! What an event changes, and what it shows to have gone by unseen.

use crate::event::identity::{NsInum, ProcessKey};

/// What an event changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A process is there.
    ProcessAdded(ProcessKey),
    /// More, or something else, is known of it.
    ProcessUpdated(ProcessKey),
    /// It is a zombie.
    ProcessEnded(ProcessKey),
    /// It is gone.
    ProcessRemoved(ProcessKey),
    /// A namespace is there.
    NamespaceAdded(NsInum),
    /// More, or something else, is known of it.
    NamespaceUpdated(NsInum),
    /// It is gone.
    NamespaceRemoved(NsInum),
}

/// What could not be, had everything been seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inconsistencies {
    /// Processes whose PID was reused, or whose namespace was gone, before their end was seen.
    pub ends_unseen: u64,
    /// Events about a process that was gone already.
    pub after_the_end: u64,
    /// Namespaces whose inode number was reused before their end was seen.
    pub destructions_unseen: u64,
    /// Processes that turned up without having been forked, exited, or reaped before they were known.
    pub beginnings_unseen: u64,
}
