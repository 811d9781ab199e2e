//! Changes that an event makes, and contradictions that it reveals.

use crate::event::identity::{NsInum, ProcessKey};

/// A change in the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A process was added.
    ProcessAdded(ProcessKey),
    /// Its state or attributes changed.
    ProcessUpdated(ProcessKey),
    /// It has exited.
    ProcessEnded(ProcessKey),
    /// It is gone.
    ProcessRemoved(ProcessKey),
    /// A namespace was added.
    NamespaceAdded(NsInum),
    /// Its state or attributes changed.
    NamespaceUpdated(NsInum),
    /// It is gone.
    NamespaceRemoved(NsInum),
}

/// Contradictions that show that events were missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inconsistencies {
    /// Processes whose PID was reused, or whose namespace was gone, before their end was reported.
    pub ends_unseen: u64,
    /// Events about a process that was already gone.
    pub after_the_end: u64,
    /// Namespaces whose inode number was reused before their end was reported.
    pub destructions_unseen: u64,
    /// Processes that forked, exited or were reaped before the model knew them.
    pub beginnings_unseen: u64,
}
