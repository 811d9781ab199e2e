//! Processes that may run in another container than the PID 1 of their namespace.
//!
//! Containers can share a PID namespace: `--pid container:X`, `--pid host`, shareProcessNamespace, `kubectl debug
//! --target`. The first process of such a container enters the namespace from outside (setns, or as a process of the
//! host), and its descendants are in its cgroup. So a process that enters is read when it executes a program: by then
//! the runtime has put it in its cgroup. The other processes are in their parent's container.

use std::{sync::Arc, time::Instant};

use super::{ContainerCache, bounded_map::BoundedMap, cache::RETRY_AFTER};
use crate::event::{container::Container, identity::ProcessKey};

/// Time of the first read of a process, and number of reads.
#[derive(Clone, Copy, Debug)]
struct Reads {
    first: Instant,
    count: usize,
}

/// The processes. Above 50,000 the oldest entries are removed.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// Processes that came in from outside.
    entered: BoundedMap<ProcessKey, Reads>,
    /// Their descendants.
    forked: BoundedMap<ProcessKey, ProcessKey>,
}

impl Members {
    /// Records a process that came in from outside. Its container may be known once it executes a program.
    pub(super) fn on_enter(&mut self, process: ProcessKey) {
        self.entered.insert(process, Reads { first: Instant::now(), count: 0 });
    }

    /// Records that the container of this process was read once.
    pub(super) fn mark_read(&mut self, process: ProcessKey) {
        self.entered.insert(process, Reads { first: Instant::now(), count: 1 });
    }

    /// Records a fork. If the parent came in from outside, or descends from such a process, the child is in its
    /// container.
    pub(super) fn on_fork(&mut self, process: ProcessKey, parent: ProcessKey) {
        if let Some(entered) = self.root_of(parent) {
            self.forked.insert(process, entered);
        }
    }

    /// Whether this process came in from outside.
    pub(super) fn has_entered(&self, process: ProcessKey) -> bool {
        self.entered.get(&process).is_some()
    }

    /// The process that came in from outside: this one, or its ancestor.
    fn root_of(&self, process: ProcessKey) -> Option<ProcessKey> {
        if self.has_entered(process) { Some(process) } else { self.forked.get(&process).copied() }
    }

    /// The container of a process, if it is known yet, and the process whose cgroup shows it: the one that came in from
    /// outside. `None` if neither is tracked. That process is read again 0.1, 1 and 10 s after it executed its program,
    /// because the runtime writes its files only then.
    pub(super) fn container(
        &mut self,
        process: ProcessKey,
        cache: &mut ContainerCache,
    ) -> Option<(ProcessKey, Arc<Container>)> {
        let root = self.root_of(process)?;
        let reads = self.entered.get_mut(&root)?;
        if let Some(wait) = reads.count.checked_sub(1).and_then(|reads| RETRY_AFTER.get(reads))
            && reads.first.elapsed() >= *wait
        {
            reads.count += 1;
            return Some((root, cache.find(root)?));
        }
        Some((root, cache.last_known(root)?))
    }
}
